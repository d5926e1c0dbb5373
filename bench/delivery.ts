// How fast delivery over a broker is beside the same work over plain channels, which ties nothing to
// a transaction:
//   node bench/delivery.ts [--json] [--count 2000] [--rounds 3] [--only rabbitmq,kafka,nats,redis]
//     [--coordinator process]: the coordinator in a process of its own, as each broker has one
// The addresses of PostgreSQL and of the brokers come from the environment, as `npm run servers -- env`
// prints them. Producer: a PostgreSQL transaction with one row, then the message; consumer: one row.
// 16 producers, 16 consumers, one process (which has the coordinator, too, unless told otherwise); a round ends with the last row of the consumer.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { type Subject, lottorOver, plainOver, work } from "./delivery-subjects.ts";

const BROKERS = {
	rabbitmq: "AMQP_URL",
	kafka: "KAFKA_URL",
	nats: "NATS_URL",
	redis: "REDIS_URL",
} as const;
const CONCURRENT = 16;
const WARM_UP = 200;

interface Measured {
	readonly perSecond: number;
	/** Milliseconds of CPU of this process a message. */
	readonly cpu: number;
}

function address(variable: string): string {
	const url = process.env[variable];
	if (!url) {
		console.error(`${variable} must be set, as \`npm run servers -- env\` prints it`);
		process.exit(2);
	}
	return url;
}

async function measure(subject: Subject, count: number): Promise<Measured> {
	await work(subject, WARM_UP, CONCURRENT);
	const cpu = process.cpuUsage();
	const start = performance.now();
	await work(subject, count, CONCURRENT);
	const took = (performance.now() - start) / 1_000;
	const { user, system } = process.cpuUsage(cpu);
	return {
		perSecond: Math.round(count / took),
		cpu: Math.round((user + system) / 10 / count) / 100,
	};
}

function middle(runs: Measured[]): Measured {
	runs.sort((a, b) => a.perSecond - b.perSecond);
	return runs[Math.floor(runs.length / 2)] as Measured;
}

const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		count: { type: "string", default: "2000" },
		rounds: { type: "string", default: "3" },
		coordinator: { type: "string", default: "here" },
		only: { type: "string", default: Object.keys(BROKERS).join(",") },
	},
});
const count = Number(values.count);
const rounds = Number(values.rounds);
const postgres = address("POSTGRES_URL");
const table: object[] = [];
for (const name of values.only.split(",") as (keyof typeof BROKERS)[]) {
	const url = address(BROKERS[name]);
	const folder = mkdtempSync(join(tmpdir(), "lottor-bench-"));
	const plain = await plainOver(url, postgres);
	const lottor = await lottorOver(url, postgres, folder, values.coordinator === "process");
	const runs = { plain: [] as Measured[], lottor: [] as Measured[] };
	for (let round = 0; round < rounds; round++) {
		runs.plain.push(await measure(plain, count));
		runs.lottor.push(await measure(lottor, count));
	}
	await plain.close();
	await lottor.close();
	rmSync(folder, { recursive: true, force: true });
	const [before, ours] = [middle(runs.plain), middle(runs.lottor)];
	table.push({
		broker: name,
		plain_per_s: before.perSecond,
		lottor_per_s: ours.perSecond,
		share: Math.round((ours.perSecond / before.perSecond) * 100) / 100,
		plain_cpu_ms: before.cpu,
		lottor_cpu_ms: ours.cpu,
	});
	if (!values.json) console.table(table.at(-1));
}
if (values.json)
	console.log(JSON.stringify({ count, rounds, coordinator: values.coordinator, table }));
else console.table(table);
process.exit(0);
