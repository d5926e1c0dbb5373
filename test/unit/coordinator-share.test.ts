import { describe, expect, test } from "@jest/globals";

import { Lane } from "../../services/coordinator/lane.ts";
import { slotsOf } from "../../services/coordinator/share.ts";

const owner = (n: number) => ({ nodeID: `lottor-${n}`, instanceID: `start-${n}` });
const owners = (count: number) => Array.from({ length: count }, (_, n) => owner(n));

describe("the slots of several coordinators", () => {
	test.each([1, 2, 3, 5, 8])("are each somebody's, and nobody's twice, among %i", (count) => {
		const living = owners(count);
		const all = living.flatMap((self) => slotsOf(self, living));
		expect([...all].sort((a, b) => a - b)).toEqual(Array.from({ length: 256 }, (_, n) => n));
		for (const self of living) {
			const part = slotsOf(self, living).length / 256;
			expect(part).toBeGreaterThan(0.5 / count);
			expect(part).toBeLessThan(1.6 / count);
		}
	});

	test("stay where they are when another one leaves", () => {
		const before = owners(4);
		const after = before.slice(1);
		for (const self of after) {
			expect(slotsOf(self, after)).toEqual(expect.arrayContaining(slotsOf(self, before)));
		}
	});

	test("do not depend on the order in which a coordinator sees the others", () => {
		const living = owners(5);
		const [self] = living;
		expect(self && slotsOf(self, living.toReversed())).toEqual(self && slotsOf(self, living));
	});
});

describe("a lane", () => {
	test("runs one pass at a time, and one more for all who asked meanwhile", async () => {
		const passes: (() => void)[] = [];
		const lane = new Lane(() => new Promise<void>((resolve) => passes.push(resolve)));
		const first = lane.go();
		expect(passes).toHaveLength(1);
		const others = [lane.go(), lane.go()];
		passes[0]?.();
		await new Promise(setImmediate);
		expect(passes).toHaveLength(2);
		passes[1]?.();
		await Promise.all([first, ...others]);
		expect(passes).toHaveLength(2);
	});

	test("is idle after the pass under way, whatever was asked for", async () => {
		const passes: (() => void)[] = [];
		const lane = new Lane(() => new Promise<void>((resolve) => passes.push(resolve)));
		void lane.go();
		void lane.go();
		const idle = lane.idle();
		passes[0]?.();
		await idle;
		expect(passes).toHaveLength(1);
	});
});
