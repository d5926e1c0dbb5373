import { rmSync } from "node:fs";

import { beforeAll, describe, expect, it } from "@jest/globals";

import { runCommand, type Told } from "../support/command.ts";
import type { Memory } from "./overload/memory.ts";

const COMMAND = new URL("./overload/index.ts", import.meta.url);
const SECONDS = 15;
const LIMIT_MS = 600_000;
/** MiB; what waited at the collapse that this looks for was some hundreds. */
const MOST_GROWTH = 64;
/** MiB that are no leak. */
const MOST_LEAKED = 8;

describe("twice the sustainable rate", () => {
	let run: Told;

	beforeAll(async () => {
		run = await runCommand(COMMAND, ["--seconds", String(SECONDS), "--seed", "1"]);
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

	it("holds no process's memory up with what waits", () => {
		for (const { heapGrowth, rssGrowth, leaked } of Object.values(
			run.result["memory"] as Record<string, Memory>,
		)) {
			expect(heapGrowth).toBeLessThan(MOST_GROWTH);
			expect(rssGrowth).toBeLessThan(MOST_GROWTH * 2);
			expect(leaked).toBeLessThan(MOST_LEAKED);
		}
	});
});
