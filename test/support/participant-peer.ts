// A process with a participant store of its own, under plain Node:
// `node participant-peer.ts <database> fence` resolves the groups that its parent names by IPC;
// `node participant-peer.ts <database> work` runs works and handlers until it is killed, and prints
// `<kind> <id>` for each that it was told is done. With `knex` behind it, through Knex.
import makeKnex from "knex";

import { type SqliteTx, openSqliteFile } from "../../adapters/sqlite/index.ts";
import { knexParticipantStore, type KnexTx } from "../../adapters/participant-store/knex.ts";
import {
	type ParticipantStore,
	SqliteParticipantStore,
	type TxBase,
} from "../../adapters/participant-store/index.ts";
import { newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";
import { safePool } from "./knex-sqlite.ts";

const LOOPS = 8;

const [path, mode, library] = process.argv.slice(2);
if (!path || !mode) throw new Error("usage: participant-peer.ts <database> fence|work [knex]");

const owner = { nodeID: "peer", instanceID: String(process.pid) };
const options = { clock: systemClock, random: systemRandom };
const { store, makeTable, insert } = library === "knex" ? withKnex(path) : withoutKnex(path);
await store.open();

if (mode === "fence") {
	process.on("message", (id: string) => {
		void store.resolve([id]).then(([stands]) => process.send?.({ id, stands }));
	});
	process.send?.("ready");
} else {
	await makeTable("CREATE TABLE IF NOT EXISTS business (id TEXT PRIMARY KEY)");
	for (let i = 0; i < LOOPS; i++) void work();
}

async function work(): Promise<void> {
	for (;;) {
		const id = newGroupId(systemClock, systemRandom);
		const common = { owner, coordinator: "c", timeout: 10_000 };
		const ran = await store.run({ id, ...common }, (tx) => insert(tx, id));
		if (ran.state === "committed") process.stdout.write(`outcome ${id}\n`);

		const message = `${id}.0`;
		const copy = { id: message, group: id, attempt: 1, revision: 0, receipt: "r" };
		const consumed = await store.consume({ ...copy, ...common, isAlive: () => true }, (tx) =>
			insert(tx, message),
		);
		if (consumed.result === "consumed") process.stdout.write(`inbox ${message}\n`);
	}
}

interface Library {
	readonly store: ParticipantStore;
	readonly makeTable: (sql: string) => Promise<void>;
	readonly insert: (tx: TxBase, id: string) => Promise<void>;
}

function withoutKnex(path: string): Library {
	return {
		store: new SqliteParticipantStore(path, options),
		async makeTable(sql) {
			const file = await openSqliteFile(path);
			await file.write((tx) => void tx.run(sql));
		},
		insert: async (tx, id) => void (tx as SqliteTx).run("INSERT INTO business VALUES (?)", id),
	};
}

function withKnex(path: string): Library {
	const knex = makeKnex({
		client: "better-sqlite3",
		connection: { filename: path },
		useNullAsDefault: true,
		pool: safePool(),
	});
	return {
		store: knexParticipantStore(knex, options),
		makeTable: async (sql) => void (await knex.raw(sql)),
		insert: async (tx, id) => void (await (tx as KnexTx).trx("business").insert({ id })),
	};
}
