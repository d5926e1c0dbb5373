import type { Knex } from "knex";

import { invalidOptions, LottorError, messageOf } from "../../../protocol/index.ts";
import type { Dialect } from "./dialect.ts";
import { mysql } from "./mysql.ts";
import { type KnexClient, OneWriter } from "./one-writer.ts";
import { postgres } from "./postgres.ts";
import { sqlite } from "./sqlite.ts";

/** Where the database comes from. */
export interface KnexSource {
	/** Where it is, without secrets. */
	readonly place: string;
	/** What makes the Knex instance of a URL, or has one. */
	readonly from: { readonly url: string; readonly connections: number } | { knex(): unknown };
}

/** A source while the store is open. */
export interface OpenedSource {
	readonly knex: Knex;
	readonly dialect: Dialect;
	/** Where the database has one. */
	readonly writer?: OneWriter;
	/** Closes what was opened here: a Knex instance that was given stays open. */
	close(): Promise<void>;
}

const CONNECTIONS = 20;
const CONNECT_MS = 4_000;
const ACQUIRE_MS = 10_000;
const SCHEMES: Readonly<Record<string, Dialect>> = {
	"postgres:": postgres,
	"postgresql:": postgres,
	"mysql:": mysql,
	"mariadb:": mysql,
};
const DRIVERS: Readonly<Record<string, Dialect>> = {
	pg: postgres,
	mysql2: mysql,
	"better-sqlite3": sqlite,
};

/** @returns whether the URL is one of a database that Knex is used for */
export function isSqlUrl(spec: string): boolean {
	return /^(?:postgres|postgresql|mysql|mariadb):\/\//i.test(spec);
}

/**
 * Reads `postgres://…` or `mysql://…`. The settings `guarantee` and `connections` are the store's,
 * all others the driver's.
 *
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function sourceOfUrl(spec: string, field: string) {
	let url: URL;
	try {
		url = new URL(spec);
	} catch {
		throw invalidOptions(field, "is no URL such as `postgres://user@host:5432/database`");
	}
	const guarantee = url.searchParams.get("guarantee") ?? "transactional";
	if (guarantee !== "transactional" && guarantee !== "recorded") {
		throw invalidOptions(field, "has a guarantee that is not transactional or recorded");
	}
	const connections = Number(url.searchParams.get("connections") ?? CONNECTIONS);
	if (!Number.isSafeInteger(connections) || connections < 2) {
		throw invalidOptions(field, "has a number of `connections` that is not 2 or more");
	}
	if (url.pathname.length < 2) throw invalidOptions(field, "must name a database");
	url.searchParams.delete("guarantee");
	url.searchParams.delete("connections");
	const source: KnexSource = {
		place: `${url.protocol}//${url.host}${url.pathname}`,
		from: { url: url.href, connections },
	};
	return { source, guarantee } as const;
}

/** @returns the Knex instance that the value is or, as an adapter, has; undefined when none */
export function knexOf(value: unknown): Knex | undefined {
	if (isKnex(value)) return value;
	if (typeof value !== "object" || value === null) return undefined;
	const { knex, client, db } = value as Record<string, unknown>;
	return [knex, client, db].find(isKnex);
}

/** @returns whether the value is a Knex instance, or an adapter that has one once it is connected */
export function isKnexSource(value: unknown): boolean {
	if (knexOf(value)) return true;
	return typeof value === "object" && value !== null && /knex/i.test(value.constructor?.name);
}

/** @throws LOTTOR_INVALID_OPTIONS naming `field` */
export function sourceOfInstance(value: unknown, field: string): KnexSource {
	const knex = knexOf(value);
	if (knex) {
		if (knex.isTransaction) throw invalidOptions(field, "is a transaction of Knex, not Knex");
		if (!dialectOf(knex)) throw invalidOptions(field, refusal(knex));
	}
	return {
		place: knex ? placeOf(knex) : "the database of the service's adapter",
		from: { knex: () => knexOf(value) },
	};
}

