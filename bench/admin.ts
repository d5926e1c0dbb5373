// How fast the admin service answers over a store that is full:
//   npm run bench:admin -- [--json] [--groups 1000000] [--stores sqlite,mongodb] [--rounds 20]
//     [--filled sqlite:/tmp/full.db] [--only text] [--keep]
// Each query is a request over HTTP; its figure is the 95th percentile. The last line with --json is
// {"ok","runs":[{"store","groups","query","p95_ms","bar_ms"}]}. MongoDB: MONGODB_URL. A store that was
// asked for and can't be measured is named on stderr, and nothing is ok then.
// --keep leaves the filled stores and tells their URLs, --filled (once or more) measures such a store
// as it stands, --only those queries that contain the text.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { AddressInfo, Server } from "node:net";
import { ServiceBroker } from "moleculer";

import {
	type CoordinatorStore,
	resolveCoordinatorStore,
} from "../adapters/coordinator-store/index.ts";
import { newStoreId, systemClock, systemRandom } from "../protocol/index.ts";
import { setClock } from "../scripts/seed-data/clock.ts";
import { sequence } from "../scripts/seed-data/random.ts";
import { every, seed } from "../scripts/seed-data/seed.ts";
import type { ResponseOf } from "../services/admin/api/index.ts";
import { LottorAdmin, newAdminToken } from "../services/admin/index.ts";
import { Coordinator } from "../services/coordinator/index.ts";

const LIST_BAR_MS = 100;
const OVERVIEW_BAR_MS = 300;
const DAYS = 6;
const SEARCH_FIELDS = ["order", "customer.id"];

interface Run {
	readonly store: string;
	readonly groups: number;
	readonly query: string;
	readonly p95_ms: number;
	readonly bar_ms: number;
}

/**
 * Every list's first page, every filter, and the filters that suit no index.
 *
 * @param id of a group that is there
 */
function queriesOf(now: number, id: string): readonly (readonly [query: string, bar: number])[] {
	const day = now - 86_400_000;
	const hour = day + 3_600_000;
	// Seven characters of an id are half a minute.
	const short = id.slice(0, 7);
	const lists = [
		"groups",
		"groups?total=true",
		"groups?sort=oldest",
		"groups?states=completed",
		"groups?states=inDoubt",
		"groups?states=prepared,committed&total=true",
		"groups?source=user",
		"groups?target=mail",
		"groups?type=create-invoice",
		"groups?errorCode=OUT_OF_STOCK&total=true",
		"groups?idPrefix=0",
		"groups?idPrefix=0&total=true",
		`groups?idPrefix=${short}&total=true`,
		`groups?idPrefix=${id}`,
		"groups?conflict=true",
		`groups?since=${day}&total=true`,
		`groups?until=${day}&total=true`,
		`groups?since=${day}&until=${hour}&states=completed&source=shop.order`,
		`groups?text=${id}`,
		"groups?text=1007",
		"groups?text=484711",
		"groups?text=mail&total=true",
		"groups?text=nothing-has-this",
		"groups?source=user&target=mail&total=true",
		"groups?source=v2.payment&target=v2.ledger&type=book&states=completed&conflict=false",
		"groups?source=catalog.import&states=inDoubt&target=search&sort=oldest",
		"groups?fields=customer.name,total.amount&limit=50",
		"messages",
		"messages?total=true",
		"messages?sort=oldest",
		"messages?source=user",
		"messages?source=user&total=true",
		"messages?target=mail&total=true",
		"messages?type=create-invoice&total=true",
		"messages?idPrefix=0&total=true",
		`messages?idPrefix=${short}&total=true`,
		`messages?idPrefix=${id}.0&total=true`,
		`messages?text=${id}.0`,
		`messages?since=${day}&total=true`,
		`messages?until=${day}&total=true`,
		`messages?since=${day}&until=${hour}&states=consumed&source=shop.order`,
		"messages?fields=customer.name,total.amount&limit=50",
		"messages?states=failed&total=true",
		"messages?states=consumed&target=auth",
		"messages?type=reserve-stock&source=shop.order",
		"messages?errorCode=LOTTOR_HANDLER_TIMEOUT",
		"messages?text=1007",
		"messages?states=failed&source=user&type=create-invoice&total=true",
		"messages/errors",
		"facets",
		"stats/rates",
		"stats/daily?days=30",
		"stats/services?days=30",
		"audit",
	].map((query) => [query, LIST_BAR_MS] as const);
	return [["overview", OVERVIEW_BAR_MS], ...lists];
}

/** Where the figures of one kind of store come from. */
interface Subject {
	readonly name: string;
	readonly url: string;
	/** Groups to fill it with; undefined where it is filled. */
	readonly fill?: number;
	clean(): Promise<void>;
}

function filled(url: string): Subject {
	const name = url.startsWith("mongodb") ? "mongodb" : "sqlite";
	return { name, url, clean: async () => undefined };
}

function sqlite(fill: number): Subject {
	const folder = mkdtempSync(join(tmpdir(), "lottor-bench-admin-"));
	return {
		name: "sqlite",
		fill,
		url: `sqlite:${join(folder, "lottor.db")}`,
		clean: async () => rmSync(folder, { recursive: true, force: true }),
	};
}

