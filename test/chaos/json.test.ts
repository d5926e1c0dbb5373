import { describe, expect, jest, test } from "@jest/globals";

import { FIGURES } from "../support/check.ts";
import { runCommand } from "../support/command.ts";

jest.setTimeout(120_000);

const MODEL = new URL("../model/index.ts", import.meta.url);
const MATRIX = new URL("./matrix/index.ts", import.meta.url);
const CHAOS = new URL("./random/index.ts", import.meta.url);
const OVERLOAD = new URL("./overload/index.ts", import.meta.url);
const ALL = { model: MODEL, "test:matrix": MATRIX, chaos: CHAOS, overload: OVERLOAD };

/** Nothing can be written here, so that no run can be made. */
const NOWHERE = { TMPDIR: "/dev/null" };

function mustTellThatItFailed(result: Readonly<Record<string, unknown>>): void {
	expect(result["ok"]).toBe(false);
	expect(typeof result["error"]).toBe("string");
	for (const figure of FIGURES) expect(result).toHaveProperty(figure, null);
}

describe("every --json prints one object as its last line, with the same figures", () => {
	test("what the figures are", () => {
		expect(FIGURES).toEqual([
			"transactions",
			"points",
			"crashes",
			"lost",
			"phantom",
			"doubles",
		]);
	});

	test("model", async () => {
		const { result } = await runCommand(MODEL, ["--only", "step by step", "--no-bugs"]);
		expect(result).toMatchObject({
			violations: 0,
			transactions: 1,
			lost: 0,
			phantom: 0,
			doubles: 0,
			ok: true,
		});
		// Who crashes, at what: the producer, both coordinators and both consumers among them.
		expect(result["points"]).toBeGreaterThanOrEqual(5);
		expect(result["crashes"]).toBeGreaterThan(10_000);
		expect(result["states"]).toBeGreaterThan(50_000);
	});

	test("test:matrix", async () => {
		const options = ["--most", "0", "--pairs", "0", "--only", "success"];
		const { result } = await runCommand(MATRIX, options);
		expect(result).toMatchObject({ lost: 0, phantom: 0, doubles: 0 });
		for (const figure of FIGURES) expect(typeof result[figure]).toBe("number");
	});

	test.each(Object.entries(ALL))("%s, with an option that it does not have", async (_, file) => {
		const { result, told } = await runCommand(file, ["--nonsense"]);
		mustTellThatItFailed(result);
		expect(told).toContain("npm run");
	});

	test.each([
		["chaos", CHAOS],
		["overload", OVERLOAD],
	])("%s, when the run can't be made", async (_, file) => {
		const { result, told } = await runCommand(file, [], NOWHERE);
		mustTellThatItFailed(result);
		expect(told).toContain("The run could not be made");
	});
});
