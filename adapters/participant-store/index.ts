import { fileURLToPath } from "node:url";

import { type Clock, invalidOptions, type Random } from "../../protocol/index.ts";
import type { ParticipantStore } from "./contract.ts";
import { isKnexSource, isSqlUrl, knexParticipantStore } from "./knex.ts";
import { memoryParticipantStore } from "./memory.ts";
import { isMongoSource, isMongoUrl, mongoParticipantStore } from "./mongo.ts";
import { isRedisClient, isRedisUrl, redisParticipantStore } from "./redis.ts";
import { SqliteParticipantStore } from "./sqlite.ts";
import { recordedSqliteStore } from "./sqlite-recorded.ts";

export type * from "./contract.ts";
export { adapterParticipantStore, OWN_ADAPTER } from "./adapter.ts";
export { memoryParticipantStore } from "./memory.ts";
export { RecordedParticipantStore } from "./recorded.ts";
export type { RecordedBackend, RecordedStoreOptions } from "./recorded.ts";
export type { InboxRow, OutcomeRow } from "./rules.ts";
export { SqliteParticipantStore } from "./sqlite.ts";
export { recordedSqliteStore } from "./sqlite-recorded.ts";
export type { SqliteStoreOptions } from "./sqlite-tables.ts";

const KINDS =
	"`sqlite:./file.db`, `mongodb://…`, `postgres://…` or `mysql://…` (each with `?guarantee=recorded` if wanted), `redis://…`, `memory:`, a MongoClient, a Knex instance or an adapter that has one of them, an instance of ioredis, or a ParticipantStore";

const METHODS = [
	"open",
	"close",
	"run",
	"resolve",
	"force",
	"confirm",
	"unconfirmed",
	"consume",
	"fail",
	"fence",
	"look",
	"settled",
	"unsettled",
	"purge",
] as const satisfies readonly (keyof ParticipantStore)[];

/**
 * Makes the participant store that a URL names, or takes an instance as it is. Nothing is opened.
 *
 * @param spec `sqlite:<path>`, `mongodb://…`, `postgres://…` or `mysql://…`, each with the setting
 *   `guarantee` (`transactional`, the default, or `recorded`), `redis://…`, `memory:`, the service's
 *   own MongoClient, Knex instance, adapter or instance of ioredis, or a store
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming `field` when it is none of these
 */
export function resolveParticipantStore(
	spec: unknown,
	field: string,
	options: { readonly clock: Clock; readonly random: Random },
): ParticipantStore {
	if (isStore(spec)) return spec;
	if (isKnexSource(spec)) return knexParticipantStore(spec, options, field);
	if (isMongoSource(spec)) return mongoParticipantStore(spec, options, field);
	if (isRedisClient(spec)) return redisParticipantStore(spec, options, field);
	if (typeof spec !== "string") throw invalidOptions(field, `must be ${KINDS}`);
	if (/^memory:?$/i.test(spec)) return memoryParticipantStore(options);
	if (/^sqlite:/i.test(spec)) return sqliteStore(spec, field, options);
	if (isRedisUrl(spec)) return redisParticipantStore(spec, options, field);
	if (isMongoUrl(spec)) return mongoParticipantStore(spec, options, field);
	if (isSqlUrl(spec)) return knexParticipantStore(spec, options, field);
	const scheme = /^[a-z][a-z0-9+.-]*:/i.exec(spec)?.[0] ?? spec;
	throw invalidOptions(field, `names no known kind of store ("${scheme}"): it must be ${KINDS}`);
}

function sqliteStore(
	spec: string,
	field: string,
	options: { readonly clock: Clock; readonly random: Random },
): ParticipantStore {
	const [location = "", query = ""] = spec.slice("sqlite:".length).split("?", 2);
	const path = location.startsWith("//") ? pathOfUrl(location, field) : location;
	if (path === "" || path === ":memory:") {
		throw invalidOptions(field, "must name a file, as in `sqlite:./file.db`");
	}
	const settings = new URLSearchParams(query);
	for (const name of settings.keys()) {
		if (name !== "guarantee") throw invalidOptions(field, `has an unknown setting "${name}"`);
	}
	switch (settings.get("guarantee") ?? "transactional") {
		case "transactional":
			return new SqliteParticipantStore(path, options);
		case "recorded":
			return recordedSqliteStore(path, options);
		default:
			throw invalidOptions(field, "has a guarantee that is not transactional or recorded");
	}
}

function pathOfUrl(location: string, field: string): string {
	try {
		return fileURLToPath(`file:${location}`);
	} catch {
		throw invalidOptions(field, "must be `sqlite:./file.db` or `sqlite:///absolute/file.db`");
	}
}

function isStore(spec: unknown): spec is ParticipantStore {
	if (typeof spec !== "object" || spec === null) return false;
	const object = spec as Record<string, unknown>;
	return METHODS.every((method) => typeof object[method] === "function");
}
