import type { ServiceBroker } from "moleculer";
import { livingCoordinators } from "./registry.ts";

/** What changes who can be called. `$services.changed` also tells of services of this node. */
const EVENTS = ["$services.changed", "$node.disconnected"] as const;

/**
 * Says in the log which coordinators come and go, and that there is none yet.
 *
 * @returns what ends it
 */
export function logCoordinators(
	broker: ServiceBroker,
	logger: ServiceBroker["logger"],
): () => void {
	let known = new Set<string>();
	const look = () => {
		const living = new Set(livingCoordinators(broker).map(({ nodeID }) => nodeID));
		for (const nodeID of living) {
			if (!known.has(nodeID))
				logger.info(`Lottor: connected to the coordinator on ${nodeID}`);
		}
		for (const nodeID of known) {
			if (!living.has(nodeID)) logger.warn(`Lottor: the coordinator on ${nodeID} is gone`);
		}
		known = living;
	};
	look();
	if (known.size === 0) logger.info("Lottor: waiting for a coordinator");
	for (const event of EVENTS) broker.localBus.on(event, look);
	return () => {
		for (const event of EVENTS) broker.localBus.off(event, look);
	};
}
