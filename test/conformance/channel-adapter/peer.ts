// A consumer in a process of its own, under plain Node: `node peer.ts '{"url":…}'`. It prints what it
// handles, one message a line, and never ends the handler of "stuck".
import type { ChannelOptions } from "../../../adapters/channels/index.ts";
import { consumer, hardened, makeNode } from "./nodes.ts";

const { url, nodeID, namespace, options } = JSON.parse(process.argv[2] ?? "") as {
	url: string;
	nodeID: string;
	namespace: string;
	options: ChannelOptions;
};
const handler = async (name: string) => {
	console.log(name);
	if (name === "stuck") await new Promise(() => undefined);
};
const node = makeNode({ nodeID, namespace }, hardened(url, options), [
	consumer("svc", "work", handler),
]);
await node.broker.start();
console.log("PEER STARTED");
