import { describe, expect, test } from "@jest/globals";
import { Prepares, type Tried } from "../../mixins/reliable-message/prepares.ts";
import type { Coordinator } from "../../mixins/reliable-message/registry.ts";
import type { PrepareAnswer, PrepareItem } from "../../protocol/index.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";

const DEADLINE_MS = 5_000;

function item(id: string, bytes = 2): PrepareItem {
	return {
		id,
		source: "user",
		storeId: "store-user",
		guarantee: "transactional",
		owner: { nodeID: "n", instanceID: "i" },
		messages: [{ target: "auth", type: "t", content: "x".repeat(bytes) }],
	};
}

interface Call {
	readonly at: string;
	readonly ids: readonly string[];
	/** Answers all items. */
	readonly answer: (refused?: string) => Promise<void>;
	readonly fail: () => Promise<void>;
}

/** Coordinators whose answers the test gives. */
function stage(...nodes: string[]) {
	const clock = new ManualClock();
	const calls: Call[] = [];
	const hung = new Set<string>();
	const prepares = new Prepares({
		clock,
		pick(_storeId, takes) {
			const living = nodes.map((nodeID): Coordinator => ({
				nodeID,
				local: false,
				storeId: "k",
			}));
			if (living.length === 0) return "none lives";
			const trusted = living.filter(({ nodeID }) => !hung.has(nodeID));
			return trusted.find(takes) ?? "none takes more";
		},
		call({ nodeID }, items) {
			return new Promise((resolve, reject) => {
				const answer = (refused?: string) => {
					resolve(items.map(({ id }) => answerOf(id, refused)));
					return settle();
				};
				const fail = () => {
					reject(new Error("no answer"));
					return settle();
				};
				calls.push({ at: nodeID, ids: items.map(({ id }) => id), answer, fail });
			});
		},
	});
	const deadline = clock.now() + DEADLINE_MS;
	const once = (id: string, bytes?: number) =>
		prepares.once(item(id, bytes), deadline, DEADLINE_MS);
	const many = (count: number, name = "g") =>
		Array.from({ length: count }, (_, place) => once(`${name}${place}`));
	return { clock, calls, hung, once, many };
}

function answerOf(id: string, refused?: string): PrepareAnswer {
	if (refused !== undefined) {
		const error = { code: refused, message: "", retryable: true };
		return { result: "refused", error };
	}
	return { result: "prepared", id, state: "prepared", coordinator: "k" };
}

async function states(tries: readonly Promise<Tried>[]): Promise<Record<string, number>> {
	const counts: Record<string, number> = {};
	for (const { result } of await Promise.all(tries)) {
		counts[result.state] = (counts[result.state] ?? 0) + 1;
	}
	return counts;
}

const sizes = (calls: readonly Call[]) => calls.map(({ ids }) => ids.length);

describe("prepares on their way", () => {
	test("what a coordinator is not known to answer in time waits, and leaves once others are answered", async () => {
		const { calls, many } = stage("a");
		const tries = many(250);
		await settle();
		expect(sizes(calls)).toEqual([100]);
		await calls[0]?.answer();
		// Answered at once, so that twice as many may go.
		expect(sizes(calls)).toEqual([100, 150]);
		await calls[1]?.answer();
		expect(await states(tries)).toEqual({ answered: 250 });
	});

	test("slow answers and LOTTOR_OVERLOADED let fewer go, down to a few", async () => {
		const { clock, calls, many } = stage("a");
		void many(500);
		await settle();
		const seen: number[] = [];
		for (const how of ["slow", "refused", "slow", "refused"]) {
			await clock.advance(how === "slow" ? 400 : 300);
			const call = calls.at(-1);
			await call?.answer(how === "refused" ? "LOTTOR_OVERLOADED" : undefined);
			seen.push(calls.at(-1)?.ids.length ?? 0);
		}
		expect(seen).toEqual([50, 25, 16, 16]);
	});

	test("LOTTOR_OVERLOADED: what waits for half of its time while others are answered never leaves", async () => {
		const { clock, calls, many } = stage("a");
		const tries = many(400);
		await settle();
		for (let round = 0; round < 10; round++) {
			await clock.advance(400);
			await calls.at(-1)?.answer();
		}
		const counts = await states(tries);
		expect(Object.keys(counts).toSorted()).toEqual(["answered", "overloaded"]);
		const left = sizes(calls).reduce((sum, size) => sum + size, 0);
		expect(left).toBe(counts["answered"]);
	});

	test("waiting for a coordinator that hangs is nobody's fault: others take over", async () => {
		const { clock, calls, hung, many } = stage("a", "b");
		const tries = many(150);
		await settle();
		expect(calls.map(({ at, ids }) => [at, ids.length])).toEqual([
			["a", 100],
			["b", 50],
		]);
		const more = many(100, "more");
		await settle();
		expect(sizes(calls)).toEqual([100, 50, 50]);
		await clock.advance(3_000);
		hung.add("a");
		await calls[0]?.fail();
		await calls[1]?.answer();
		await calls[2]?.answer();
		await calls[3]?.answer();
		expect(await states(tries)).toEqual({ failed: 100, answered: 50 });
		expect(await states(more)).toEqual({ answered: 100 });
	});

	test("no more than a bound waits in memory, by number and by bytes", async () => {
		const crowd = stage("a");
		const tries = crowd.many(10_001);
		expect((await tries[10_000])?.result).toEqual({ state: "overloaded" });

		const heavy = stage("a");
		const large = ["a", "b", "c", "d"].map((id) => heavy.once(id, 20_000_000));
		expect((await large[3])?.result).toEqual({ state: "overloaded" });
		await settle();
		// One that is larger than what may be under way goes alone.
		expect(sizes(heavy.calls)).toEqual([1]);
	});

	test("what never left by its deadline was not tried anywhere", async () => {
		const { clock, calls, many } = stage("a");
		const tries = many(101);
		await settle();
		await clock.advance(DEADLINE_MS);
		expect(calls).toHaveLength(1);
		expect(await states(tries)).toEqual({ failed: 100, overloaded: 1 });
	});
});
