// The coordinator of `bench/delivery.ts --coordinator process`: node bench/delivery-coordinator.ts
// <namespace> <place>. It tells its parent the port that it is found by, and stops when told to.
import { once } from "node:events";

import { ServiceBroker } from "moleculer";

import { LoopbackTcp } from "../adapters/transporter/loopback-tcp.ts";
import { freePort } from "../scripts/servers/tools.ts";
import { type CoordinatorPlace, coordinatorOf } from "./delivery-subjects.ts";

const [, , namespace = "", place = "{}"] = process.argv;
const port = await freePort();
const broker = new ServiceBroker({
	nodeID: "coordinator",
	namespace,
	logger: false,
	transporter: new LoopbackTcp({ port }),
});
broker.createService(coordinatorOf(JSON.parse(place) as CoordinatorPlace));
await broker.start();
process.send?.(port);
await once(process, "message");
await broker.stop();
process.exit(0);
