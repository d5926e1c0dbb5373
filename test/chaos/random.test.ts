import { rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";

import { runCommand, type Told } from "../support/command.ts";
import { compare } from "./random/ledger.ts";
import { plan } from "./random/plan.ts";
import { CONSUMERS } from "./random/words.ts";

const COMMAND = new URL("./random/index.ts", import.meta.url);
/** Its schedule has a kill of each kind of process, a paused coordinator and all else but a blackout. */
const SEED = "138";
const SECONDS = 12;
const LIMIT_MS = 300_000;
/** What every run is to have, however short. */
const PROMISED = ["kill", "pause", "cut", "blackhole", "latency", "fullDisk"];

describe("random chaos", () => {
	let run: Told;

	beforeAll(async () => {
		run = await runCommand(COMMAND, ["--seconds", String(SECONDS), "--seed", SEED]);
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
		expect(result["transactions"]).toBeGreaterThan(50);
		expect(result["crashes"]).toBeGreaterThanOrEqual(3);
		expect(Object.keys(result["faults"] as object)).toEqual(expect.arrayContaining(PROMISED));
	});

	it("has every kind of fault in the shortest run, that of servers too", () => {
		for (let seed = 0; seed < 100; seed++) {
			const schedule = plan(String(seed), 10, "transactional", ["broker", "store"]);
			const kinds = schedule.map(({ kind }) => kind);
			expect(kinds).toEqual(expect.arrayContaining([...PROMISED, "broker", "store"]));
		}
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
