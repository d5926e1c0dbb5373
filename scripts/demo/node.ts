// One of the demo's processes: `node node.ts <name> <folder> <port>`, the port being the demo's own.
import { ServiceBroker } from "moleculer";

import { LoopbackTcp } from "../../adapters/transporter/loopback-tcp.ts";
import { DATABASES, type Databases } from "./databases.ts";
import { NETWORK, type Network, overNetwork } from "./network.ts";
import { countCopies, servicesOf } from "./services.ts";
import { type NodeName, READY } from "./words.ts";

const [name, folder, port] = process.argv.slice(2) as [NodeName, string, string];
const network = JSON.parse(process.env[NETWORK] ?? "") as Network;
const databases = JSON.parse(process.env[DATABASES] ?? "") as Databases;

const broker = new ServiceBroker({
	nodeID: name,
	...overNetwork(network, new LoopbackTcp({ urls: `tcp://127.0.0.1:${port}/demo` })),
	logger: { type: "Console", options: { colors: false } },
	middlewares: [countCopies],
	requestTimeout: 10_000,
});
for (const schema of servicesOf(name, { folder, databases, delivery: network.delivery })) {
	broker.createService(schema);
}
await broker.start();
console.log(READY);

// The demo holds the other end: it is closed when the demo ends, however it ends.
process.stdin.on("close", () => process.exit()).resume();
