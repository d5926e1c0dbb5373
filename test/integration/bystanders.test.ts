import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, describe, expect, test } from "@jest/globals";

import { slotOf, sqliteCoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import type { Envelope, PrepareMessage, Report } from "../../protocol/index.ts";
import { reportOf, scripted, TestCoordinator } from "../support/coordinator.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { until } from "../support/until.ts";

const MIB = 1_024 * 1_024;

let lottor: TestCoordinator;
/** Ends what hangs, so that the coordinator's stop need not wait for it. */
const ends: (() => void)[] = [];
afterEach(async () => {
	for (const end of ends.splice(0)) end();
	await lottor.stop();
});

/** Answers nothing, as long as the test runs. */
const never = () =>
	new Promise<never>((_, reject) => ends.push(() => reject(new Error("the test is over"))));
const payload = (bytes: number) => JSON.stringify("x".repeat(bytes - 2));

/** Commits so many groups of one message, one after the other. @returns their ids */
async function committed(
	count: number,
	target = "auth",
	message: Partial<PrepareMessage> = {},
): Promise<string[]> {
	const ids: string[] = [];
	for (let n = 0; n < count; n++) {
		ids.push(await lottor.prepare([{ target, ...message }]));
		await lottor.commit(ids[n] as string);
	}
	return ids;
}

/** @returns the id of a group whose slot is such a one */
function newId(suits: (slot: number) => boolean): string {
	let id = lottor.newId();
	while (!suits(slotOf(id))) id = lottor.newId();
	return id;
}

async function states(ids: readonly string[]): Promise<Set<string>> {
	const groups = await Promise.all(ids.map((id) => lottor.group(id)));
	return new Set(groups.map(({ state }) => state));
}

describe("nobody is held up by", () => {
	test("a poison message, which fails at every attempt", async () => {
		const auth = scripted("auth");
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, envelope.type === "poison" ? { delay: 100 } : undefined),
		});
		lottor = await TestCoordinator.start({ maxInFlight: 2 }, auth.schema);
		const poison = await lottor.prepare([{ type: "poison" }, { type: "poison" }]);
		await lottor.commit(poison);
		expect(await states(await committed(10))).toEqual(new Set(["completed"]));
		await lottor.due(60_000);
		expect(await states(await committed(10))).toEqual(new Set(["completed"]));
		expect((await lottor.message(poison)).attempts).toBeGreaterThan(1);
	});

	test("a message that its target neither takes nor refuses", async () => {
		const auth = scripted("auth");
		auth.consume = (envelope) =>
			envelope.type === "poison"
				? never()
				: { result: "reported", report: reportOf(envelope) };
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = lottor.prepare([{ type: "poison" }]);
		await lottor.call("commit", { items: [{ id: await id, storeId: "store-user" }] });
		await until(() => auth.consumed.length === 1);
		expect(await states(await committed(10))).toEqual(new Set(["completed"]));
	});

	test("a target that answers no call, while more waits for it than it may have at once", async () => {
		const hung = scripted("hung");
		hung.consume = never;
		hung.ask = never;
		lottor = await TestCoordinator.start(
			{ maxInFlight: 4, claimLimit: 3 },
			hung.schema,
			scripted("auth").schema,
		);
		await committed(20, "hung");
		expect(await states(await committed(10))).toEqual(new Set(["completed"]));
		// When it is to be asked, and the questions stay unanswered, too.
		await lottor.clock.advance(11_000);
		await until(() => hung.asked.length > 0);
		const id = await lottor.prepare([{}]);
		await lottor.call("commit", { items: [{ id, storeId: "store-user" }] });
		await until(async () => (await lottor.group(id)).state === "completed");
	});

	test("a plain target that answers no call, which is called no more often than it may have at once", async () => {
		let calls = 0;
		let hangs = true;
		const release: (() => void)[] = [];
		const plain = {
			name: "plain",
			actions: {
				t(): Promise<void> | undefined {
					calls++;
					return hangs ? new Promise((resolve) => release.push(resolve)) : undefined;
				},
			},
		};
		const options = { maxInFlight: 4, callTimeout: "1h" };
		lottor = await TestCoordinator.start(options, plain, scripted("auth").schema);
		// By one commit, which finds that there was room, and by others after it.
		const wide = await lottor.prepare(
			Array.from({ length: 10 }, () => ({ target: "plain", deliver: "action" as const })),
		);
		await lottor.commit(wide);
		const ids = [wide, ...(await committed(10, "plain", { deliver: "action" }))];
		await lottor.due(30_000);
		expect(calls).toBe(4);
		expect(await states(await committed(10))).toEqual(new Set(["completed"]));
		hangs = false;
		for (const end of release) end();
		await until(async () => {
			await lottor.due();
			const left = await states(ids);
			return left.size === 1 && left.has("completed");
		});
		expect(calls).toBe(20);
	});

	test("a target that does not live, while much waits for it", async () => {
		lottor = await TestCoordinator.start({ claimLimit: 3 }, scripted("auth").schema);
		const waiting = await committed(20, "gone");
		expect(await states(await committed(10))).toEqual(new Set(["completed"]));
		expect(await states(waiting)).toEqual(new Set(["committed"]));
	});

	test("a group of 8 MiB, one of 3,000 messages, and what they have under way", async () => {
		const slow = scripted("slow");
		slow.consume = () => ({ result: "accepted" });
		lottor = await TestCoordinator.start(
			{ maxMessages: 3_000, maxGroup: 9 * MIB },
			slow.schema,
			scripted("auth").schema,
		);
		const content = payload(MIB / 2);
		const heavy = await lottor.prepare(
			Array.from({ length: 16 }, () => ({ target: "slow", content })),
		);
		const wide = await lottor.prepare(
			Array.from({ length: 3_000 }, () => ({ target: "slow" })),
			{ id: newId((slot) => slot < 64) },
		);
		await lottor.commit(heavy);
		await lottor.commit(wide);
		expect(await states(await committed(10))).toEqual(new Set(["completed"]));

		// To the same target, and later by its slot, too: it comes in its turn, not after all of them.
		const small = await lottor.prepare([{ target: "slow" }], {
			id: newId((slot) => slot >= 192),
		});
		await lottor.commit(small);
		const reported = new Set<string>();
		while ((await lottor.group(small)).state !== "completed") {
			const batch = slow.consumed.filter(({ id }) => !reported.has(id)).slice(0, 128);
			for (const { id } of batch) reported.add(id);
			const items = batch.map((envelope: Envelope): Report => reportOf(envelope));
			await lottor.call("report", { items });
			await lottor.due();
		}
		expect(reported.size).toBeLessThan(1_000);
		expect((await lottor.group(wide)).state).toBe("committed");
	}, 120_000);
});

