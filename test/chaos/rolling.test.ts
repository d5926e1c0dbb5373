import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, describe, expect, jest, test } from "@jest/globals";

import { mongodb } from "../../scripts/servers/mongodb.ts";
import { dropDatabase, ownDatabase } from "../support/mongo-stores.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";
import { CoordinatorDatabase } from "./random/coordinator-database.ts";
import { type CoordinatorData, CoordinatorFile } from "./random/coordinator-file.ts";
import { compare } from "./random/ledger.ts";
import { Network } from "./random/network.ts";
import { Processes } from "./random/processes.ts";
import { settled } from "./random/settled.ts";
import { type CallerSaw, type NodeName, type Peer, SQLITE } from "./random/words.ts";

jest.setTimeout(600_000);

const PRODUCERS: readonly NodeName[] = ["p1", "p2", "p3"];
const FIRST: readonly NodeName[] = ["k1", "k2", "k3"];
const NODES: readonly NodeName[] = [...FIRST, "k4", ...PRODUCERS, "c1", "c2", "c3"];

/** Callers of one producer's process: some of their work is always under way. */
const CALLERS = 4;
/** Transactions between two steps. */
const BETWEEN = 150;
/** What a coordinator that left did not hand back would wait for this, and nobody could go on. */
const LONG = "3m";
const SETTLE_MS = 60_000;

const cleanups: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
	for (const clean of cleanups.splice(0).reverse()) await clean();
});

/**
 * Three coordinators under load: each is stopped and started again in turn, a fourth joins, one
 * leaves for good.
 */
async function roll(store: string, open: (folder: string) => CoordinatorData) {
	const folder = mkdtempSync(join(tmpdir(), "lottor-rolling-"));
	const network = new Network<Peer>();
	const processes = new Processes({
		nodes: NODES,
		calm: true,
		coordinator: { lease: LONG, ackTimeout: LONG, checkAfter: LONG },
		prepareTimeout: "30s",
		folder,
		guarantee: "transactional",
		delivery: "direct",
		store,
		seed: "rolling",
		network,
		tell: () => undefined,
	});
	cleanups.push(async () => {
		await processes.clear();
		network.close();
	});
	await processes.start(NODES.filter((name) => name !== "k4"));
	const data = open(folder);
	cleanups.push(() => data.close());

	const ended = async () => {
		const figures = await Promise.all(PRODUCERS.map((name) => processes.figures(name)));
		const counts = figures.flatMap(({ results }) => Object.values(results));
		return counts.reduce((sum, count) => sum + count, 0);
	};
	/** Until enough was done, so that every step meets work under way. */
	const some = async () => {
		const enough = (await ended()) + BETWEEN;
		await until(async () => (await ended()) >= enough);
	};
	const press = (callers: number) => {
		for (const name of PRODUCERS) processes.command(name, { do: "press", callers });
	};

	press(CALLERS);
	await some();
	for (const name of FIRST) {
		await processes.restart(name, 0);
		await some();
	}
	await processes.start(["k4"]);
	await some();
	await processes.end("k1");
	await some();
	press(0);
	const quiet = await settled(data, SETTLE_MS);
	await processes.stop();
	const verdict = await compare(folder, processes.harmed, data, NODES);
	const callersSaw = PRODUCERS.flatMap((name) =>
		readFileSync(join(folder, `${name}.results`), "utf8")
			.trim()
			.split("\n")
			.map((line) => (JSON.parse(line) as CallerSaw).result),
	);
	const { misbehaviour } = processes;
	if (quiet && misbehaviour.length === 0 && verdict.findings.length === 0)
		rmSync(folder, { recursive: true });
	return { ...verdict, quiet, misbehaviour, callersSaw };
}

function mustBeExact(rolled: Awaited<ReturnType<typeof roll>>): void {
	expect(rolled).toMatchObject({
		findings: [],
		lost: 0,
		phantom: 0,
		doubles: 0,
		inDoubt: 0,
		unfinished: 0,
		misbehaviour: [],
		quiet: true,
	});
	expect(new Set(rolled.callersSaw)).toEqual(new Set(["ok"]));
	expect(rolled.callersSaw.length).toBeGreaterThanOrEqual(BETWEEN * 6);
	expect(rolled.groups).toEqual({ completed: rolled.transactions });
}

describe("coordinators join, leave and are started again under load", () => {
	test("on one SQLite file: no caller notices, nothing is lost, doubled, or waits for a lease", async () => {
		mustBeExact(await roll(SQLITE, (folder) => new CoordinatorFile(folder)));
	});

	withServer(mongodb, "on one MongoDB", (url) => {
		test("on one MongoDB: no caller notices, nothing is lost, doubled, or waits for a lease", async () => {
			const own = ownDatabase(url);
			cleanups.push(() => dropDatabase(own));
			mustBeExact(await roll(own, () => new CoordinatorDatabase(own)));
		});
	});
});
