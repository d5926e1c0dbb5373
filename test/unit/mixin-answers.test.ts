import { afterEach, describe, expect, test } from "@jest/globals";
import {
	memoryParticipantStore,
	type ParticipantStore,
} from "../../adapters/participant-store/index.ts";
import {
	ReliableMessage,
	type ResolvedAs,
	type UnresolvedGroup,
} from "../../mixins/reliable-message/index.ts";
import {
	type AskAnswer,
	type CheckAnswer,
	type FenceAnswer,
	newGroupId,
	type Owner,
	systemClock,
	systemRandom,
} from "../../protocol/index.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";
import {
	deferred,
	hang,
	type MixinNode,
	startNode,
	stopNodes,
	storeWith,
} from "../support/mixin-node.ts";

const GONE: Owner = { nodeID: "gone", instanceID: "gone" };
const MINUTE = 60_000;

afterEach(stopNodes);

type Resolve = (group: UnresolvedGroup) => ResolvedAs | Promise<ResolvedAs>;

async function userNode(
	store: ParticipantStore,
	resolveTransaction?: Resolve,
	clock = systemClock,
) {
	return startNode([
		{
			name: "user",
			mixins: [ReliableMessage({ store, clock })],
			...(resolveTransaction && { methods: { resolveTransaction } }),
		},
	]);
}

function memory() {
	return memoryParticipantStore({ clock: systemClock, random: systemRandom });
}

const newId = () => newGroupId(systemClock, systemRandom);

/** Leaves `started` in the store, as a process that died while its work ran. */
async function start(store: ParticipantStore, owner = GONE): Promise<string> {
	const id = newId();
	await store.open();
	const begun = deferred();
	void store.run({ id, owner, coordinator: "coordinator-1", timeout: 3_600_000 }, () => {
		begun.resolve();
		return hang();
	});
	await begun.promise;
	return id;
}

async function check(
	node: MixinNode,
	id: string,
	more: object = {},
): Promise<CheckAnswer | undefined> {
	const { storeId } = node.metadata("user");
	const item = { id, storeId, owner: GONE, ownerGoneMs: 0, createdAt: 5, messages: [], ...more };
	return (await node.ask<CheckAnswer>("user", "check", item))[0];
}

describe("R13 check", () => {
	test("R13 a group that nobody knows is fenced and rolled back; what stands is answered", async () => {
		const store = memory();
		const node = await userNode(store);
		const id = newId();
		expect(await check(node, id)).toEqual({ result: "rolledBack" });
		expect(await check(node, id)).toEqual({ result: "rolledBack" });
	});

	test("R3 R13 another store, a malformed item and an unreachable store are answered none, item by item", async () => {
		const store = storeWith({
			resolve: async () => {
				throw new Error("down");
			},
		});
		const node = await userNode(store);
		const { storeId } = node.metadata("user");
		const good = { id: newId(), storeId, owner: GONE, ownerGoneMs: 0, createdAt: 0 };
		const answers = await node.ask<CheckAnswer>(
			"user",
			"check",
			null,
			{ ...good, storeId: "other" },
			{ ...good, id: "x" },
			good,
		);
		expect(answers.map(({ result }) => result)).toEqual(["none", "none", "none", "none"]);
		expect(answers[3]?.why).toContain("down");
	});
});

describe("R15 started, and the owner is gone", () => {
	test("R15 without resolveTransaction: unknown", async () => {
		const store = memory();
		const id = await start(store);
		const node = await userNode(store);
		expect(await check(node, id, { ownerGoneMs: 10 * MINUTE })).toMatchObject({
			result: "unknown",
		});
	});

	test("R15 resolveTransaction answering committed counts at once, and is stored", async () => {
		const store = memory();
		const id = await start(store);
		const asked: UnresolvedGroup[] = [];
		const node = await userNode(store, (group) => {
			asked.push(group);
			return "committed";
		});
		const messages = [{ target: "auth", type: "grant", content: '{"a":1}' }];
		expect(await check(node, id, { messages })).toEqual({ result: "committed" });
		expect(asked).toEqual([
			{ id, createdAt: 5, messages: [{ target: "auth", type: "grant", payload: { a: 1 } }] },
		]);
		expect(await store.resolve([id])).toEqual([{ result: "committed" }]);
	});

	test("R15 rolledBack counts only when the owner has been gone for five minutes", async () => {
		const store = memory();
		const id = await start(store);
		const node = await userNode(store, () => "rolledBack");
		expect(await check(node, id, { ownerGoneMs: null })).toMatchObject({ result: "unknown" });
		expect(await check(node, id, { ownerGoneMs: 5 * MINUTE - 1 })).toMatchObject({
			result: "unknown",
		});
		expect((await store.resolve([id]))[0]?.result).toBe("started");
		expect(await check(node, id, { ownerGoneMs: 5 * MINUTE })).toEqual({
			result: "rolledBack",
		});
		expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
	});

	test("R15 rolledBack counts at once when the owner is this very process, which does not know it", async () => {
		const store = memory();
		const node = await userNode(store, () => "rolledBack");
		const { nodeID, instanceID } = node.broker;
		const id = await start(store, { nodeID, instanceID });
		expect(await check(node, id, { ownerGoneMs: null })).toEqual({ result: "rolledBack" });
	});

	test("R15 a method that throws, hangs or answers nonsense: unknown", async () => {
		const clock = new ManualClock();
		const store = memory();
		const ids = [await start(store), await start(store), await start(store)];
		const answers: Resolve[] = [
			() => {
				throw new Error("broken");
			},
			() => "perhaps" as never,
			() => hang(),
		];
		const node = await userNode(
			store,
			(group) => answers[ids.indexOf(group.id)]?.(group) ?? "unknown",
			clock,
		);
		expect(await check(node, ids[0] as string)).toEqual({
			result: "unknown",
			why: "resolveTransaction failed: broken",
		});
		expect(await check(node, ids[1] as string)).toMatchObject({ result: "unknown" });
		const hanging = check(node, ids[2] as string);
		await settle();
		await clock.advance(2_500);
		expect(await hanging).toMatchObject({ result: "unknown" });
	});

	test("R15 an outcome that came in between stands", async () => {
		const store = memory();
		const id = await start(store);
		const node = await userNode(store, async (): Promise<ResolvedAs> => {
			await store.force(id, "rolledBack");
			return "committed";
		});
		expect(await check(node, id)).toEqual({ result: "rolledBack" });
	});
});

