import { type Clock, invalidOptions, type Random } from "../../protocol/index.ts";
import { systemClock, systemRandom } from "../../protocol/index.ts";
import type { ParticipantStore } from "./contract.ts";
import { recordedKnexStore } from "./knex/recorded.ts";
import { isKnexSource, isSqlUrl, sourceOfInstance, sourceOfUrl } from "./knex/source.ts";
import { transactionalKnexStore } from "./knex/store.ts";

export { isKnexSource, isSqlUrl } from "./knex/source.ts";
export type { KnexTx } from "./knex/transaction.ts";

/** Options of {@link knexParticipantStore}. */
export interface KnexParticipantStoreOptions {
	/**
	 * `transactional` where works and handlers use `tx.trx`, else `recorded`. Of a URL: its setting
	 * of this name.
	 * @default "transactional"
	 */
	readonly guarantee?: "transactional" | "recorded";
	/** @default the machine's */
	readonly clock?: Clock;
	/** @default the machine's */
	readonly random?: Random;
	/** The time that rows get, milliseconds since 1970. For tests. @default the database server's */
	readonly now?: () => number;
}

const NAMES: ReadonlySet<string> = new Set<keyof KnexParticipantStoreOptions>([
	"guarantee",
	"clock",
	"random",
	"now",
]);

/**
 * Makes the participant store in the service's own PostgreSQL, MySQL or MariaDB. Nothing is opened.
 *
 * @param from the service's Knex instance, an adapter that has one (as `knex`, `client` or `db`), or
 *   a URL: `postgres://user@host/database`, `mysql://…`, with the settings `guarantee` and
 *   `connections` (20) besides those of the driver
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming what is wrong
 */
export function knexParticipantStore(
	from: unknown,
	options: KnexParticipantStoreOptions = {},
	field = "store",
): ParticipantStore {
	for (const name of Object.keys(options)) {
		if (!NAMES.has(name)) throw invalidOptions(`${field}.${name}`, "is not known");
	}
	const { clock = systemClock, random = systemRandom, now } = options;
	const common = { clock, random, ...(now && { now }) };
	const read = readSource(from, field);
	switch (options.guarantee ?? read.guarantee) {
		case "transactional":
			return transactionalKnexStore(read.source, common);
		case "recorded":
			return recordedKnexStore(read.source, common);
		default:
			throw invalidOptions(`${field}.guarantee`, "must be transactional or recorded");
	}
}

function readSource(from: unknown, field: string) {
	if (typeof from === "string" && isSqlUrl(from)) return sourceOfUrl(from, field);
	if (isKnexSource(from)) {
		return { source: sourceOfInstance(from, field), guarantee: "transactional" } as const;
	}
	throw invalidOptions(
		field,
		"must be `postgres://…`, `mysql://…`, a Knex instance or an adapter that has one",
	);
}
