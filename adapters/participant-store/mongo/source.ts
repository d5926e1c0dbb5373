import type { MongoClient } from "mongodb";

import { invalidOptions, LottorError, messageOf } from "../../../protocol/index.ts";
import { unusable } from "./faults.ts";
import { isMongoClient, isMongoDb, type MongoClientLike, type MongoDbLike } from "./driver.ts";

/** Where the database comes from. */
export interface MongoSource {
	/** Where it is, without secrets. */
	readonly place: string;
	/** What makes the client of a URL, or has one. */
	readonly from: { readonly url: string } | { found(): Found | undefined };
}

interface Found {
	readonly client: MongoClientLike;
	/** Name of the database; that of the client's URL where it is left out. */
	readonly name?: string | undefined;
}

/** A source while the store is open. */
export interface OpenedMongo {
	readonly client: MongoClientLike;
	/** Only once the client is connected: driver 3.7 has none before. */
	readonly db: MongoDbLike;
	/** Is told of a command for which no server was found. */
	notFound(): void;
	/** Closes what was opened here: a client that was given stays open. */
	close(): Promise<unknown>;
}

/** Of a client made here: how long the server may take to be found. Milliseconds. */
const SELECTION_MS = 3_000;
/** Of a client made here: how often a server that is there is looked at. Milliseconds. */
const HEARTBEAT_MS = 2_000;

const URL_PARTS = /^(mongodb(?:\+srv)?):\/\/(?:[^@/]*@)?([^/?@]+)(?:\/([^?]*))?(?:\?(.*))?$/i;

/** @returns whether the URL is one of MongoDB */
export function isMongoUrl(spec: string): boolean {
	return /^mongodb(?:\+srv)?:\/\//i.test(spec);
}

/**
 * Reads `mongodb://…`. The setting `guarantee` is the store's, all others the driver's.
 *
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function sourceOfUrl(spec: string, field: string) {
	const parts = URL_PARTS.exec(spec);
	if (!parts) throw invalidOptions(field, "is no URL such as `mongodb://host:27017/database`");
	const [, scheme, hosts, database = "", query = ""] = parts;
	if (database === "") throw invalidOptions(field, "must name a database");
	const settings = new URLSearchParams(query);
	const guarantee = settings.get("guarantee") ?? undefined;
	settings.delete("guarantee");
	if (settings.get("w") === "0") {
		throw invalidOptions(field, "has w=0: writes that nobody acknowledges can't be relied on");
	}
	const source: MongoSource = {
		place: `${scheme}://${hosts}/${database}`,
		from: { url: `${spec.split("?")[0]}?${settings.toString()}` },
	};
	return { source, guarantee };
}

/** @returns whether the value has, or is, a client of MongoDB, or is an adapter that will have one */
export function isMongoSource(value: unknown): boolean {
	return clientOf(value) !== undefined || isMongoAdapter(value);
}

/**
 * @param name of the database; the one that the client's URL names if left out
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function sourceOfInstance(value: unknown, field: string, name?: string): MongoSource {
	const found = clientOf(value, name);
	if (!found && !isMongoAdapter(value)) {
		throw invalidOptions(
			field,
			"must be `mongodb://…`, a MongoClient, one of its databases, or an adapter that has one",
		);
	}
	if (found && isUnacknowledged(found.client)) {
		throw invalidOptions(
			field,
			"is a client whose writes nobody acknowledges (w: 0): they would not be part of a transaction",
		);
	}
	return {
		place: found ? placeOf(found) : "the MongoDB of the service's adapter",
		from: { found: () => clientOf(value, name) },
	};
}

/** @throws LOTTOR_STORE_UNUSABLE when the driver is missing or there is no client */
export async function openSource({ from, place }: MongoSource): Promise<OpenedMongo> {
	if ("url" in from) return openUrl(from.url, place);
	const found = from.found();
	if (found) return new GivenClient(found);
	throw unusable(place, "the service's adapter has no MongoClient");
}

