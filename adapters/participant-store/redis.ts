import {
	type Clock,
	invalidOptions,
	type Random,
	systemClock,
	systemRandom,
} from "../../protocol/index.ts";
import { RecordedParticipantStore } from "./recorded.ts";
import { RedisBackend } from "./redis/backend.ts";
import { isRedisClient, sourceOfClient, sourceOfUrl } from "./redis/connection.ts";

export { isRedisClient } from "./redis/connection.ts";

/** Options of {@link redisParticipantStore}. */
export interface RedisParticipantStoreOptions {
	/**
	 * First part of every key, in braces: all keys of one store are in one slot of a cluster.
	 * Services that don't belong together take different ones. Of a URL: its setting of this name.
	 * @default "lottor"
	 */
	readonly prefix?: string;
	/** @default the machine's */
	readonly clock?: Clock;
	/** @default the machine's */
	readonly random?: Random;
	/** The time that rows get, milliseconds since 1970. For tests. @default the server's */
	readonly now?: () => number;
}

const NAMES: ReadonlySet<string> = new Set<keyof RedisParticipantStoreOptions>([
	"prefix",
	"clock",
	"random",
	"now",
]);

/** @returns whether the URL is one of Redis */
export function isRedisUrl(spec: string): boolean {
	return /^rediss?:\/\//i.test(spec);
}

/**
 * Makes the participant store on Redis: recorded, since Redis can't tie its rows to another
 * database's transaction. Nothing is opened.
 *
 * @param from `redis://…` or `rediss://…`, or the service's own instance of ioredis (a connection or
 *   a cluster)
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming what is wrong
 */
export function redisParticipantStore(
	from: unknown,
	options: RedisParticipantStoreOptions = {},
	field = "store",
): RecordedParticipantStore {
	for (const name of Object.keys(options)) {
		if (!NAMES.has(name)) throw invalidOptions(`${field}.${name}`, "is not known");
	}
	const { clock = systemClock, random = systemRandom, now } = options;
	const read = readSource(from, field);
	const prefix = options.prefix ?? read.prefix ?? "lottor";
	if (!/^[\w.:-]+$/.test(prefix)) {
		throw invalidOptions(`${field}.prefix`, "must be letters, digits and any of _ . : -");
	}
	const common = { clock, random, prefix, ...(now && { now }) };
	return new RecordedParticipantStore(new RedisBackend(read.source, common), { clock });
}

function readSource(from: unknown, field: string) {
	if (isRedisClient(from)) return { source: sourceOfClient(from), prefix: undefined };
	if (typeof from === "string" && isRedisUrl(from)) return sourceOfUrl(from, field);
	throw invalidOptions(field, "must be `redis://…` or an instance of ioredis");
}
