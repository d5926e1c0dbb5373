import { afterEach, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import makeKnex from "knex";

import { systemClock, systemRandom } from "../../protocol/index.ts";
import { resolveParticipantStore } from "../../adapters/participant-store/index.ts";
import type { ServerKind } from "../../scripts/servers/kind.ts";
import { mysql } from "../../scripts/servers/mysql.ts";
import { postgres } from "../../scripts/servers/postgres.ts";
import { redis } from "../../scripts/servers/redis.ts";
import { PrivateServer } from "../support/private-server.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

const PATIENCE_MS = 120_000;
const options = { clock: systemClock, random: systemRandom };

let server: PrivateServer | undefined;

afterEach(async () => {
	await server?.dispose();
	server = undefined;
}, PATIENCE_MS);

/** Does on the server what an administrator would. */
type Setting = (url: string) => Promise<unknown>;

const sql =
	(client: string, ...statements: string[]): Setting =>
	async (url) => {
		const knex = makeKnex({ client, connection: url, pool: { min: 0, max: 1 } });
		for (const statement of statements) await knex.raw(statement);
		await knex.destroy();
	};

const fsync =
	(value: "on" | "off"): Setting =>
	async (url) => {
		await sql("pg", `ALTER SYSTEM SET fsync = ${value}`, "SELECT pg_reload_conf()")(url);
		const knex = makeKnex({ client: "pg", connection: url, pool: { min: 0, max: 1 } });
		// The server reads its settings again when it gets round to it.
		await until(async () => {
			const { rows } = await knex.raw<{ rows: { fsync: string }[] }>("SHOW fsync");
			return rows[0]?.fsync === value;
		});
		await knex.destroy();
	};

const config =
	(name: string, value: string): Setting =>
	async (url) => {
		const client = new Redis(url);
		await client.config("SET", name, value);
		client.disconnect();
	};

/** The same server, started with a setting that can't be changed later. */
function startedWith(kind: ServerKind, ...more: string[]): ServerKind {
	return {
		...kind,
		async command(place, cache) {
			const { args, ...command } = await kind.command(place, cache);
			return { ...command, args: [...args, ...more] };
		},
	};
}

const binaryLog = startedWith(mysql, "--log-bin=binlog", "--server-id=1");

const UNSAFE: readonly {
	readonly what: string;
	readonly kind: ServerKind;
	readonly set: Setting;
	/** What the error says of it. */
	readonly says: string;
	/** Settings that are safe again, or were from the start. */
	readonly mend: Setting;
}[] = [
	{
		what: "synchronous_commit off",
		kind: postgres,
		set: sql("pg", "ALTER DATABASE postgres SET synchronous_commit = off"),
		says: "synchronous_commit is off",
		mend: sql("pg", "ALTER DATABASE postgres RESET synchronous_commit"),
	},
	{
		what: "fsync off",
		kind: postgres,
		set: fsync("off"),
		says: "fsync is off",
		mend: fsync("on"),
	},
	{
		what: "innodb_flush_log_at_trx_commit 2",
		kind: mysql,
		set: sql("mysql2", "SET GLOBAL innodb_flush_log_at_trx_commit = 2"),
		says: "innodb_flush_log_at_trx_commit is not 1",
		mend: sql("mysql2", "SET GLOBAL innodb_flush_log_at_trx_commit = 1"),
	},
	{
		what: "sync_binlog 0 with the binary log on",
		kind: binaryLog,
		set: sql("mysql2", "SET GLOBAL sync_binlog = 0"),
		says: "sync_binlog is not 1",
		mend: sql("mysql2", "SET GLOBAL sync_binlog = 1"),
	},
	{
		what: "no AOF",
		kind: redis,
		set: config("appendonly", "no"),
		says: "appendonly yes",
		mend: config("appendonly", "yes"),
	},
	{
		what: "appendfsync no",
		kind: redis,
		set: config("appendfsync", "no"),
		says: "appendfsync is no",
		mend: config("appendfsync", "always"),
	},
	{
		what: "maxmemory-policy allkeys-lru",
		kind: redis,
		set: config("maxmemory-policy", "allkeys-lru"),
		says: "maxmemory-policy is allkeys-lru",
		mend: config("maxmemory-policy", "noeviction"),
	},
];

for (const { what, kind, set, says, mend } of UNSAFE) {
	withServer(kind, `participant store on ${kind.name}: ${what}`, () => {
		it(
			`participant store on ${kind.name}: ${what} is refused at start (LOTTOR_STORE_UNUSABLE), and taken once it is mended`,
			async () => {
				server = await PrivateServer.start(kind);
				await set(server.url);
				const store = resolveParticipantStore(server.url, "store", options);
				await expect(store.open()).rejects.toMatchObject({
					type: "LOTTOR_STORE_UNUSABLE",
					message: expect.stringContaining(says),
				});
				await mend(server.url);
				await store.open();
				await store.close();
			},
			PATIENCE_MS,
		);
	});
}

describe("what is safe all the same", () => {
	withServer(mysql, "participant store on mysql: sync_binlog 0 without a binary log", () => {
		it(
			"mysql: sync_binlog 0 is taken while there is no binary log",
			async () => {
				server = await PrivateServer.start(mysql);
				await sql("mysql2", "SET GLOBAL sync_binlog = 0")(server.url);
				const store = resolveParticipantStore(server.url, "store", options);
				await store.open();
				await store.close();
			},
			PATIENCE_MS,
		);
	});

	withServer(redis, "participant store on redis: appendfsync everysec", () => {
		it("redis: appendfsync everysec is taken, and said", async () => {
			server = await PrivateServer.start(redis);
			await config("appendfsync", "everysec")(server.url);
			const store = resolveParticipantStore(server.url, "store", options);
			await store.open();
			expect(store.description).toContain("loses up to the last second");
			await store.close();
		});
	});
});
