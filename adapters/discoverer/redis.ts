import { Discoverers } from "moleculer";

import { messageOf } from "../../protocol/index.ts";

/**
 * Moleculer's discoverer for Redis, where a node whose INFO cannot be read, such as at the end of the
 * connection, ends the process by an unhandled rejection. Here it does not.
 *
 * @example
 * export default { transporter: "nats://localhost:4222", registry: { discoverer: new RedisDiscoverer("redis://localhost:6379") } };
 */
export class RedisDiscoverer extends Discoverers.Redis {
	override async discoverNode(nodeID: string): ReturnType<Discoverers.Redis["discoverNode"]> {
		try {
			return await super.discoverNode(nodeID);
		} catch (error) {
			// Its next heartbeat makes it be asked for again.
			this.logger.warn(`INFO of node '${nodeID}' was not read: ${messageOf(error)}`);
		}
	}
}
