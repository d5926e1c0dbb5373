import type { Cluster, Redis, RedisOptions } from "ioredis";

import {
	type Clock,
	invalidOptions,
	LottorError,
	messageOf,
	type Timer,
} from "../../../protocol/index.ts";
import type { Script } from "./scripts.ts";

/** What the store needs of ioredis: a connection, or one to a cluster. */
export type Client = Redis | Cluster;

/** Where the server comes from. */
export interface RedisSource {
	/** Where it is, without secrets. */
	readonly place: string;
	readonly from: { readonly url: string } | { readonly client: Client };
}

const CONNECT_MS = 2_000;
const COMMAND_MS = 4_000;
const RECONNECT_MS = 500;

/** @returns whether the value is an instance of ioredis */
export function isRedisClient(value: unknown): value is Client {
	if (typeof value !== "object" || value === null) return false;
	const { evalsha, defineCommand, status } = value as Record<string, unknown>;
	return (
		typeof evalsha === "function" &&
		typeof defineCommand === "function" &&
		typeof status === "string"
	);
}

/**
 * Reads `redis://…` or `rediss://…`; the setting `prefix` is the store's.
 *
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function sourceOfUrl(spec: string, field: string) {
	let url: URL;
	try {
		url = new URL(spec);
	} catch {
		throw invalidOptions(field, "is no URL such as `redis://host:6379`");
	}
	const prefix = url.searchParams.get("prefix") ?? undefined;
	for (const name of url.searchParams.keys()) {
		if (name !== "prefix") throw invalidOptions(field, `has an unknown setting "${name}"`);
	}
	if (!/^(?:\/\d*)?$/.test(url.pathname)) {
		throw invalidOptions(field, "has a path that is not the number of a database");
	}
	url.search = "";
	const source: RedisSource = {
		place: `${url.protocol}//${url.host}${url.pathname}`,
		from: { url: url.href },
	};
	return { source, prefix };
}

/** @returns a source whose connection stays the caller's */
export function sourceOfClient(client: Client): RedisSource {
	return { place: placeOf(client), from: { client } };
}

function placeOf(client: Client): string {
	if (client.isCluster) return "redis cluster";
	const { host = "localhost", port = 6379, path } = (client as Redis).options;
	return path === undefined ? `redis://${host}:${port}` : `redis socket ${path}`;
}

/** One connection to Redis, while the store is open. */
export class Connection {
	readonly place: string;
	readonly #source: RedisSource;
	readonly #clock: Clock;
	#client: Client | undefined;

	constructor(source: RedisSource, clock: Clock) {
		this.place = source.place;
		this.#source = source;
		this.#clock = clock;
	}

	get client(): Client {
		if (this.#client) return this.#client;
		throw this.unavailable("is not open");
	}

	/** @throws LOTTOR_STORE_UNAVAILABLE when it can't be reached */
	async open(): Promise<void> {
		if (this.#client) return;
		const { from } = this.#source;
		if ("client" in from) {
			this.#client = from.client;
			return;
		}
		const client = await connect(from.url);
		try {
			await this.#within(client.connect());
			this.#client = client;
		} catch (error) {
			client.disconnect();
			throw this.storeError(error);
		}
	}

	async close(): Promise<void> {
		const client = this.#client;
		this.#client = undefined;
		if (client && "url" in this.#source.from) client.disconnect();
	}

	/** Runs a step. @throws LOTTOR_STORE_UNAVAILABLE: it may or may not have happened */
	async run(
		script: Script,
		keys: readonly string[],
		values: readonly (string | number)[],
	): Promise<unknown> {
		return this.call(async (client) => {
			try {
				return await client.evalsha(script.sha, keys.length, ...keys, ...values);
			} catch (error) {
				if (!messageOf(error).startsWith("NOSCRIPT")) throw error;
				return client.eval(script.lua, keys.length, ...keys, ...values);
			}
		});
	}

	/** Runs a command. @throws LOTTOR_STORE_UNAVAILABLE */
	async call<T>(command: (client: Client) => Promise<T>): Promise<T> {
		try {
			return await this.#within(command(this.client));
		} catch (error) {
			throw this.storeError(error);
		}
	}

	/** Every failure is the server's, or the way's to it: the steps themselves are sound. */
	storeError(error: unknown): LottorError {
		if (error instanceof LottorError) return error;
		const why = messageOf(error);
		if (/^(?:NOAUTH|WRONGPASS|NOPERM|ERR invalid (?:password|username)|ERR AUTH)/.test(why)) {
			return new LottorError(
				"LOTTOR_STORE_UNUSABLE",
				`${this.place} refuses the login, or what it is asked: check user, password and the user's rights (${why})`,
				{ place: this.place },
			);
		}
		return this.unavailable(`can't be used: ${why}`);
	}

	unavailable(problem: string): LottorError {
		return new LottorError("LOTTOR_STORE_UNAVAILABLE", `${this.place} ${problem}`, {
			place: this.place,
		});
	}

	async #within<T>(command: Promise<T>): Promise<T> {
		let timer: Timer | undefined;
		const late = new Promise<never>((_, reject) => {
			timer = this.#clock.after(COMMAND_MS, () => {
				reject(this.unavailable(`did not answer within ${COMMAND_MS / 1_000} s`));
			});
		});
		try {
			return await Promise.race([command, late]);
		} finally {
			timer?.cancel();
		}
	}
}

async function connect(url: string): Promise<Redis> {
	let RedisClient: typeof Redis;
	try {
		({ Redis: RedisClient } = await import("ioredis"));
	} catch (error) {
		throw new LottorError(
			"LOTTOR_STORE_UNUSABLE",
			`Package "ioredis" is missing (${messageOf(error)}): install it with \`npm install ioredis\``,
			{},
			error,
		);
	}
	const options: RedisOptions = {
		lazyConnect: true,
		connectTimeout: CONNECT_MS,
		// A connection that swallows commands is made anew.
		socketTimeout: COMMAND_MS,
		// A step that got no answer is for the store to repeat, not for the client.
		autoResendUnfulfilledCommands: false,
		maxRetriesPerRequest: 0,
		enableOfflineQueue: false,
		retryStrategy: (times) => Math.min(times * 100, RECONNECT_MS),
	};
	const client = new RedisClient(url, options);
	// What is lost is told by the call that needs it.
	client.on("error", () => undefined);
	return client;
}
