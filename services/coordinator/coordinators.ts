import { hostname } from "node:os";
import { COORDINATOR_SERVICE, LOTTOR_VERSION } from "../../protocol/index.ts";
import type { CoordinatorCore } from "./coordinator.ts";
import { type Engine, shareOf } from "./engine.ts";
import type { Settings } from "./options.ts";
import { SLOTS } from "./share.ts";
import { silenceOf } from "./clients.ts";

/** How one coordinator is. */
export interface CoordinatorStatus {
	readonly nodeID: string;
	readonly instanceID: string;
	readonly host: string;
	/** Of Lottor. */
	readonly version: string;
	/** Milliseconds since 1970. */
	readonly startedAt: number;
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
	/** Milliseconds since 1970; the own node is always now. */
	readonly lastHeartbeat: number;
	/** Milliseconds there and back; null when it did not answer. */
	readonly latency: number | null;
}

/** @returns how this coordinator is */
export function statusOf({ engine, ready, startedAt }: CoordinatorCore): CoordinatorStatus {
	const { broker, storeId, store, settings, flights, lags } = engine;
	return {
		nodeID: broker.nodeID,
		instanceID: broker.instanceID,
		host: hostname(),
		version: LOTTOR_VERSION,
		startedAt,
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
			const before = settings.clock.now();
			const status = await broker
				.call<CoordinatorStatus, object>(`${COORDINATOR_SERVICE}.health`, {}, options)
				.catch(() => null);
			const now = settings.clock.now();
			const lastHeartbeat = now - silenceOf(broker, nodeID);
			const latency = status && now - before;
			return { nodeID, instanceID, status, lastHeartbeat, latency };
		}),
	);
}

const OBJECTS = ["store", "delivery", "clock", "random"];

/** The effective settings as people may see them: no secret is part of a description. */
export function settingsView(settings: Settings): Readonly<Record<string, unknown>> {
	const { store, delivery } = settings;
	const plain = Object.entries(settings).filter(([name]) => !OBJECTS.includes(name));
	return {
		store: store.description,
		delivery: delivery.description,
		...Object.fromEntries(plain),
	};
}
