import type { ServiceBroker } from "moleculer";
import {
	COORDINATOR_SERVICE,
	type CoordinatorMetadata,
	isRecord,
	livingServices,
	type Owner,
} from "../../protocol/index.ts";

/** A coordinator that can be called: one service on one node. */
export interface Coordinator {
	readonly nodeID: string;
	readonly local: boolean;
	readonly storeId: string;
}

/** @returns the living coordinators, only those of one coordinator store where `storeId` is given */
export function livingCoordinators(broker: ServiceBroker, storeId?: string): Coordinator[] {
	const found: Coordinator[] = [];
	for (const { fullName, nodeID, local, metadata } of livingServices(broker)) {
		if (fullName !== COORDINATOR_SERVICE) continue;
		const said = coordinatorMetadata(metadata);
		if (!said?.ready || (storeId !== undefined && said.storeId !== storeId)) continue;
		found.push({ nodeID, local, storeId: said.storeId });
	}
	return found;
}

/** @returns whether the process start that `owner` names is living */
export function isOwnerLiving(broker: ServiceBroker, owner: Owner): boolean {
	return livingServices(broker).some(
		({ nodeID, instanceID }) => nodeID === owner.nodeID && instanceID === owner.instanceID,
	);
}

function coordinatorMetadata(
	metadata: Readonly<Record<string, unknown>>,
): CoordinatorMetadata | undefined {
	const { lottor } = metadata;
	if (!isRecord(lottor) || typeof lottor["storeId"] !== "string") return undefined;
	return lottor as unknown as CoordinatorMetadata;
}
