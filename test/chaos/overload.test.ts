import { rmSync } from "node:fs";

import { beforeAll, describe, expect, it } from "@jest/globals";

import { FIGURES } from "../support/check.ts";
import { runCommand, type Told } from "../support/command.ts";
import { growths, type Memory } from "./overload/memory.ts";

const COMMAND = new URL("./overload/index.ts", import.meta.url);
const SECONDS = 15;
const LIMIT_MS = 600_000;
const RECOVERY_BAR_S = 10;

describe("twice the sustainable rate", () => {
	let run: Told;

	beforeAll(async () => {
		run = await runCommand(COMMAND, ["--seconds", String(SECONDS), "--seed", "1", "--keep"]);
		if (run.folder !== "" && run.result["lost"] === 0) rmSync(run.folder, { recursive: true });
	}, LIMIT_MS);

	it("loses nothing, invents nothing, does nothing twice and finishes what it took", () => {
		expect(run.result).toMatchObject({
			lost: 0,
			phantom: 0,
			doubles: 0,
			inDoubt: 0,
			unfinished: 0,
			misbehaviour: 0,
		});
	});

	it("refuses what is too much with errors that say 'try again'", () => {
		expect(run.result["unexpected"]).toBe(0);
	});

	it("goes on with most of what is not too much, and with all once it is over", () => {
		const { sustainable, committed, effects, after } = run.result["rates"] as Record<
			"sustainable" | "committed" | "effects" | "after",
			number
		>;
		// Far below what was measured: other work on the machine changes the rates by some factor.
		expect(committed).toBeGreaterThan(sustainable / 5);
		expect(effects).toBeGreaterThan(sustainable / 5);
		expect(after).toBeGreaterThan(sustainable / 5);
	});

	it("is at full speed again within 10 s", () => {
		expect(run.result["recoverySeconds"]).toBeLessThanOrEqual(RECOVERY_BAR_S);
	});

	it("holds no process's memory up with what waits: it is flat", () => {
		expect(growths(run.result["memory"] as Record<string, Memory>)).toEqual([]);
		expect(run.result["flat"]).toBe(true);
	});

	it("tells what every check tells", () => {
		for (const figure of FIGURES) expect(typeof run.result[figure]).toBe("number");
	});
});
