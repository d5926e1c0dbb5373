import { describe, expect, test } from "@jest/globals";
import { ALL_BUGS, checkBug, checkModel } from "../model/model.ts";

describe("model of the protocol", () => {
	test("PROTOCOL 8: one message, step by step: no state breaks an invariant, every run can end", () => {
		const [explored] = checkModel("step by step");
		expect(explored?.violation).toBeUndefined();
		expect(explored?.states).toBeGreaterThan(50_000);
		expect(explored?.ends).toBeGreaterThan(0);
	}, 120_000);

	test.each(ALL_BUGS)("a protocol with the mistake %s is found to be wrong", (bug) => {
		const { violation } = checkBug(bug);
		expect(violation).toBeDefined();
		expect(violation?.trace.length).toBeGreaterThan(5);
	});
});
