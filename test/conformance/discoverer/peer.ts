// A node in a process of its own, under plain Node: `node peer.ts '{"nodeID":…}'`.
import { makeNode, type NodeSpec } from "./nodes.ts";

const spec = JSON.parse(process.argv[2] ?? "") as NodeSpec;
const broker = makeNode(spec, true);
process.once("SIGTERM", () => void broker.stop().then(() => process.exit(0)));
await broker.start();
console.log("PEER STARTED");