/** Connects nothing yet. @throws LOTTOR_STORE_UNUSABLE */
export async function openSource({ from, place }: KnexSource): Promise<OpenedSource> {
	if ("url" in from) return openUrl(from.url, from.connections);
	const knex = from.knex() as Knex | undefined;
	if (!knex) {
		throw unusable("The service's adapter has no Knex instance: is it connected?", place);
	}
	const dialect = dialectOf(knex);
	if (!dialect) throw unusable(`The Knex instance ${refusal(knex)}`, place);
	if (!dialect.oneWriter) return { knex, dialect, close: async () => undefined };
	const client = clientOf(knex);
	if ((client.pool?.max ?? 1) > 1) {
		const text = `${place} has a pool of more than one connection: two that write would block this process, since each waits for the other without letting it run. Leave \`pool.max\` at 1`;
		throw unusable(text, place);
	}
	const writer = new OneWriter(client, dialect.oneWriter, place);
	return { knex, dialect, writer, close: () => writer.close() };
}

async function openUrl(url: string, connections: number): Promise<OpenedSource> {
	const dialect = SCHEMES[new URL(url).protocol] ?? postgres;
	const { default: makeKnex } = await load<{ default: (config: Knex.Config) => Knex }>(
		"knex",
		dialect,
	);
	await load(dialect.driver, dialect);
	const connection =
		dialect === postgres
			? { connectionString: url, connectionTimeoutMillis: CONNECT_MS, keepAlive: true }
			: { uri: url.replace(/^mariadb:/i, "mysql:"), connectTimeout: CONNECT_MS };
	const silent = () => undefined;
	const knex = makeKnex({
		client: dialect.driver,
		connection,
		pool: { min: 0, max: connections },
		acquireConnectionTimeout: ACQUIRE_MS,
		// The values of a statement are nobody's business in a log.
		compileSqlOnError: false,
		// What is lost is told by the call that needs it, and Knex would print to the console.
		log: { warn: silent, error: silent, deprecate: silent, debug: silent },
	});
	return { knex, dialect, close: () => knex.destroy() };
}

async function load<T>(name: string, dialect: Dialect): Promise<T> {
	try {
		return (await import(name)) as T;
	} catch (error) {
		throw new LottorError(
			"LOTTOR_STORE_UNUSABLE",
			`Package "${name}" is missing (${messageOf(error)}): install it with \`npm install knex ${dialect.driver}\``,
			{},
			error,
		);
	}
}

function isKnex(value: unknown): value is Knex {
	if (typeof value !== "function") return false;
	const { raw, client } = value as { raw?: unknown; client?: { acquireConnection?: unknown } };
	return typeof raw === "function" && typeof client?.acquireConnection === "function";
}

interface ConfiguredClient extends KnexClient {
	readonly driverName?: string;
	readonly dialect?: string;
	readonly connectionSettings?: Readonly<Record<string, unknown>>;
	readonly pool?: { readonly max?: number };
}

function clientOf(knex: Knex): ConfiguredClient {
	return knex.client as ConfiguredClient;
}

function dialectOf(knex: Knex): Dialect | undefined {
	const { driverName = "", dialect } = clientOf(knex);
	return dialect === "cockroachdb" || dialect === "redshift" ? undefined : DRIVERS[driverName];
}

function refusal(knex: Knex): string {
	const { driverName, dialect } = clientOf(knex);
	const sqlite = /sqlite/i.test(`${driverName} ${dialect}`);
	return sqlite
		? `is one on SQLite with driver "${driverName ?? "?"}": it must be "better-sqlite3"; or use \`sqlite:<file>\`, which needs no driver`
		: `is one on "${dialect ?? "?"}" with driver "${driverName ?? "?"}": it must be on PostgreSQL ("pg"), MySQL/MariaDB ("mysql2") or SQLite ("better-sqlite3")`;
}

function placeOf(knex: Knex): string {
	const settings = clientOf(knex).connectionSettings ?? {};
	const name = dialectOf(knex)?.name ?? "sql";
	const address = settings["connectionString"] ?? settings["uri"];
	if (typeof address === "string" && URL.canParse(address)) {
		const { host, pathname } = new URL(address);
		return `${name}://${host}${pathname}`;
	}
	const { filename, host, port, database } = settings;
	if (typeof filename === "string") return `${name}:${filename}`;
	const at = typeof port === "number" || typeof port === "string" ? `:${port}` : "";
	const named = (value: unknown) => (typeof value === "string" ? value : "");
	return `${name}://${named(host) || "localhost"}${at}/${named(database)}`;
}

function unusable(text: string, place: string): LottorError {
	return new LottorError("LOTTOR_STORE_UNUSABLE", text, { place });
}
