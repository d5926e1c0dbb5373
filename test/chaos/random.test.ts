import { rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";

import { FIGURES } from "../support/check.ts";
import { runCommand, type Told } from "../support/command.ts";
import { compare } from "./random/ledger.ts";
import { plan, victimsOf } from "./random/plan.ts";
import { CONSUMERS, COORDINATORS, type ServerName } from "./random/words.ts";

const COMMAND = new URL("./random/index.ts", import.meta.url);
/** Its schedule has a kill of each kind of process, a paused coordinator and all else but a blackout. */
const SEED = "138";
const SECONDS = 12;
const LIMIT_MS = 300_000;
/** What every run is to have, however short. */
const PROMISED = ["kill", "pause", "cut", "blackhole", "latency", "fullDisk"];
const SERVERS: readonly ServerName[] = ["broker", "store"];
/** And what befalls each server, and the ways to it. */
const OF_SERVERS = SERVERS.flatMap((server) => [
	server,
	`cut ${server}`,
	`blackhole ${server}`,
	`latency ${server}`,
]);

describe("random chaos", () => {
	let run: Told;

	beforeAll(async () => {
		run = await runCommand(COMMAND, ["--seconds", String(SECONDS), "--seed", SEED, "--keep"]);
	}, LIMIT_MS);

	afterAll(() => {
		if (run.result["ok"] === true) rmSync(run.folder, { recursive: true });
	});

	it("loses nothing, invents nothing, does nothing twice and finishes everything", () => {
		const { result, told } = run;
		if (result["ok"] !== true) console.error(told);

		expect(result).toMatchObject({
			seed: SEED,
			lost: 0,
			phantom: 0,
			doubles: 0,
			inDoubt: 0,
			unfinished: 0,
			misbehaviour: 0,
			ok: true,
		});
		for (const figure of FIGURES) expect(typeof result[figure]).toBe("number");
		expect(result["transactions"]).toBeGreaterThan(50);
		expect(result["crashes"]).toBeGreaterThanOrEqual(3);
		expect(Object.keys(result["faults"] as object)).toEqual(expect.arrayContaining(PROMISED));
	});

	it("has every kind of fault in the shortest run, that of servers too", () => {
		for (let seed = 0; seed < 100; seed++) {
			const schedule = plan(String(seed), 10, "transactional", SERVERS);
			const kinds = schedule.map(({ kind }) => kind);
			expect(kinds).toEqual(expect.arrayContaining([...PROMISED, ...OF_SERVERS]));
		}
	});

	it("cuts one process off from a server, or all that use it", () => {
		const schedule = plan("a", 600, "transactional", SERVERS);
		for (const server of SERVERS) {
			const clients = victimsOf(`cut ${server}`, SERVERS).length;
			const struck = schedule.flatMap((fault) =>
				"peer" in fault && fault.peer === server ? [fault.nodes.length] : [],
			);
			expect(new Set(struck)).toEqual(new Set([1, clients]));
		}
	});

	it("breaks no disk of a coordinator whose store is a server: it has none", () => {
		const struck = (servers: readonly ServerName[]) =>
			plan("a", 600, "transactional", servers).filter(
				(fault) =>
					(fault.kind === "fullDisk" || fault.kind === "ioError") &&
					COORDINATORS.includes(fault.node),
			);
		expect(struck([])).not.toEqual([]);
		expect(struck(["broker"])).not.toEqual([]);
		expect(struck(["store"])).toEqual([]);
		expect(victimsOf("fullDisk", ["store"])).toEqual(["p1", "p2", "p3", "c1", "c2", "c3"]);
	});

	it("has the same schedule for the same seed, and another for another", () => {
		expect(plan("a", 60, "transactional")).toEqual(plan("a", 60, "transactional"));
		expect(plan("a", 60, "transactional")).not.toEqual(plan("b", 60, "transactional"));
	});

	it("sees an effect that is lost, one that is doubled and one without its transaction", async () => {
		const { folder } = run;
		expect(await compare(folder, new Set())).toMatchObject({ lost: 0, phantom: 0, doubles: 0 });
		const [first, second] = CONSUMERS.map(
			(name) => new DatabaseSync(join(folder, `${name}.db`)),
		);
		const one = "(SELECT max(rowid) FROM effects)";
		first?.exec(`INSERT INTO effects SELECT * FROM effects WHERE rowid = ${one}`);
		second?.exec(`DELETE FROM effects WHERE rowid = ${one}`);
		second?.exec("INSERT INTO effects VALUES ('nobody.0', 'nobody', 'c1 1')");
		first?.close();
		second?.close();

		const verdict = await compare(folder, new Set());
		expect(verdict).toMatchObject({ lost: 1, phantom: 1, doubles: 1, unexplained: 1 });
	});
});
