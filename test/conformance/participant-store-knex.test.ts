import { randomBytes } from "node:crypto";

import makeKnex, { type Knex } from "knex";

import { knexParticipantStore, type KnexTx } from "../../adapters/participant-store/knex.ts";
import type { TxBase } from "../../adapters/participant-store/index.ts";
import type { ServerKind } from "../../scripts/servers/kind.ts";
import { mysql } from "../../scripts/servers/mysql.ts";
import { postgres } from "../../scripts/servers/postgres.ts";
import { type Clock, systemClock } from "../../protocol/index.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { newSqlitePlace } from "../support/knex-sqlite.ts";
import { withServer } from "../support/servers.ts";
import { type ParticipantBench, participantStoreSuite } from "./participant-store.ts";

const GUARANTEES = ["transactional", "recorded"] as const;
type Guarantee = (typeof GUARANTEES)[number];

/** What the statement that must not get lost begins with. */
const CRUCIAL = { transactional: "COMMIT", recorded: "UPDATE lottor_outcome SET state" };

for (const [kind, title] of [
	[postgres, "knex on PostgreSQL"],
	[mysql, "knex on MariaDB"],
] as const) {
	withServer(kind, `participant store ${title}`, (url) => {
		for (const guarantee of GUARANTEES) {
			participantStoreSuite(`${title}, ${guarantee}`, {
				guarantee,
				shared: true,
				faults: true,
				races: 1_000,
				lateness: 4,
				make: () => bench(kind, url, guarantee),
			});
		}
	});
}

for (const guarantee of GUARANTEES) {
	participantStoreSuite(`knex on SQLite, ${guarantee}`, {
		guarantee,
		shared: true,
		faults: true,
		races: 1_000,
		make: () => sqliteBench(guarantee),
	});
}

/** Each store has a Knex, and a connection, of its own, as in another process. */
async function sqliteBench(guarantee: Guarantee): Promise<ParticipantBench> {
	const place = newSqlitePlace();
	const plain = place.knex();
	await plain.schema.createTable("business", (table) => {
		table.increments("place");
		table.string("name");
	});

	return {
		store: (clock) =>
			knexParticipantStore(place.knex(), {
				guarantee,
				clock: hurried(clock),
				now: () => clock.now(),
			}),
		write: async (tx: TxBase, name) => {
			if (guarantee === "transactional")
				await (tx as KnexTx).trx("business").insert({ name });
			else await whenFree(() => plain("business").insert({ name }));
		},
		rows: () => plain("business").orderBy("place").pluck<string[]>("name"),
		failCommit: (when) => place.failAt(CRUCIAL[guarantee], when),
		close: () => place.remove(),
	};
}

/** The clock by hand, but for the moments in which a lock of another connection is waited for. */
function hurried(clock: Clock): Clock {
	return {
		now: () => clock.now(),
		after: (ms, fn) => (ms < 10 ? systemClock : clock).after(ms, fn),
	};
}

async function whenFree(write: () => Promise<unknown>): Promise<void> {
	for (;;) {
		try {
			await write();
			return;
		} catch (error) {
			if ((error as { code?: string }).code !== "SQLITE_BUSY") throw error;
			await new Promise((resolve) => setImmediate(resolve));
		}
	}
}

async function bench(
	kind: ServerKind,
	server: string,
	guarantee: Guarantee,
): Promise<ParticipantBench> {
	const place = await newPlace(kind, server);
	const { hostname, port } = new URL(place.url);
	const proxy = await FaultProxy.start({ host: hostname, port: Number(port) });
	const url = new URL(place.url);
	url.port = String(proxy.port);
	url.searchParams.set("guarantee", guarantee);
	const plain = place.knex;
	await plain.schema.createTable("business", (table) => {
		table.increments("place");
		table.string("name");
	});

	return {
		store: (clock) => knexParticipantStore(url.href, { clock, now: () => clock.now() }),
		write: async (tx: TxBase, name) => {
			const knex = guarantee === "transactional" ? (tx as KnexTx).trx : plain;
			await knex("business").insert({ name });
		},
		rows: () => plain("business").orderBy("place").pluck<string[]>("name"),
		failCommit: (when) => void proxy.cutAt(CRUCIAL[guarantee], when),
		close: async () => {
			await place.remove();
			await proxy.close();
		},
	};
}

/** A schema, or database, of a test's own. */
async function newPlace(kind: ServerKind, server: string) {
	const name = `test_${randomBytes(8).toString("hex")}`;
	const client = kind === postgres ? "pg" : "mysql2";
	const what = kind === postgres ? "SCHEMA" : "DATABASE";
	const url = new URL(server);
	const admin = makeKnex({ client, connection: server, pool: { min: 0, max: 1 } });
	await admin.raw(`CREATE ${what} ${name}`);
	if (kind === postgres) url.searchParams.set("options", `-c search_path=${name}`);
	else url.pathname = `/${name}`;
	const knex: Knex = makeKnex({
		client,
		connection: kind === postgres ? { connectionString: url.href } : url.href,
		pool: { min: 0, max: 5 },
	});
	return {
		url: url.href,
		knex,
		async remove() {
			await knex.destroy();
			await admin.raw(`DROP ${what} ${name}${kind === postgres ? " CASCADE" : ""}`);
			await admin.destroy();
		},
	};
}
