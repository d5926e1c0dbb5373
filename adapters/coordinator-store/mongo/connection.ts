import type * as mongodb from "mongodb";
import type { Db, MongoClient, MongoClientOptions } from "mongodb";

import { invalidOptions, LottorError, messageOf } from "../../../protocol/index.ts";

/** The driver, as far as the store uses it. */
export type Driver = Pick<typeof mongodb, "MongoClient" | "Binary" | "ReadConcern">;

/** The database where the URL names none. */
const DATABASE = "lottor";

const OLDEST = [4, 4] as const;

/** Milliseconds between two looks at a server that is down, and until one that is silent is given up. */
const HEARTBEAT_MS = 1_000;
const CONNECT_MS = 3_000;
const SOCKET_MS = 60_000;
const CONNECTIONS = 20;

/** Codes of a server that can't take writes now: it stops, is no primary, or has not enough members. */
const PASSING_CODES: ReadonlySet<number> = new Set([
	6, 7, 43, 50, 64, 89, 91, 100, 112, 189, 262, 9_001, 10_058, 10_107, 11_600, 11_602, 13_388,
	13_435, 13_436,
]);
const AUTHENTICATION = new Set([13, 18, 8_000]);

/** Names of the driver's errors without a code, also as texts within a bulk write's error. */
const SERVER_FAULTS =
	/Network|ServerSelection|ServerClosed|PoolClosed|PoolCleared|WaitQueueTimeout|NotConnected|TopologyClosed|OperationTimeout|connection|timed out|topology/i;

/** What a URL says of the store. */
export interface Address {
	readonly url: string;
	/** Where it is, without secrets. */
	readonly place: string;
	readonly database: string;
}

/** @throws LOTTOR_INVALID_OPTIONS naming `field` */
export function addressOf(url: unknown, field: string): Address {
	const parts =
		typeof url === "string"
			? /^mongodb(?:\+srv)?:\/\/(?:[^@/]*@)?([^/?]+)(?:\/([^?]*))?(?:\?.*)?$/i.exec(url)
			: null;
	const [, hosts, database] = parts ?? [];
	if (typeof url !== "string" || hosts === undefined) {
		throw invalidOptions(field, "must be a URL such as `mongodb://host:27017/database`");
	}
	const name =
		database === undefined || database === "" ? DATABASE : decodeURIComponent(database);
	return { url, place: `mongodb://${hosts}/${name}`, database: name };
}

/** Loads the client library. */
export async function loadDriver(): Promise<Driver> {
	try {
		return await import("mongodb");
	} catch (error) {
		throw new LottorError(
			"LOTTOR_STORE_UNUSABLE",
			"The 'mongodb' package is missing: install it with 'npm install mongodb'",
			{},
			error,
		);
	}
}

/** A connected client, and the store's database with what its promises need. */
export interface Connection {
	readonly client: MongoClient;
	readonly db: Db;
}

/**
 * Connects to the server and checks that what it acknowledges is durable.
 *
 * @param timeout milliseconds that a call waits for a server that can be written to
 * @throws LOTTOR_STORE_UNAVAILABLE when it can't be reached
 * @throws LOTTOR_STORE_UNUSABLE when it is too old, refuses the login, or the URL asks for less
 */
export async function connect(
	driver: Driver,
	address: Address,
	timeout: number,
): Promise<Connection> {
	let connection: Connection;
	try {
		connection = connectionOf(driver, address, timeout);
	} catch (error) {
		throw unusable(address, messageOf(error), error);
	}
	const { client } = connection;
	try {
		refuseUnsafe(client, address);
		const { version, versionArray } = (await client.db("admin").command({
			buildInfo: 1,
		})) as { version?: string; versionArray?: readonly number[] };
		const [major = 0, minor = 0] = versionArray ?? [];
		if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
			throw unusable(address, `its version is ${String(version)}, it must be 4.4 or newer`);
		}
		return connection;
	} catch (error) {
		await client.close().catch(() => undefined);
		throw faultOf(address, error);
	}
}

/**
 * A client of the server, which connects when it is first used.
 *
 * @throws the driver's own error when it does not take the URL
 */
export function connectionOf(driver: Driver, address: Address, timeout: number): Connection {
	const options: MongoClientOptions = {
		appName: "lottor",
		ignoreUndefined: true,
		maxPoolSize: CONNECTIONS,
		heartbeatFrequencyMS: HEARTBEAT_MS,
		connectTimeoutMS: CONNECT_MS,
		serverSelectionTimeoutMS: timeout,
		socketTimeoutMS: SOCKET_MS,
	};
	const client = new driver.MongoClient(address.url, options);
	const db = client.db(address.database, {
		writeConcern: { w: "majority", journal: true },
		readConcern: new driver.ReadConcern("majority"),
		readPreference: "primary",
	});
	return { client, db };
}

/** @throws LOTTOR_STORE_UNUSABLE when the URL asks for less than majority, journal and primary */
function refuseUnsafe(client: MongoClient, address: Address): void {
	const { writeConcern, readPreference, readConcern } = client.options;
	const { w, j, journal } = (writeConcern ?? {}) as {
		w?: unknown;
		j?: unknown;
		journal?: unknown;
	};
	const demand = (safe: boolean, setting: string) => {
		if (safe) return;
		throw unusable(
			address,
			`the URL asks for ${setting}; what is acknowledged must be on the journals of a majority and read at the primary: leave it out`,
		);
	};
	demand(w === undefined || w === "majority", `w=${String(w)}`);
	demand((j ?? journal) !== false, "journal=false");
	demand(readPreference.mode === "primary", `readPreference=${readPreference.mode}`);
	const level = readConcern?.level;
	demand(
		level === undefined || level === "majority" || level === "linearizable",
		`readConcernLevel=${String(level)}`,
	);
}

/** @returns whether the fault is the server's or the way's to it, and not that of one write */
export function isServerFault(error: unknown): boolean {
	if (error instanceof LottorError) return true;
	const {
		code,
		name = "",
		errorLabels,
	} = (error ?? {}) as {
		code?: unknown;
		name?: string;
		errorLabels?: unknown;
	};
	if (typeof code === "number") return PASSING_CODES.has(code) || AUTHENTICATION.has(code);
	const labelled = Array.isArray(errorLabels) && errorLabels.includes("RetryableWriteError");
	return labelled || SERVER_FAULTS.test(name) || SERVER_FAULTS.test(messageOf(error));
}

/** @returns the error of a call that met a fault: as a rule it may or may not have happened */
export function faultOf(address: Address, error: unknown): LottorError {
	if (error instanceof LottorError) return error;
	const { code, name } = (error ?? {}) as { code?: unknown; name?: string };
	if (typeof code === "number" && AUTHENTICATION.has(code)) {
		return unusable(
			address,
			`it refuses the login or a right is missing: ${messageOf(error)}`,
			error,
		);
	}
	if (typeof code === "number" && !PASSING_CODES.has(code) && name === "MongoServerError") {
		return unavailable(address, `it answered ${messageOf(error)} (code ${code})`, error);
	}
	return unavailable(address, messageOf(error), error);
}

export function unavailable({ place }: Address, why: string, cause?: unknown): LottorError {
	const message = `Coordinator store ${place}: ${why}; the call may or may not have happened`;
	return new LottorError("LOTTOR_STORE_UNAVAILABLE", message, { store: place }, cause);
}

export function unusable({ place }: Address, why: string, cause?: unknown): LottorError {
	const message = `Coordinator store ${place}: ${why}`;
	return new LottorError("LOTTOR_STORE_UNUSABLE", message, { store: place }, cause);
}
