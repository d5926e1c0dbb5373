import type { Context, Logger, Service, ServiceBroker } from "moleculer";
import type { ParticipantStore, TxBase } from "../../adapters/participant-store/contract.ts";
import type { Guarantee, Outcome, Owner, Special } from "../../protocol/index.ts";
import type { Metrics } from "./metrics.ts";
import type { Settings } from "./options.ts";

/** What every part of a started participant works with. */
export interface Core {
	readonly service: Service;
	readonly broker: ServiceBroker;
	readonly logger: Logger;
	readonly settings: Settings;
	readonly store: ParticipantStore;
	readonly storeId: string;
	readonly guarantee: Guarantee;
	/** This process start (R2). */
	readonly owner: Owner;
	readonly metrics: Metrics;
	/** What the broker's serializer carries besides JSON. */
	readonly specials: ReadonlySet<Special>;
	/** Groups whose local work runs in this process. */
	readonly active: ActiveGroups;
	/** Handlers that run, by the ctx they were given (R11). */
	readonly scopes: WeakMap<object, HandlerScope>;
}

/** A running handler, as nested transactions see it. */
export interface HandlerScope {
	readonly tx: TxBase;
	open: boolean;
}

/** A group in memory: running, or ended with an outcome that could not be written yet (R13). */
export interface ActiveGroup {
	outcome?: Outcome;
}

export type ActiveGroups = Map<string, ActiveGroup>;

const activeGroups = new WeakMap<ServiceBroker, ActiveGroups>();

/**
 * The groups in memory of a broker. All its services share them: a service that is destroyed and
 * made again under the same instance id must still know the works of its predecessor.
 */
export function activeGroupsOf(broker: ServiceBroker): ActiveGroups {
	const known = activeGroups.get(broker);
	if (known) return known;
	const groups: ActiveGroups = new Map();
	activeGroups.set(broker, groups);
	return groups;
}

/** The part of a Context that Lottor reads, whatever its type parameters. */
export type AnyContext = Context<unknown, object>;
