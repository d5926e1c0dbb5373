// A consumer in a process of its own, under plain Node: `node peer.ts '{"nodeID":…}'`. It prints `IN`
// with each message whose handler has written its effect, and `UNHANDLED` with each rejection that nobody
// looked at.
import { ServiceBroker, type ServiceSchema } from "moleculer";

import { LoopbackTcp } from "../../../adapters/transporter/loopback-tcp.ts";
import { type PeerSpec, consumerSchema } from "./services.ts";

process.on("unhandledRejection", (error) => {
	console.log(`UNHANDLED ${error instanceof Error ? error.stack : String(error)}`);
});
const { nodeID, namespace, port, consumer, mood } = JSON.parse(process.argv[2] ?? "") as PeerSpec;
const broker = new ServiceBroker({
	nodeID,
	namespace,
	logger: false,
	transporter: new LoopbackTcp({ urls: `tcp://127.0.0.1:${port}/k` }),
});
const handler = async (id: string, params: unknown) => {
	console.log(`IN ${id}`);
	if (mood === "stuck") await new Promise(() => undefined);
	if (mood === "deadly" && (params as { kill?: boolean }).kill)
		process.kill(process.pid, "SIGKILL");
};
broker.createService(consumerSchema(consumer, handler) as ServiceSchema);
await broker.start();
process.stdin.on("close", () => process.exit()).resume();
