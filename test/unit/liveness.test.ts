import { beforeEach, expect, it } from "@jest/globals";

import { Liveness } from "../../adapters/discoverer/liveness.ts";

const TIMEOUT = 4_000;
const PERIOD = 250;

let now: number;
let alive: Liveness;

beforeEach(() => {
	now = 1_000_000;
	alive = new Liveness(TIMEOUT, PERIOD, () => now);
	alive.heard("a");
});

/** Looks at the usual pace for so long. @returns who fell silent */
function lookFor(ms: number): string[] {
	const silent = new Set<string>();
	for (let passed = 0; passed < ms; passed += PERIOD) {
		now += PERIOD;
		for (const nodeID of alive.silent(["a"])) silent.add(nodeID);
	}
	return [...silent];
}

it("a node that is silent for longer than the time-out is told, not before", () => {
	expect(lookFor(TIMEOUT)).toEqual([]);
	expect(lookFor(PERIOD)).toEqual(["a"]);
});

it("a heartbeat begins the time-out anew", () => {
	lookFor(3_000);
	alive.beaten("a");
	expect(lookFor(TIMEOUT)).toEqual([]);
	expect(lookFor(PERIOD)).toEqual(["a"]);
});

it("a standstill of this process counts for no more than one look, however often it stands still", () => {
	for (let times = 0; times < 5; times++) {
		now += 60_000;
		expect(alive.silent(["a"])).toEqual([]);
	}
	expect(lookFor(TIMEOUT)).toEqual(["a"]);
});

it("what is told of an instance after its goodbye is from before it, until the time-out or a heartbeat", () => {
	alive.left("a", "first");
	expect([alive.hasLeft("a", "first"), alive.hasLeft("a", "second")]).toEqual([true, false]);
	alive.beaten("a");
	expect(alive.hasLeft("a", "first")).toBe(false);
	alive.left("a", "first");
	now += TIMEOUT + 1;
	expect(alive.hasLeft("a", "first")).toBe(false);
});
