import { hostname } from "node:os";
import { COORDINATOR_SERVICE } from "../../protocol/index.ts";
import type { CoordinatorCore } from "./coordinator.ts";
import { type Engine, shareOf } from "./engine.ts";
import { SLOTS } from "./share.ts";

/** How one coordinator is. */
export interface CoordinatorStatus {
	readonly nodeID: string;
	readonly instanceID: string;
	readonly host: string;
	/** Whether its store works. */
	readonly ready: boolean;
	readonly storeId: string;
	/** What and where, without secrets. */
	readonly store: string;
	readonly delivery: string;
	/** The part of the groups that it looks after, 0 to 1. */
	readonly share: number;
	/** How late the oldest work was that it last found due, in milliseconds. */
	readonly lag: number;
	/** Messages that it sent and that are not reported yet. */
	readonly inFlight: number;
}

/** A living coordinator; `status` is null when it did not answer. */
export interface CoordinatorView {
	readonly nodeID: string;
	readonly instanceID: string;
	readonly status: CoordinatorStatus | null;
}

/** @returns how this coordinator is */
export function statusOf({ engine, ready }: CoordinatorCore): CoordinatorStatus {
	const { broker, storeId, store, settings, flights, lags } = engine;
	return {
		nodeID: broker.nodeID,
		instanceID: broker.instanceID,
		host: hostname(),
		ready,
		storeId,
		store: store.description,
		delivery: settings.delivery.description,
		share: (shareOf(engine)?.slots.length ?? SLOTS) / SLOTS,
		lag: Math.max(0, ...lags.values()),
		inFlight: flights.size,
	};
}

/** Every living coordinator, on this store and on others; asks each how it is. */
export function coordinators({ broker, view, settings }: Engine): Promise<CoordinatorView[]> {
	return Promise.all(
		view.coordinators.map(async ({ nodeID, instanceID }) => {
			const options = { nodeID, timeout: settings.askTimeout, retries: 0 };
			const status = await broker
				.call<CoordinatorStatus, object>(`${COORDINATOR_SERVICE}.health`, {}, options)
				.catch(() => null);
			return { nodeID, instanceID, status };
		}),
	);
}