function mongodb(fill: number): Subject | undefined {
	const given = process.env["MONGODB_URL"];
	if (!given) return undefined;
	const url = new URL(given);
	const database = `lottor_bench_${newStoreId(systemRandom).slice(0, 8)}`;
	url.pathname = `/${database}`;
	return {
		name: "mongodb",
		fill,
		url: url.href,
		async clean() {
			const { MongoClient } = await import("mongodb");
			const client = await MongoClient.connect(url.href);
			await client.db(database).dropDatabase();
			await client.close();
		},
	};
}

async function fill(url: string, groups: number, log: (text: string) => void): Promise<void> {
	const now = Date.now();
	const clock = setClock(now);
	const store = resolveCoordinatorStore(url, "--stores", { clock, random: systemRandom });
	await store.open();
	const began = performance.now();
	const progress = every(100_000, (stored) => log(`  ${stored} groups`));
	await seed(store, clock, {
		groups,
		days: DAYS,
		now,
		random: sequence(groups),
		searchFields: SEARCH_FIELDS,
		progress,
	});
	await store.close();
	log(`  filled in ${Math.round((performance.now() - began) / 1_000)} s`);
}

/** A store whose groups stay as they are while they are looked at: nothing is due, nothing goes. */
function untouched(url: string): CoordinatorStore {
	const store = resolveCoordinatorStore(url, "--filled", {
		clock: systemClock,
		random: systemRandom,
	});
	return Object.assign(store, {
		claim: async () => [],
		wake: async () => 0,
		purge: async () => 0,
	} satisfies Partial<CoordinatorStore>);
}

async function measure(subject: Subject, only: string, rounds: number): Promise<Run[]> {
	const broker = new ServiceBroker({ nodeID: "bench", logger: false });
	broker.createService(
		Coordinator({ store: untouched(subject.url), searchFields: SEARCH_FIELDS }),
	);
	const { token, entry } = newAdminToken("bench", "admin");
	broker.createService(LottorAdmin({ port: 0, tokens: [entry] }));
	await broker.start();
	const { server } = broker.getLocalService("lottor-admin") as unknown as { server: Server };
	const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/api/`;
	const get = async (query: string): Promise<unknown> => {
		const answer = await fetch(base + query, { headers: { Authorization: `Bearer ${token}` } });
		const body: unknown = await answer.json();
		if (!answer.ok) throw new Error(`GET ${query}: ${answer.status}`);
		return body;
	};
	const { groups: byState } = (await get("overview")) as ResponseOf<"overview">;
	const groups = Object.values(byState).reduce((sum, count) => sum + count, 0);
	const { items } = (await get("groups?limit=1")) as ResponseOf<"groups">;
	const runs: Run[] = [];
	for (const [query, bar] of queriesOf(Date.now(), items[0]?.id ?? "0")) {
		if (!query.includes(only)) continue;
		const times: number[] = [];
		// The first one warms up.
		for (let round = 0; round <= rounds; round++) {
			const began = performance.now();
			await get(query);
			if (round > 0) times.push(performance.now() - began);
		}
		times.sort((a, b) => a - b);
		const p95 = times[Math.ceil(times.length * 0.95) - 1] ?? 0;
		const rounded = Math.round(p95 * 10) / 10;
		runs.push({ store: subject.name, groups, query, p95_ms: rounded, bar_ms: bar });
	}
	await broker.stop();
	return runs;
}

const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		groups: { type: "string", default: "1000000" },
		stores: { type: "string", default: "sqlite,mongodb" },
		rounds: { type: "string", default: "20" },
		filled: { type: "string", multiple: true },
		only: { type: "string", default: "" },
		keep: { type: "boolean", default: false },
	},
});
const log = (text: string) => {
	if (!values.json) console.log(text);
};
const makers: Readonly<Record<string, (fill: number) => Subject | undefined>> = { sqlite, mongodb };

let complete = true;

function subjects(): Subject[] {
	if (values.filled) return values.filled.map(filled);
	return values.stores.split(",").flatMap((name) => {
		const make = Object.hasOwn(makers, name) ? makers[name] : undefined;
		const subject = make?.(Number(values.groups));
		if (subject) return subject;
		complete = false;
		console.error(`${name} is left out: ${make ? "MONGODB_URL is not set" : "unknown"}`);
		return [];
	});
}

const runs: Run[] = [];
for (const subject of subjects()) {
	log(`${subject.name}${values.keep ? `: ${subject.url}` : ""}`);
	try {
		if (subject.fill !== undefined) await fill(subject.url, subject.fill, log);
		runs.push(...(await measure(subject, values.only, Number(values.rounds))));
	} finally {
		if (!values.keep) await subject.clean();
	}
}
const ok = complete && runs.length > 0 && runs.every(({ p95_ms, bar_ms }) => p95_ms < bar_ms);
if (values.json) console.log(JSON.stringify({ ok, runs }));
else console.table(runs);
process.exitCode = ok ? 0 : 1;
