// What a participant store costs a transaction, on every server that is up (`npm run servers -- up`):
//   npm run bench:participants -- [--json] [--seconds 2] [--concurrent 1,16]
// Beside each other: one insert of a row alone, the same insert as the work of a producer (outcome
// row and insert), and as a consumer's handler (inbox row and insert). No coordinator takes part.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import makeKnex from "knex";

import { resolveParticipantStore } from "../adapters/participant-store/index.ts";
import { newGroupId, systemClock, systemRandom } from "../protocol/index.ts";
import { documentAdapter } from "../samples/support/document-adapter.ts";
import { sqlDocuments } from "../samples/support/sql-documents.ts";
import { type SampleDatabase, sampleDatabase } from "../samples/support/stores.ts";
import { makePlace } from "../scripts/places.ts";
import { KINDS } from "../scripts/servers/kinds.ts";
import { Running } from "../scripts/servers/running.ts";
import { cacheFolder } from "../scripts/servers/tools.ts";

/** Names of servers, and what is said of the engine behind each. */
const SERVERS: Readonly<Record<string, string>> = {
	postgres: "PostgreSQL",
	mysql: "MariaDB",
	mongodb: "MongoDB protocol, DocumentDB engine",
	ferretdb: "MongoDB protocol, FerretDB 1",
	redis: "Redis, appendfsync always",
};

const TABLE = "bench";

interface Pragmas {
	pragma(sql: string): unknown;
}

interface Figures {
	readonly store: string;
	readonly guarantee: string;
	readonly what: string;
	readonly concurrent: number;
	readonly perSecond: number;
	readonly p50: number;
	/** Milliseconds of CPU of this process, client library included. */
	readonly cpu: number;
}

const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		seconds: { type: "string", default: "2" },
		concurrent: { type: "string", default: "1,16" },
	},
});
const seconds = Number(values.seconds);
const folder = mkdtempSync(join(tmpdir(), "lottor-bench-"));
const all: Figures[] = [];
try {
	await measureStore("SQLite", sampleDatabase(`sqlite:${join(folder, "a.db")}`, TABLE));
	await measureKnexOnSqlite(join(folder, "knex.db"));
	const running = new Running(cacheFolder());
	for (const [name, title] of Object.entries(SERVERS)) {
		const kind = KINDS.find((one) => one.name === name);
		const server = kind && (process.env[kind.variable] || running.url(kind));
		if (!server) {
			console.error(`left out: ${title}; \`npm run servers -- up ${name}\` brings it up`);
			continue;
		}
		const place = await makePlace(server, "lottor_bench");
		await measureStore(title, sampleDatabase(place.url, TABLE));
		await place.remove();
	}
} finally {
	rmSync(folder, { recursive: true, force: true });
}
if (values.json) console.log(JSON.stringify(all));

async function measureKnexOnSqlite(filename: string): Promise<void> {
	const knex = makeKnex({
		client: "better-sqlite3",
		connection: { filename },
		useNullAsDefault: true,
		pool: {
			afterCreate(db: Pragmas, done: (error: unknown, db: Pragmas) => void) {
				db.pragma("journal_mode = WAL");
				db.pragma("synchronous = FULL");
				done(null, db);
			},
		},
	});
	const options = { clock: systemClock, random: systemRandom };
	await measureStore("SQLite through Knex", {
		store: resolveParticipantStore(knex, "store", options),
		adapter: documentAdapter(sqlDocuments(knex, TABLE)),
	});
	await knex.destroy();
}

async function measureStore(
	title: string,
	database: SampleDatabase<{ group: string }>,
): Promise<void> {
	const { store, adapter } = database;
	await adapter.connect();
	const { guarantee } = await store.open();
	const owner = { nodeID: "bench", instanceID: "1" };
	const common = { owner, coordinator: "c", timeout: 60_000 };
	const newId = () => newGroupId(systemClock, systemRandom);
	const subjects: Readonly<Record<string, () => Promise<unknown>>> = {
		"insert alone": () => adapter.insert({ group: newId() }),
		producer: async () => {
			const id = newId();
			const { state } = await store.run({ id, ...common }, (tx) =>
				adapter.withTx(tx).insert({ group: id }),
			);
			if (state !== "committed") throw new Error(`${title}: ${state}`);
		},
		consumer: async () => {
			const group = newId();
			const copy = { id: `${group}.0`, group, attempt: 1, revision: 0, receipt: "r" };
			const { result } = await store.consume(
				{ ...copy, ...common, isAlive: () => true },
				async (tx) => void (await adapter.withTx(tx).insert({ group })),
			);
			if (result !== "consumed") throw new Error(`${title}: ${result}`);
		},
	};
	for (const concurrent of values.concurrent.split(",").map(Number)) {
		for (const [what, once] of Object.entries(subjects)) {
			tell({
				store: title,
				guarantee,
				what,
				concurrent,
				...(await measure(once, concurrent)),
			});
		}
	}
	await store.close();
	await adapter.disconnect();
}

async function measure(once: () => Promise<unknown>, concurrent: number) {
	for (let i = 0; i < 5; i++) await Promise.all(Array.from({ length: concurrent }, once));
	const times: number[] = [];
	const cpu = process.cpuUsage();
	const start = performance.now();
	const loop = async () => {
		for (let before = performance.now(); before - start < seconds * 1_000;) {
			await once();
			const after = performance.now();
			times.push(after - before);
			before = after;
		}
	};
	await Promise.all(Array.from({ length: concurrent }, loop));
	const passed = performance.now() - start;
	const { user, system } = process.cpuUsage(cpu);
	times.sort((a, b) => a - b);
	return {
		perSecond: Math.round((times.length / passed) * 1_000),
		p50: times[Math.floor(times.length / 2)] ?? 0,
		cpu: (user + system) / 1_000 / times.length,
	};
}

function tell(figures: Figures): void {
	all.push(figures);
	const { store, guarantee, what, concurrent, perSecond, p50, cpu } = figures;
	const cells = [
		store.padEnd(36),
		guarantee.padEnd(13),
		what.padEnd(12),
		String(concurrent).padStart(3),
		`${perSecond}/s`.padStart(8),
		`${p50.toFixed(2)} ms`.padStart(9),
		`${cpu.toFixed(2)} ms CPU`.padStart(12),
	];
	(values.json ? console.error : console.log)(cells.join("  "));
}
