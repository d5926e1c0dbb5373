import { randomBytes } from "node:crypto";

import { MongoClient } from "mongodb";

/** A database, or what a server has of the kind, that is nobody else's. */
export interface PlaceOnServer {
	/** Its URL, as stores take it. */
	readonly url: string;
	/** Removes it with all that it holds. */
	remove(): Promise<void>;
}

type Make = (server: string, name: string) => Promise<PlaceOnServer>;

const MAKERS: Readonly<Record<string, Make>> = {
	mongodb: mongoPlace,
	"mongodb+srv": mongoPlace,
	postgres: postgresPlace,
	postgresql: postgresPlace,
	mysql: mysqlPlace,
	mariadb: mysqlPlace,
	redis: redisPlace,
	rediss: redisPlace,
};

/** The schemes of the servers that places can be made on. */
export const PLACE_SCHEMES: readonly string[] = Object.keys(MAKERS);

/**
 * Makes a place of one's own on a server: a database in MongoDB and MySQL, a schema in PostgreSQL, a
 * prefix in Redis.
 *
 * @param server its URL; the user must have the right to make databases
 * @param name what the place's name begins with: letters, digits and _
 */
export async function makePlace(server: string, name: string): Promise<PlaceOnServer> {
	const make = MAKERS[schemeOf(server)];
	if (!make) throw new Error(`No place can be made on "${schemeOf(server)}:"`);
	return make(server, `${name}_${randomBytes(6).toString("hex")}`);
}

/** @returns the URL's scheme in small letters; "" when it has none */
export function schemeOf(url: string): string {
	return (/^([a-z+]+):\/\//i.exec(url)?.[1] ?? "").toLowerCase();
}

/** Not by `URL`, which does not take several hosts. */
const MONGO_URL = /^(mongodb(?:\+srv)?:\/\/)([^@/]*@)?([^/?]+)(?:\/([^?]*))?(?:\?(.*))?$/i;

async function mongoPlace(server: string, name: string): Promise<PlaceOnServer> {
	const [, scheme, login = "", hosts, database, query = ""] = MONGO_URL.exec(server) ?? [];
	const settings = new URLSearchParams(query);
	// Without it, the database that is named is the one that knows the user.
	if (login !== "" && !settings.has("authSource")) {
		settings.set("authSource", database || "admin");
	}
	const url = `${scheme}${login}${hosts}/${name}?${settings.toString()}`.replace(/\?$/, "");
	return {
		url,
		async remove() {
			const client = new MongoClient(url);
			await client.db().dropDatabase();
			await client.close();
		},
	};
}

async function postgresPlace(server: string, name: string): Promise<PlaceOnServer> {
	await sql("pg", server, `CREATE SCHEMA ${name}`);
	const url = new URL(server);
	url.searchParams.set("options", `-c search_path=${name}`);
	return { url: url.href, remove: () => sql("pg", server, `DROP SCHEMA ${name} CASCADE`) };
}

async function mysqlPlace(server: string, name: string): Promise<PlaceOnServer> {
	const address = server.replace(/^mariadb:/i, "mysql:");
	await sql("mysql2", address, `CREATE DATABASE ${name}`);
	const url = new URL(server);
	url.pathname = `/${name}`;
	return { url: url.href, remove: () => sql("mysql2", address, `DROP DATABASE ${name}`) };
}

async function redisPlace(server: string, name: string): Promise<PlaceOnServer> {
	const url = new URL(server);
	url.searchParams.set("prefix", name);
	return {
		url: url.href,
		async remove() {
			const { Redis } = await import("ioredis");
			const redis = new Redis(server);
			const keys = await redis.keys(`*${name}*`);
			if (keys.length > 0) await redis.del(...keys);
			await redis.quit();
		},
	};
}

async function sql(client: string, connection: string, statement: string): Promise<void> {
	const { default: makeKnex } = await import("knex");
	const knex = makeKnex({ client, connection, pool: { min: 0, max: 1 } });
	try {
		await knex.raw(statement);
	} finally {
		await knex.destroy();
	}
}
