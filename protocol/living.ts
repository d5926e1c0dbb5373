import type { ServiceBroker } from "moleculer";

/** A service of a living node. */
export interface LivingService {
	readonly fullName: string;
	readonly nodeID: string;
	readonly instanceID: string;
	readonly local: boolean;
	readonly metadata: Readonly<Record<string, unknown>>;
}

/** Least time that a silent node still counts as living, in milliseconds (R13). */
export const HEARD_WITHIN_MS = 10_000;

interface NodeView {
	readonly id: string;
	readonly available: boolean;
	readonly local: boolean;
	readonly instanceID: string | null;
	readonly lastHeartbeatTime: number;
}

/**
 * Whether a node lives (R13): available in the registry and, when it is remote, heard from within
 * 10 s, or within the broker's own heartbeat time-out where that is longer. Over TCP a hung node
 * stays "available" for good, so the registry's word is not enough.
 */
export function isLivingNode(broker: ServiceBroker, node: NodeView): boolean {
	if (!node.available) return false;
	if (node.local) return true;
	const limit = Math.max(HEARD_WITHIN_MS, (broker.options.heartbeatTimeout ?? 0) * 1_000);
	return (process.uptime() - node.lastHeartbeatTime) * 1_000 <= limit;
}

/** @returns every service of every living node, Moleculer's own internal ones excepted */
export function livingServices(broker: ServiceBroker): LivingService[] {
	const nodes = new Map<string, NodeView>();
	for (const node of broker.registry.nodes.toArray() as unknown as NodeView[]) {
		if (isLivingNode(broker, node)) nodes.set(node.id, node);
	}
	const listed = broker.registry.getServiceList({
		onlyAvailable: true,
		skipInternal: true,
		withActions: false,
		withEvents: false,
	}) as unknown as {
		fullName: string;
		nodeID: string;
		metadata?: Record<string, unknown>;
	}[];
	const living: LivingService[] = [];
	for (const service of listed) {
		const node = nodes.get(service.nodeID);
		if (!node) continue;
		living.push({
			fullName: service.fullName,
			nodeID: service.nodeID,
			instanceID: node.local ? broker.instanceID : (node.instanceID ?? ""),
			local: node.local,
			metadata: service.metadata ?? {},
		});
	}
	return living;
}