async function openUrl(url: string, place: string): Promise<OpenedMongo> {
	let Client: typeof MongoClient;
	try {
		({ MongoClient: Client } = await import("mongodb"));
	} catch (error) {
		throw new LottorError(
			"LOTTOR_STORE_UNUSABLE",
			`Package "mongodb" is missing (${messageOf(error)}): install it with \`npm install mongodb\``,
			{},
			error,
		);
	}
	const set = new URLSearchParams(url.split("?")[1]);
	const defaults = {
		...(!set.has("serverSelectionTimeoutMS") && { serverSelectionTimeoutMS: SELECTION_MS }),
		...(!set.has("connectTimeoutMS") && { connectTimeoutMS: SELECTION_MS }),
		...(!set.has("heartbeatFrequencyMS") && { heartbeatFrequencyMS: HEARTBEAT_MS }),
	};
	try {
		return new OwnClient(() => new Client(url, defaults) as unknown as MongoClientLike);
	} catch (error) {
		throw unusable(place, `the driver refuses its URL (${messageOf(error)})`);
	}
}

/** A client that the service has. */
class GivenClient implements OpenedMongo {
	readonly client: MongoClientLike;
	readonly #name: string | undefined;
	#db: MongoDbLike | undefined;

	constructor({ client, name }: Found) {
		this.client = client;
		this.#name = name;
	}

	get db(): MongoDbLike {
		return (this.#db ??= this.client.db(this.#name));
	}

	notFound(): void {
		// The service's to mend.
	}

	async close(): Promise<void> {
		// The service's to close.
	}
}

/**
 * A client made here. The driver's watch over a server can hang for good (seen in 7.9: a connection
 * that ends between the write of a heartbeat and the wait for its answer), and with it everything
 * that looks for the server: so a client that finds none is replaced by the next one that does.
 */
class OwnClient implements OpenedMongo {
	readonly #make: () => MongoClientLike;
	#client: MongoClientLike;
	#isReplaced = false;
	#isClosed = false;

	constructor(make: () => MongoClientLike) {
		this.#make = make;
		this.#client = make();
	}

	get client(): MongoClientLike {
		return this.#client;
	}

	get db(): MongoDbLike {
		return this.#client.db();
	}

	notFound(): void {
		if (this.#isReplaced || this.#isClosed) return;
		this.#isReplaced = true;
		void this.#replace().finally(() => (this.#isReplaced = false));
	}

	async close(): Promise<void> {
		this.#isClosed = true;
		await this.#client.close();
	}

	async #replace(): Promise<void> {
		const next = this.#make();
		try {
			await next.connect();
		} catch {
			// The server is away indeed: the former one may find it as well.
			return void next.close().catch(() => undefined);
		}
		const former = this.#isClosed ? next : this.#client;
		if (!this.#isClosed) this.#client = next;
		former.close().catch(() => undefined);
	}
}

function clientOf(value: unknown, name?: string): Found | undefined {
	if (isMongoClient(value)) return { client: value, name };
	if (isMongoDb(value)) return { client: value.client, name: value.databaseName };
	if (typeof value !== "object" || value === null) return undefined;
	const { client, dbName } = value as Record<string, unknown>;
	if (!isMongoClient(client)) return undefined;
	return { client, name: name ?? (typeof dbName === "string" ? dbName : undefined) };
}

function isMongoAdapter(value: unknown): boolean {
	if (typeof value !== "object" || value === null) return false;
	const name = (value as { constructor?: { name?: string } }).constructor?.name ?? "";
	return /^Mongo.*Adapter$/i.test(name) && "uri" in value;
}

/** Where drivers keep what they were given differs; each of these is one's public or stored place. */
interface ClientInsides {
	readonly s?: { readonly url?: unknown; readonly options?: { readonly w?: unknown } };
	readonly writeConcern?: { readonly w?: unknown };
}

function isUnacknowledged(client: MongoClientLike): boolean {
	const { s, writeConcern } = client as ClientInsides;
	return (writeConcern?.w ?? s?.options?.w) === 0;
}

function placeOf({ client, name }: Found): string {
	const { s } = client as ClientInsides;
	const [, scheme = "mongodb", hosts = "client", database = ""] =
		(typeof s?.url === "string" && URL_PARTS.exec(s.url)) || [];
	return `${scheme}://${hosts}/${name ?? database}`;
}
