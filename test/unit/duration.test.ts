import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";

import { LottorError, toMs } from "../../protocol/index.ts";

function refusal(value: unknown): LottorError {
	try {
		toMs(value as string, "checks.checkAfter");
	} catch (error) {
		expect(error).toBeInstanceOf(LottorError);
		return error as LottorError;
	}
	throw new Error(`${String(value)} was taken`);
}

describe("durations", () => {
	it.each([
		[0, 0],
		[1_500, 1_500],
		[0.4, 0],
		[2.6, 3],
		["0", 0],
		["200ms", 200],
		["10s", 10_000],
		["1.5h", 5_400_000],
		["5m", 300_000],
		["7d", 604_800_000],
		["250", 250],
		[" 10 s ", 10_000],
	])("reads %p as %d ms", (value, ms) => {
		expect(toMs(value, "x")).toBe(ms);
	});

	it("takes a number of milliseconds as it is", () => {
		fc.assert(
			fc.property(fc.integer({ min: 0, max: 10 * 365 * 86_400_000 }), (ms) => {
				expect(toMs(ms, "x")).toBe(ms);
				expect(toMs(`${ms}ms`, "x")).toBe(ms);
			}),
		);
	});

	it.each([
		-1,
		Number.NaN,
		Number.POSITIVE_INFINITY,
		10 * 365 * 86_400_000 + 1,
		"",
		"-5s",
		"10 seconds",
		"1e3",
		"s",
		"1.s",
		"10S",
		"10s 5ms",
		"99999999d",
		"9".repeat(400),
		null,
		undefined,
		true,
		{},
		["10s"],
	])("LOTTOR_INVALID_OPTIONS: refuses %p, naming the field", (value) => {
		expect(refusal(value)).toMatchObject({
			type: "LOTTOR_INVALID_OPTIONS",
			data: { field: "checks.checkAfter" },
		});
		expect(refusal(value).message).toContain("checks.checkAfter");
	});

	it("refuses whatever it is given with that one error", () => {
		fc.assert(
			fc.property(fc.anything(), (value) => {
				fc.pre(typeof value !== "number" && typeof value !== "string");
				expect(refusal(value).type).toBe("LOTTOR_INVALID_OPTIONS");
			}),
		);
	});
});
