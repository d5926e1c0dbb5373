import {
	type Clock,
	invalidOptions,
	type Random,
	systemClock,
	systemRandom,
} from "../../protocol/index.ts";
import type { ParticipantStore } from "./contract.ts";
import { isMongoUrl, sourceOfInstance, sourceOfUrl } from "./mongo/source.ts";
import { type Demand, mongoStore } from "./mongo/store.ts";

export { isMongoSource, isMongoUrl } from "./mongo/source.ts";
export type { MongoTx } from "./mongo/transaction.ts";

/** Options of {@link mongoParticipantStore}. */
export interface MongoParticipantStoreOptions {
	/**
	 * `transactional` refuses to start on a server without transactions, `recorded` uses none. Of a
	 * URL: its setting of this name.
	 * @default transactional where the server has transactions, else recorded
	 */
	readonly guarantee?: "transactional" | "recorded";
	/** Database of a MongoClient. @default the one that its URL names */
	readonly database?: string;
	/** @default the machine's */
	readonly clock?: Clock;
	/** @default the machine's */
	readonly random?: Random;
	/** The time that rows get, milliseconds since 1970. For tests. @default the server's */
	readonly now?: () => number;
}

const NAMES: ReadonlySet<string> = new Set<keyof MongoParticipantStoreOptions>([
	"guarantee",
	"database",
	"clock",
	"random",
	"now",
]);

/**
 * Makes the participant store in the service's own MongoDB. Nothing is opened. Whether the server
 * has transactions is found out at start; without them the store is recorded, and says so.
 *
 * @param from the service's MongoClient (driver 3.7 to 7) or one of its databases (driver 5 to 7), an
 *   adapter that has one as `client`, or a URL: `mongodb://host/database` with the setting
 *   `guarantee` besides those of the driver
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming what is wrong
 */
export function mongoParticipantStore(
	from: unknown,
	options: MongoParticipantStoreOptions = {},
	field = "store",
): ParticipantStore {
	for (const name of Object.keys(options)) {
		if (!NAMES.has(name)) throw invalidOptions(`${field}.${name}`, "is not known");
	}
	const { database, clock = systemClock, random = systemRandom, now } = options;
	if (database !== undefined && !/^[^/\\. "$\0]+$/.test(database)) {
		throw invalidOptions(`${field}.database`, "must be the name of a database");
	}
	const read =
		typeof from === "string" && isMongoUrl(from)
			? sourceOfUrl(from, field)
			: { source: sourceOfInstance(from, field, database), guarantee: undefined };
	const demand = options.guarantee ?? read.guarantee;
	if (!isDemand(demand)) {
		throw invalidOptions(`${field}.guarantee`, "must be transactional or recorded");
	}
	return mongoStore(read.source, demand, { clock, random, ...(now && { now }) });
}

function isDemand(value: unknown): value is Demand {
	return value === undefined || value === "transactional" || value === "recorded";
}
