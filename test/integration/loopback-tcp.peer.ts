// A node in a process of its own, under plain Node: `node loopback-tcp.peer.ts <nodeID> <urls>`.
import { ServiceBroker } from "moleculer";

import { LoopbackTcp } from "../../adapters/transporter/loopback-tcp.ts";

const [nodeID, urls] = process.argv.slice(2);
if (!nodeID || !urls) throw new Error("usage: loopback-tcp.peer.ts <nodeID> <urls>");

const broker = new ServiceBroker({ nodeID, logger: false, transporter: new LoopbackTcp(urls) });
broker.createService({ name: nodeID, actions: { whoami: () => process.pid } });
await broker.start();