describe("R23 ask", () => {
	async function authNode(handler: () => unknown, definition: object = {}) {
		// Stands still: a handler is never too slow to be reported with the answer.
		const clock = new ManualClock(Date.now());
		const node = await startNode([
			{
				name: "auth",
				mixins: [ReliableMessage({ store: "memory:", concurrency: 1, clock })],
				messages: { t: { handler, ...definition } },
			},
		]);
		const { storeId } = node.metadata("auth");
		const ask = async (id: unknown, attempt = 1) => {
			const item = { id, storeId, type: "t", attempt, revision: 0 };
			return (await node.ask<AskAnswer>("auth", "ask", item))[0];
		};
		const fence = async (id: unknown, minRevision: number) =>
			(await node.ask<FenceAnswer>("auth", "fence", { id, storeId, minRevision }))[0];
		return { node, ask, fence, envelope: node.envelope("auth", "t", {}) };
	}

	test("R23 unseen, running, queued, consumed", async () => {
		const work = deferred();
		const { node, ask, envelope } = await authNode(() => work.promise);
		expect(await ask(envelope.id)).toEqual({ result: "unseen" });
		const queued = node.envelope("auth", "t", {});
		const consumed = node.consume("auth", envelope, queued);
		await settle();
		expect(await ask(envelope.id)).toEqual({ result: "running" });
		expect(await ask(queued.id)).toEqual({ result: "running" });
		work.resolve();
		await consumed;
		expect(await ask(envelope.id)).toEqual({ result: "consumed", revision: 0 });
	});

	test("R23 a failure brings its report; one of an earlier attempt leaves this one unseen", async () => {
		const { node, ask, envelope } = await authNode(() => {
			throw new Error("no");
		});
		await node.consume("auth", envelope);
		expect(await ask(envelope.id)).toMatchObject({
			result: "failed",
			report: { id: envelope.id, result: "failed", attempt: 1, error: { message: "no" } },
		});
		expect(await ask(envelope.id, 2)).toEqual({ result: "unseen" });
	});

	test("R22 a failure that is asked about brings the policy of its type, as its report would", async () => {
		const retryPolicy = { retries: 1, delay: 7, factor: 3, maxDelay: 9 };
		const { node, ask, envelope } = await authNode(
			() => {
				throw new Error("no");
			},
			{ retryPolicy },
		);
		// The report is answered with the call, as to a coordinator that died before it stored it.
		await node.consume("auth", envelope);
		expect(await ask(envelope.id)).toMatchObject({
			result: "failed",
			report: { attempt: 1, policy: retryPolicy },
		});
	});

	test("R3 R23 another store, a malformed item: none", async () => {
		const { node, ask } = await authNode(() => 1);
		expect(await ask("x")).toEqual({ result: "none" });
		const other = {
			id: node.envelope("auth", "t", {}).id,
			storeId: "other",
			attempt: 1,
			revision: 0,
		};
		expect(await node.ask<AskAnswer>("auth", "ask", other, null)).toEqual([
			{ result: "none" },
			{ result: "none" },
		]);
	});

	test("R27 fence: unseen and queued copies never run, a running one is busy, a consumed one says so", async () => {
		const work = deferred();
		let runs = 0;
		const { node, fence, envelope } = await authNode(() => {
			runs++;
			return work.promise;
		});
		const [queued, unseen] = [node.envelope("auth", "t", {}), node.envelope("auth", "t", {})];
		const consuming = node.consume("auth", envelope, queued);
		await settle();
		expect(await fence(envelope.id, 1)).toEqual({ result: "busy" });
		expect(await fence(queued.id, 1)).toEqual({ result: "fenced" });
		expect(await fence(unseen.id, 1)).toEqual({ result: "fenced" });
		expect(await fence("x", 1)).toEqual({ result: "none" });
		work.resolve();
		expect(await consuming).toMatchObject([{ result: "reported" }, { result: "accepted" }]);
		expect(await fence(envelope.id, 1)).toEqual({ result: "consumed", revision: 0 });
		const refused = { result: "failed", error: { code: "LOTTOR_FENCED", retryable: false } };
		expect(await node.consume("auth", queued, unseen)).toMatchObject([
			{ result: "reported", report: refused },
			{ result: "reported", report: refused },
		]);
		expect(runs).toBe(1);
		expect(await node.consume("auth", { ...queued, revision: 1 })).toMatchObject([
			{ report: { result: "consumed", revision: 1 } },
		]);
	});

	test("status tells what runs and what this service is", async () => {
		const { node } = await authNode(() => 1);
		expect(await node.ask("auth", "status", {})).toEqual([
			{
				service: "auth",
				roles: ["producer", "consumer"],
				serializer: expect.any(String),
				transporter: null,
				version: expect.any(String),
				moleculer: "0.15.2",
				running: 0,
				queued: 0,
				unconfirmed: 0,
				unreported: 0,
				confirmsUnknown: 0,
			},
		]);
	});
});
