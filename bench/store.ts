// How fast the embedded coordinator store is, beside what SQLite itself gives on this disk:
//   node bench/store.ts [--json] [--seconds 2] [--mongo mongodb://…]
// Raw: rows of 200 bytes under group commit, on the main thread and in a worker. Store: groups
// of one message through insert, decide with dispatch, and consumed. With --mongo only the store in
// that MongoDB is measured, in a database of its own, and the CPU is that of this process alone.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

import type { CoordinatorStore } from "../adapters/coordinator-store/index.ts";
import { mongoCoordinatorStore } from "../adapters/coordinator-store/mongo.ts";
import { sqliteCoordinatorStore } from "../adapters/coordinator-store/sqlite.ts";
import { newGroupId, systemClock, systemRandom } from "../protocol/index.ts";
import { grouped, rawTable } from "./raw.ts";

const ROUNDS = 5;
const CONCURRENT = [1, 16, 128];

interface Figures {
	readonly what: string;
	readonly concurrent: number;
	readonly perSecond: number;
	/** Of the whole process, its worker included. */
	readonly cpuMicros: number;
	/** The longest that the main thread's loop was held up. */
	readonly stallMs: number;
}

/** Something to measure: `once` is one unit of work. */
interface Subject {
	once(): Promise<void>;
	close(): Promise<void>;
}

function rawOnMain(file: string): Subject {
	const table = rawTable(file);
	return { once: grouped(table.commit), close: async () => table.close() };
}

function rawInWorker(file: string): Subject {
	const worker = new Worker(new URL(import.meta.url), { workerData: file });
	const once = grouped(
		(rows) =>
			new Promise((resolve) => {
				worker.once("message", () => resolve());
				worker.postMessage(rows);
			}),
	);
	return {
		once,
		async close() {
			await worker.terminate();
		},
	};
}

function sqlite(file: string): Promise<Subject> {
	return threeSteps(sqliteCoordinatorStore({ file }));
}

function mongo(server: string): () => Promise<Subject> {
	const url = new URL(server);
	url.pathname = `/lottor-bench-${process.pid}`;
	return async () => {
		const subject = await threeSteps(mongoCoordinatorStore({ url: url.href }));
		const close = async () => {
			await subject.close();
			const { MongoClient } = await import("mongodb");
			const client = new MongoClient(url.href);
			await client.db().dropDatabase();
			await client.close();
		};
		return { ...subject, close };
	};
}

async function threeSteps(store: CoordinatorStore): Promise<Subject> {
	await store.open();
	const content = JSON.stringify({ user: "x".repeat(160), role: "admin" });
	const ready = new Map([["auth", { storeId: "b".repeat(32) }]]);
	return {
		async once() {
			const id = newGroupId(systemClock, systemRandom);
			const message = { target: "auth", type: "grant-role", content, bytes: content.length };
			const rest = { delay: 0, maxAttempts: null, orderingKey: null, plain: false as const };
			await store.insert([
				{
					id,
					source: "user",
					storeId: "a".repeat(32),
					guarantee: "transactional",
					owner: { nodeID: "node-user", instanceID: "user-1" },
					hash: "0".repeat(64),
					idempotencyKey: null,
					checkAfter: 10_000,
					context: '{"requestID":"5f0e7c3a"}',
					messages: [{ ...message, ...rest }],
				},
			]);
			const dispatch = { owner: "lottor", lease: 5_000, ackTimeout: 10_000, ready };
			const decided = await store.decide([
				{ id, to: "committed", by: "producer", who: "user", dispatch },
			]);
			const applied = await store.apply([
				{ id, index: 0, event: { type: "consumed", revision: 0, who: "auth" } },
			]);
			if (decided[0]?.result !== "done" || applied[0]?.result !== "done") {
				throw new Error("a step was not done");
			}
		},
		close: () => store.close(),
	};
}

async function measure(
	what: string,
	make: (file: string) => Subject | Promise<Subject>,
	concurrent: number,
	seconds: number,
): Promise<Figures> {
	const folder = mkdtempSync(join(tmpdir(), "lottor-bench-store-"));
	const subject = await make(join(folder, "bench.db"));
	await Promise.all(Array.from({ length: concurrent }, () => subject.once()));

	const delay = monitorEventLoopDelay({ resolution: 1 });
	delay.enable();
	const cpu = process.cpuUsage();
	const start = performance.now();
	const end = start + seconds * 1_000;
	let count = 0;
	await Promise.all(
		Array.from({ length: concurrent }, async () => {
			while (performance.now() < end) {
				await subject.once();
				count++;
			}
		}),
	);
	const took = (performance.now() - start) / 1_000;
	const { user, system } = process.cpuUsage(cpu);
	delay.disable();

	await subject.close();
	rmSync(folder, { recursive: true, force: true });
	return {
		what,
		concurrent,
		perSecond: Math.round(count / took),
		cpuMicros: Math.round(((user + system) / count) * 10) / 10,
		stallMs: Math.round(delay.max / 1e5) / 10,
	};
}

/** The run with the median rate. */
function median(runs: readonly Figures[]): Figures {
	const sorted = [...runs].sort((a, b) => a.perSecond - b.perSecond);
	const middle = sorted[Math.floor(sorted.length / 2)];
	if (!middle) throw new Error("no run");
	return middle;
}

async function main(): Promise<void> {
	const { values } = parseArgs({
		options: {
			json: { type: "boolean" },
			seconds: { type: "string", default: "2" },
			mongo: { type: "string" },
		},
	});
	const seconds = Number(values.seconds);
	const embedded: [string, (file: string) => Subject | Promise<Subject>][] = [
		["raw rows, main thread", rawOnMain],
		["raw rows, worker", rawInWorker],
		["store, three steps", sqlite],
	];
	const subjects = values.mongo
		? [["MongoDB store, three steps", mongo(values.mongo)] as const]
		: embedded;
	const cases = subjects.flatMap(([what, make]) =>
		CONCURRENT.map((concurrent) => ({ what, make, concurrent, runs: [] as Figures[] })),
	);
	// Round by round, so that a slow minute of the disk hits every case alike.
	for (let round = 0; round < ROUNDS; round++) {
		for (const { what, make, concurrent, runs } of cases) {
			runs.push(await measure(what, make, concurrent, seconds));
		}
	}
	const figures = cases.map(({ runs }) => median(runs));
	if (values.json) console.log(JSON.stringify(figures, null, "\t"));
	else console.table(figures);
}

if (isMainThread) await main();
else {
	const { commit } = rawTable(workerData as string);
	parentPort?.on("message", (rows: string[]) => {
		commit(rows);
		parentPort?.postMessage(null);
	});
}