test("what is claimed at once fits in memory, however large the groups are", async () => {
	const clock = new ManualClock();
	const auth = scripted("auth");
	const folder = mkdtempSync(join(tmpdir(), "lottor-"));
	ends.push(() => rmSync(folder, { recursive: true }));
	const store = sqliteCoordinatorStore({ file: join(folder, "lottor.db"), clock });
	const claim = store.claim.bind(store);
	const brought: number[] = [];
	store.claim = async (request) => {
		const claimed = await claim(request);
		const bytes = claimed
			.flatMap(({ payloads }) => payloads)
			.map(({ content }) => content.length);
		if (bytes.length > 0) brought.push(bytes.reduce((sum, one) => sum + one, 0));
		return claimed;
	};
	lottor = await TestCoordinator.start({ store, clock }, auth.schema);
	const message = { content: payload(MIB / 2), delay: 1_000 };
	for (let n = 0; n < 40; n++) {
		await lottor.commit(await lottor.prepare([message, message, message, message]));
	}
	await clock.advance(1_000);
	await lottor.due();
	await until(() => auth.consumed.length === 160);
	// Nobody knows before the first claim; those after it take what fits in 16 MiB.
	expect(Math.max(...brought.slice(1)) / MIB).toBeLessThanOrEqual(16.1);
	expect(brought[0]).toBeLessThanOrEqual(20.1 * MIB);
}, 60_000);
