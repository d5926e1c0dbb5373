import { mkdtempSync, rmSync } from "node:fs";
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
import { Recovery } from "./random/recovery.ts";
import { settled } from "./random/settled.ts";
import {
	CHECK_AFTER_MS,
	HEARTBEAT_TIMEOUT_S,
	type NodeName,
	NODES,
	type Peer,
	SQLITE,
} from "./random/words.ts";

jest.setTimeout(600_000);

const BAR_MS = 15_000;
const SETTLE_MS = 120_000;
/** Longer than `ackTimeout`: what a coordinator has sent is its work, too. */
const UNDER_WAY_MS = 30_000;
const PRODUCERS: readonly NodeName[] = ["p1", "p2", "p3"];
const CALLERS = 8;
/** Longer than it takes until others go on with a killed coordinator's work. */
const PAUSED_MS = 25_000;

let folder: string;
let network: Network<Peer>;
let processes: Processes;
let data: CoordinatorData;

/** Coordinators with the times that a user has, but for the first check-back. */
async function start(store: string, nodes: readonly NodeName[] = NODES): Promise<void> {
	folder = mkdtempSync(join(tmpdir(), "lottor-recovery-"));
	network = new Network<Peer>();
	processes = new Processes({
		nodes,
		calm: true,
		coordinator: { checkAfter: CHECK_AFTER_MS },
		heartbeatTimeout: HEARTBEAT_TIMEOUT_S,
		folder,
		guarantee: "transactional",
		delivery: "direct",
		store,
		seed: "recovery",
		network,
		tell: () => undefined,
	});
	await processes.start();
	data = store === SQLITE ? new CoordinatorFile(folder) : new CoordinatorDatabase(store);
}

afterEach(async () => {
	await data.close();
	await processes.clear();
	network.close();
	rmSync(folder, { recursive: true });
});

function press(callers: number): void {
	for (const name of PRODUCERS) processes.command(name, { do: "press", callers });
}

async function groups(): Promise<number> {
	return Object.values(await data.states()).reduce((sum, count) => sum + count, 0);
}

/**
 * Kills the process under load, again and again until it leaves something behind, and starts it
 * again if `again`, since others can't do its work.
 *
 * @returns how long what it left waited, at the most; milliseconds
 */
async function longestWait(name: NodeName, again: boolean): Promise<number> {
	for (;;) {
		const recovery = new Recovery(processes, data, UNDER_WAY_MS);
		const before = await groups();
		press(CALLERS);
		await until(async () => (await groups()) > before + 100);
		await processes.crash(name);
		await recovery.killed(name);
		if (again) await processes.start([name]);
		press(0);
		expect(await settled(data, SETTLE_MS)).toBe(true);
		const times = await recovery.stop();
		if (!again) await processes.start([name]);
		const longest = times.at(-1);
		if (longest !== undefined) return longest;
	}
}

/** All that was committed took effect once, and nothing else did. */
async function mustBeExact(): Promise<void> {
	await processes.stop();
	expect(await compare(folder, processes.harmed, data)).toMatchObject({
		findings: [],
		lost: 0,
		phantom: 0,
		doubles: 0,
		inDoubt: 0,
		unfinished: 0,
	});
}

describe("recovery bars", () => {
	test("the work of a killed coordinator goes on at another one within 15 s", async () => {
		await start(SQLITE);
		expect(await longestWait("k1", false)).toBeLessThanOrEqual(BAR_MS);
		await mustBeExact();
	});

	test("the group of a killed producer is decided within 15 s of checkAfter", async () => {
		await start(SQLITE);
		expect(await longestWait("p1", true)).toBeLessThanOrEqual(BAR_MS);
		await mustBeExact();
	});

	withServer(mongodb, "a paused coordinator on MongoDB", (server) => {
		test("a paused coordinator is no excuse on MongoDB, where it holds no lock", async () => {
			const store = ownDatabase(server);
			try {
				await start(store, [...NODES, "k3"]);
				const paused = processes.pause("k3", PAUSED_MS);
				expect(processes.isPaused("k3")).toBe(true);
				const longest = await longestWait("k1", false);
				// The time would stand still if it were one.
				expect(longest).toBeGreaterThan(0);
				expect(longest).toBeLessThanOrEqual(BAR_MS);
				await paused;
				await mustBeExact();
			} finally {
				await dropDatabase(store);
			}
		});
	});
});
