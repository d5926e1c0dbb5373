import { describe, expect, test } from "@jest/globals";

import type { Group, TimelineEntry } from "../../admin-ui/src/lib/api/types.ts";
import { inOrder, layOut } from "../../admin-ui/src/lib/lanes.ts";

const START = 1_000_000;
const GROUP = "g";

/** `at` in milliseconds after prepare; versions count up. */
function history(
	...steps: [at: number, message: string | null, event: string, to: string | null][]
): TimelineEntry[] {
	return steps.map(([at, message, event, to], version) => ({
		group: GROUP,
		message,
		at: START + at,
		version,
		place: 0,
		event,
		from: null,
		to,
		by: "test",
		why: null,
		data: null,
	}));
}

function group(state: Group["state"], timeline: TimelineEntry[]): Group {
	return {
		id: GROUP,
		state,
		createdAt: START,
		stateAt: START,
		messages: [{ id: "g.0" }],
		timeline,
	} as unknown as Group;
}

const statesOf = (picture: ReturnType<typeof layOut>, lane: number) =>
	picture.lanes[lane]?.segments.map(({ state, ms }) => [state, ms]);

describe("the lanes of a group", () => {
	test("show each state as long as it lasted, a retry too", () => {
		const picture = layOut(
			group(
				"completed",
				history(
					[0, null, "prepare", "prepared"],
					[10, null, "commit", "committed"],
					[12, "g.0", "sent", "delivering"],
					[40, "g.0", "attempt failed", "pending"],
					[1_040, "g.0", "sent", "delivering"],
					[1_060, "g.0", "consumed", "consumed"],
					[1_060, null, "complete", "completed"],
				),
			),
			START + 99_999,
		);
		expect(statesOf(picture, 0)).toEqual([
			["prepared", 10],
			["committed", 1_050],
		]);
		expect(statesOf(picture, 1)).toEqual([
			["held", 10],
			["pending", 2],
			["delivering", 28],
			["pending", 1_000],
			["delivering", 20],
		]);
		expect(picture.lanes[1]?.marks.map(({ entry }) => entry.event)).toEqual([
			"sent",
			"attempt failed",
			"sent",
			"consumed",
		]);
	});

	test("go on to now while the group is open", () => {
		const picture = layOut(
			group("prepared", history([0, null, "prepare", "prepared"])),
			START + 5_000,
		);
		expect(statesOf(picture, 0)).toEqual([["prepared", 5_000]]);
		expect(statesOf(picture, 1)).toEqual([["held", 5_000]]);
	});

	test("a rollback discards what was held, a contradiction brings it back", () => {
		const picture = layOut(
			group(
				"inDoubt",
				history(
					[0, null, "prepare", "prepared"],
					[10, null, "rollback", "rolledBack"],
					[50, null, "conflict", "inDoubt"],
				),
			),
			START + 80,
		);
		expect(statesOf(picture, 1)).toEqual([
			["held", 10],
			["discarded", 40],
			["held", 30],
		]);
	});

	test("places never leave the picture, and a short step stays visible beside a long one", () => {
		const picture = layOut(
			group(
				"inDoubt",
				history(
					[0, null, "prepare", "prepared"],
					[3, null, "check", "prepared"],
					[86_400_000, null, "doubt", "inDoubt"],
				),
			),
			START + 86_400_500,
		);
		const lane = picture.lanes[0];
		for (const { from, to } of lane?.segments ?? []) {
			expect(from).toBeGreaterThanOrEqual(0);
			expect(to).toBeLessThanOrEqual(1);
			expect(to - from).toBeGreaterThan(0.02);
		}
		expect(picture.ticks[0]).toEqual({ at: 0, ms: 0 });
		expect(picture.ticks.at(-1)?.at).toBeLessThanOrEqual(1);
	});

	test("a history of one moment is a picture too", () => {
		const picture = layOut(
			group("rolledBack", history([0, null, "rollback", "rolledBack"])),
			START,
		);
		expect(picture.lanes).toHaveLength(2);
		expect(picture.lanes.flatMap(({ segments }) => segments)).toEqual([]);
	});
});

test("a history is told by version and place, whatever the clocks say", () => {
	const [first, second] = history([5, null, "a", null], [1, null, "b", null]);
	expect(
		inOrder([second as TimelineEntry, first as TimelineEntry]).map(({ event }) => event),
	).toEqual(["a", "b"]);
});
