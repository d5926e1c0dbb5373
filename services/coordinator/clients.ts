import type { ServiceBroker } from "moleculer";
import type { ParticipantStatus } from "../../protocol/index.ts";
import { readStatus } from "./answers.ts";
import { callParticipant, type Engine, groupBy } from "./engine.ts";
import type { Participant } from "./registry-view.ts";

/** A connected node with services that use the mixin. */
export interface Client {
	readonly nodeID: string;
	readonly instanceID: string;
	readonly host: string | null;
	readonly ips: readonly string[];
	readonly roles: readonly string[];
	readonly services: readonly (Participant & { readonly status: ParticipantStatus | null })[];
	/** Of Lottor; null when the node did not answer. */
	readonly version: string | null;
	readonly moleculer: string | null;
	readonly serializer: string | null;
	readonly transporter: string | null;
	/** Milliseconds since 1970; the coordinator's own node is always now. */
	readonly lastHeartbeat: number;
	/** Milliseconds there and back; null when the node did not answer. */
	readonly latency: number | null;
	/** Handlers that run there now. */
	readonly running: number;
}

interface NodeView {
	readonly local: boolean;
	readonly hostname: string | null;
	readonly ipList: readonly string[] | null;
	readonly lastHeartbeatTime: number;
}

/** Every living producer and consumer, by node; asks each how it is. */
export async function clients(engine: Engine): Promise<Client[]> {
	const { view, broker, settings } = engine;
	const byNode = groupBy(view.participants, (one) => one.nodeID);
	return Promise.all(
		[...byNode.values()].map(async (services): Promise<Client> => {
			const first = services[0] as Participant;
			const before = settings.clock.now();
			const asked = await Promise.all(
				services.map(async (service) => {
					const answers = await callParticipant<object, ParticipantStatus>(
						engine,
						service,
						"status",
						[{}],
						readStatus,
					);
					return { ...service, status: answers?.[0] ?? null };
				}),
			);
			const said = asked.find((one) => one.status !== null)?.status ?? null;
			const node = broker.registry.nodes.get(first.nodeID) as unknown as NodeView | undefined;
			return {
				nodeID: first.nodeID,
				instanceID: first.instanceID,
				host: node?.hostname ?? null,
				ips: node?.ipList ?? [],
				roles: [...new Set(services.flatMap((one) => one.roles))],
				services: asked,
				version: said?.version ?? null,
				moleculer: said?.moleculer ?? null,
				serializer: said?.serializer ?? null,
				transporter: said?.transporter ?? null,
				lastHeartbeat: settings.clock.now() - silenceOf(broker, first.nodeID),
				latency: said ? settings.clock.now() - before : null,
				running: asked.reduce((sum, one) => sum + (one.status?.running ?? 0), 0),
			};
		}),
	);
}

/** @returns milliseconds since the node was heard of; the own node is never silent */
export function silenceOf(broker: ServiceBroker, nodeID: string): number {
	const node = broker.registry.nodes.get(nodeID) as unknown as NodeView | undefined;
	if (!node || node.local) return 0;
	return Math.max(0, Math.round((process.uptime() - node.lastHeartbeatTime) * 1_000));
}
