// How fast the embedded default is, every commit on disk:
//   npm run bench -- [--json] [--seconds 3] [--rounds 3]
// One process runs coordinator, producer and consumer, each with an SQLite file of its own. A
// transaction is: prepare, one row in the producer's database, commit, delivery, one row in the
// consumer's, report; it counts when the coordinator has stored its group as completed. Beside it,
// in the same run: what group commit of single rows gives on one such file.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { embedded } from "./embedded.ts";
import { grouped, rawTable } from "./raw.ts";

const CONCURRENT = [1, 16, 128];

interface Measured {
	readonly perSecond: number;
	readonly p50: number;
	readonly p99: number;
	/** Milliseconds of CPU of this process a unit of work. */
	readonly cpu: number;
}

interface Subject {
	once(): Promise<void>;
	close(): Promise<void>;
}

async function measure(
	make: (folder: string) => Promise<Subject>,
	concurrent: number,
	seconds: number,
): Promise<Measured> {
	const folder = mkdtempSync(join(tmpdir(), "lottor-bench-"));
	const subject = await make(folder);
	for (let i = 0; i < 3; i++) {
		await Promise.all(Array.from({ length: concurrent }, () => subject.once()));
	}
	const times: number[] = [];
	const cpu = process.cpuUsage();
	const start = performance.now();
	const end = start + seconds * 1_000;
	const loop = async (): Promise<void> => {
		for (let before = performance.now(); before < end;) {
			await subject.once();
			const after = performance.now();
			times.push(after - before);
			before = after;
		}
	};
	await Promise.all(Array.from({ length: concurrent }, loop));
	const took = (performance.now() - start) / 1_000;
	const { user, system } = process.cpuUsage(cpu);
	await subject.close();
	rmSync(folder, { recursive: true, force: true });
	times.sort((a, b) => a - b);
	const at = (part: number) => round(times[Math.floor((times.length - 1) * part)] ?? 0);
	return {
		perSecond: Math.round(times.length / took),
		p50: at(0.5),
		p99: at(0.99),
		cpu: round((user + system) / 1_000 / times.length),
	};
}

async function raw(folder: string): Promise<Subject> {
	const table = rawTable(join(folder, "raw.db"));
	return { once: grouped(table.commit), close: async () => table.close() };
}

async function lottor(folder: string): Promise<Subject> {
	const subject = await embedded(folder);
	return {
		once: () => subject.once(),
		async close() {
			const { users, roles } = await subject.rows();
			await subject.close();
			if (users !== roles) throw new Error(`${users} users have ${roles} roles`);
		},
	};
}

function round(value: number): number {
	return Math.round(value * 100) / 100;
}

/** The run with the median rate. */
function middle(runs: Measured[]): Measured {
	runs.sort((a, b) => a.perSecond - b.perSecond);
	return runs[Math.floor(runs.length / 2)] as Measured;
}

function count(text: string, name: string): number {
	const value = Number(text);
	if (!(value > 0)) {
		console.error(`--${name} must be a number above 0, got "${text}"`);
		process.exit(2);
	}
	return value;
}

const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		seconds: { type: "string", default: "3" },
		rounds: { type: "string", default: "3" },
	},
});
const seconds = count(values.seconds, "seconds");
const rounds = Math.ceil(count(values.rounds, "rounds"));
const runs: object[] = [];
for (const concurrent of CONCURRENT) {
	const ours: Measured[] = [];
	const floor: Measured[] = [];
	for (let done = 0; done < rounds; done++) {
		if (!values.json) console.log(`${concurrent} concurrent, round ${done + 1} of ${rounds}`);
		ours.push(await measure(lottor, concurrent, seconds));
		floor.push(await measure(raw, concurrent, seconds));
	}
	const { perSecond, p50, p99, cpu } = middle(ours);
	runs.push({
		concurrent,
		transactions_per_s: perSecond,
		p50_ms: p50,
		p99_ms: p99,
		cpu_ms: cpu,
		raw_commits_per_s: middle(floor).perSecond,
	});
}
if (values.json) console.log(JSON.stringify({ seconds, rounds, runs }));
else console.table(runs);
