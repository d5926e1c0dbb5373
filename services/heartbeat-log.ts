import type { Middleware, ServiceBroker } from "moleculer";

/** Packets by which nodes tell each other that they live; over TCP it is gossip. */
const BEATS = ["HEARTBEAT", "GOSSIP_REQ"];

type Receive = (command: string, data: Buffer, socket?: unknown) => unknown;

/** A broker middleware that logs, at debug level, the heartbeats that arrive. */
export const heartbeatLog = forBroker as unknown as Middleware;

/** Moleculer calls it with the broker, which its type of a middleware does not know. */
function forBroker(broker: ServiceBroker) {
	return {
		name: "HeartbeatLog",
		transporterReceive(next: Receive): Receive {
			return (command, data, socket) => {
				const transporter = broker.transit?.tx;
				if (transporter && BEATS.includes(command)) {
					const { payload } = transporter.deserialize(command, data) as unknown as {
						payload: { sender: string };
					};
					broker.logger.debug(`Heartbeat of ${payload.sender}`);
				}
				return next(command, data, socket);
			};
		},
	};
}
