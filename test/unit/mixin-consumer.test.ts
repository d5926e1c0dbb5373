import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { type Context, Errors } from "moleculer";
import {
	type ConsumeResult,
	memoryParticipantStore,
	type ParticipantStore,
} from "../../adapters/participant-store/index.ts";
import type { SqliteTx } from "../../adapters/sqlite/index.ts";
import {
	type IncomingMessage,
	type MessagesSchema,
	ReliableMessage,
	type ReliableMessageOptions,
} from "../../mixins/reliable-message/index.ts";
import {
	type AskAnswer,
	type ConsumeAnswer,
	type FenceAnswer,
	FENCED_ALL,
	STACK_LIMIT,
	systemRandom,
} from "../../protocol/index.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";
import { deferred, hang, startNode, stopNodes, storeWith } from "../support/mixin-node.ts";
import { scriptedCoordinator, until } from "../support/scripted-coordinator.ts";

const DAY = 86_400_000;

afterEach(stopNodes);

function authNode(
	messages: MessagesSchema,
	options: Partial<ReliableMessageOptions> = {},
	coordinator = scriptedCoordinator(),
) {
	// Time stands still: a handler is never too slow to be reported with the answer.
	const clock = new ManualClock(Date.now());
	const mixin = ReliableMessage({ store: "memory:", clock, ...options });
	return startNode([{ name: "auth", mixins: [mixin], messages }], coordinator);
}

function failureOf(answers: readonly ConsumeAnswer[]) {
	const report = answers[0]?.result === "reported" ? answers[0].report : undefined;
	if (report?.result !== "failed") throw new Error(`no failure: ${JSON.stringify(answers)}`);
	return report;
}

describe("R28 consume", () => {
	test("R28 a handler's success and failure are both answers; a bad item does not harm the others", async () => {
		const node = await authNode({
			good: () => undefined,
			bad: () => {
				throw new Error("no");
			},
		});
		const good = node.envelope("auth", "good", {});
		const bad = node.envelope("auth", "bad", {});
		expect(await node.consume("auth", good, null, bad, { v: 1 })).toMatchObject([
			{
				result: "reported",
				report: {
					result: "consumed",
					id: good.id,
					receipt: "receipt",
					storeId: node.metadata("auth").storeId,
					attempt: 1,
					revision: 0,
				},
			},
			{ result: "refused", error: { code: "LOTTOR_INVALID_REQUEST", retryable: false } },
			{ result: "reported", report: { result: "failed", id: bad.id } },
			{ result: "refused", error: { code: "LOTTOR_INVALID_REQUEST" } },
		]);
	});

	test("R28 the action is public, for coordinators of other nodes, and not published", async () => {
		const node = await authNode({ t: () => undefined });
		const actions = node.broker.registry.getActionList({ withEndpoints: false }) as unknown as {
			name: string;
			action: { visibility: string; cache: unknown };
		}[];
		const own = actions.filter(({ name }) => name.startsWith("auth.reliable."));
		expect(own).toHaveLength(5);
		for (const { action } of own)
			expect(action).toMatchObject({ visibility: "public", cache: false });
	});

	test.each([
		["v", 2],
		["id", "x"],
		["group", "0".repeat(26)],
		["target", "other"],
		["type", ""],
		["attempt", "1"],
		["revision", -1],
		["sentAt", null],
		["content", {}],
		["receipt", undefined],
	])("LOTTOR_INVALID_REQUEST: an envelope with a wrong %s is refused", async (field, value) => {
		const node = await authNode({ t: () => undefined });
		const answers = await node.consume("auth", {
			...node.envelope("auth", "t", {}),
			[field]: value,
		});
		expect(answers).toMatchObject([
			{ result: "refused", error: { code: "LOTTOR_INVALID_REQUEST" } },
		]);
	});

	test("R3 LOTTOR_STORE_MISMATCH: a message bound to another store is refused", async () => {
		const node = await authNode({ t: () => undefined });
		const envelope = node.envelope("auth", "t", {}, { storeId: "other" });
		expect(await node.consume("auth", envelope)).toMatchObject([
			{ result: "refused", error: { code: "LOTTOR_STORE_MISMATCH", retryable: false } },
		]);
	});

	test("R4 a service answers for its full name and for its aliases", async () => {
		const node = await authNode({ t: () => undefined }, { aliases: ["old-auth"] });
		const own = node.envelope("auth", "t", {});
		const alias = { ...node.envelope("auth", "t", {}), target: "old-auth" };
		const answers = await node.consume("auth", own, alias);
		expect(answers.map(({ result }) => result)).toEqual(["reported", "reported"]);
	});

	test("R34 a copy older than half the keep time is not run but reported expired", async () => {
		let runs = 0;
		const node = await authNode({ t: () => void runs++ });
		const old = node.envelope("auth", "t", {}, { sentAt: Date.now() - 3.5 * DAY - 60_000 });
		const fresh = node.envelope("auth", "t", {}, { sentAt: Date.now() - 3.4 * DAY });
		expect(await node.consume("auth", old, fresh)).toMatchObject([
			{ result: "reported", report: { result: "expired", id: old.id } },
			{ result: "reported", report: { result: "consumed" } },
		]);
		expect(runs).toBe(1);
	});

	test("a handler that outlives the call is accepted, and reports through lottor.report", async () => {
		const clock = new ManualClock(Date.now());
		const work = deferred();
		const node = await authNode({ t: () => work.promise }, { clock });
		const envelope = node.envelope("auth", "t", {});
		const answering = node.consume("auth", envelope);
		await settle();
		await clock.advance(50);
		expect(await answering).toEqual([{ result: "accepted" }]);
		work.resolve();
		await until(() => node.coordinator.reported.length === 1);
		expect(node.coordinator.reported).toMatchObject([{ result: "consumed", id: envelope.id }]);
	});

	test("a second copy of a message that is queued or running here is accepted and not run twice", async () => {
		const clock = new ManualClock(Date.now());
		const work = deferred();
		let runs = 0;
		const node = await authNode(
			{
				t: () => {
					runs++;
					return work.promise;
				},
			},
			{ clock, concurrency: 1 },
		);
		const [one, two] = [node.envelope("auth", "t", {}), node.envelope("auth", "t", {})];
		const first = node.consume("auth", one, two);
		await settle();
		expect(await node.consume("auth", one, two)).toEqual([
			{ result: "accepted" },
			{ result: "accepted" },
		]);
		expect(await node.ask("auth", "status", {})).toMatchObject([{ running: 1, queued: 1 }]);
		work.resolve();
		expect(await first).toMatchObject([{ result: "reported" }, { result: "reported" }]);
		expect(runs).toBe(2);
		expect(await node.consume("auth", one)).toMatchObject([{ report: { result: "consumed" } }]);
		expect(runs).toBe(2);
	});

	test("types with a limit of their own do not wait for the others; above maxQueued sends are refused: LOTTOR_CONSUMER_BUSY", async () => {
		const clock = new ManualClock(Date.now());
		const seen: string[] = [];
		const node = await authNode(
			{
				slow: () => {
					seen.push("slow");
					return hang();
				},
				own: { concurrency: 2, handler: () => void seen.push("own") },
			},
			{ clock, concurrency: 1, maxQueued: 2 },
		);
		const slow = () => node.envelope("auth", "slow", {});
		const first = node.consume("auth", slow(), slow(), slow(), slow());
		await settle();
		await clock.advance(50);
		expect(
			(await first).map((answer) => ("error" in answer ? answer.error.code : answer.result)),
		).toEqual(["accepted", "accepted", "accepted", "LOTTOR_CONSUMER_BUSY"]);
		expect(seen).toEqual(["slow"]);
		expect(await node.ask("auth", "status", {})).toMatchObject([{ running: 1, queued: 2 }]);
	});

	test("the store's word on copies: busy ones are dropped, failed ones reported again", async () => {
		let result: ConsumeResult = { result: "busy" };
		const overrides: Partial<ParticipantStore> = {
			consume: async () => result,
			look: async () => [
				{
					result: "failed",
					attempt: 1,
					revision: 0,
					error: { code: "X", message: "before", retryable: true },
				},
			],
		};
		const node = await authNode({ t: () => undefined }, { store: storeWith(overrides) });
		const send = () => node.consume("auth", node.envelope("auth", "t", {}));
		expect(await send()).toEqual([{ result: "accepted" }]);
		result = { result: "unknown", error: new Error("commit lost") };
		expect(await send()).toEqual([{ result: "accepted" }]);
		result = { result: "duplicate", revision: 4 };
		expect(await send()).toMatchObject([{ report: { result: "consumed", revision: 4 } }]);
		result = { result: "stale" };
		expect(await send()).toMatchObject([
			{ report: { result: "failed", error: { message: "before" } } },
		]);
		overrides.look = async () => [
			{ result: "running", owner: { nodeID: "other", instanceID: "x" } },
		];
		expect(await send()).toEqual([{ result: "accepted" }]);
	});

	test("R27 LOTTOR_FENCED: a copy below a fence fails for good, even when its fencer crashed before storing it", async () => {
		const node = await authNode({ t: () => undefined });
		const envelope = node.envelope("auth", "t", {});
		const item = { id: envelope.id, storeId: envelope.storeId, minRevision: FENCED_ALL };
		expect(await node.ask("auth", "fence", item)).toEqual([{ result: "fenced" }]);
		expect(await node.consume("auth", envelope)).toMatchObject([
			{ report: { result: "failed", error: { code: "LOTTOR_FENCED", retryable: false } } },
		]);
	});

	test("a failure that cannot be stored is not reported: the coordinator will ask", async () => {
		const store = storeWith({
			fail: async () => {
				throw new Error("store down");
			},
		});
		const bad = () => {
			throw new Error("no");
		};
		const node = await authNode({ bad }, { store });
		expect(await node.consume("auth", node.envelope("auth", "bad", {}))).toEqual([
			{ result: "accepted" },
		]);
		expect(node.coordinator.reported).toEqual([]);
	});
});

describe("the handler's context", () => {
	test("it is a Context with the payload, the producer's meta, request id, tracing and the message", async () => {
		const seen: Context<unknown, object>[] = [];
		const node = await authNode({
			t: (ctx: Context) => {
				seen.push(ctx);
			},
		});
		const context = {
			requestID: "r-1",
			parentID: "p-1",
			level: 3,
			tracing: true,
			caller: "api",
			meta: { user: "ada" },
		};
		const envelope = node.envelope("auth", "t", { a: 1 }, { context: JSON.stringify(context) });
		await node.consume(
			"auth",
			envelope,
			node.envelope("auth", "t", 7, { context: "{nonsense" }),
		);
		expect(seen[0]).toBeInstanceOf(node.broker.ContextFactory);
		expect(seen[0]).toMatchObject({
			params: { a: 1 },
			meta: { user: "ada" },
			requestID: "r-1",
			parentID: "p-1",
			level: 4,
			tracing: true,
			caller: "api",
		});
		expect(seen[0]?.locals["message"]).toEqual({
			id: envelope.id,
			group: envelope.group,
			type: "t",
			source: "user",
			attempt: 1,
			revision: 0,
			createdAt: envelope.createdAt,
			orderingKey: null,
		});
		expect(seen[1]).toMatchObject({ params: 7, meta: {}, level: 1, caller: "user" });
	});

	test("calls out of a handler carry meta and caller", async () => {
		const seen: unknown[] = [];
		const node = await authNode({ t: (ctx: Context) => ctx.call("other.run") });
		node.broker.createService({
			name: "other",
			actions: {
				run: (ctx: Context) => void seen.push(ctx.meta, ctx.caller, ctx.level),
			},
		});
		await node.broker.waitForServices("other", 5_000, 10);
		const context = JSON.stringify({ level: 2, meta: { user: "ada" } });
		await node.consume("auth", node.envelope("auth", "t", {}, { context }));
		expect(seen).toEqual([{ user: "ada" }, "auth", 4]);
	});

	test("spans and counters where Moleculer has them on", async () => {
		const spans: string[] = [];
		const clock = new ManualClock(Date.now());
		const mixin = ReliableMessage({ store: "memory:", clock });
		const messages = { t: (ctx: Context) => void spans.push(ctx.span?.name ?? "none") };
		const node = await startNode(
			[
				{ name: "auth", mixins: [mixin], messages },
				{ name: "user", mixins: [mixin] },
			],
			undefined,
			{ tracing: true, metrics: true },
		);
		await node.consume("auth", node.envelope("auth", "t", {}));
		await node
			.reliable("user")
			.transaction(null, [{ target: "auth", type: "t", payload: {} }], () => 1);
		expect(spans).toEqual(["message 'auth.t'"]);
		const counted = (name: string) => node.broker.metrics.getMetric(name)?.snapshot();
		expect(counted("moleculer.lottor.message.total")).toMatchObject([
			{ value: 1, labels: { service: "auth", type: "t", result: "consumed" } },
		]);
		expect(counted("moleculer.lottor.transaction.total")).toMatchObject([
			{ value: 1, labels: { service: "user", result: "committed" } },
		]);
	});
});

describe("failures", () => {
	test("LOTTOR_HANDLER_MISSING is retryable: a newer version of the service may have it", async () => {
		const node = await authNode({ t: () => undefined });
		const answers = await node.consume("auth", node.envelope("auth", "other", {}));
		expect(failureOf(answers).error).toMatchObject({
			code: "LOTTOR_HANDLER_MISSING",
			retryable: true,
		});
	});

	test("validation: params and payloads that are no JSON are not retryable", async () => {
		let runs = 0;
		const definition = {
			params: { user: "string", age: "number|optional" },
			handler: () => void runs++,
		};
		const node = await authNode({ t: definition });
		const wrong = failureOf(
			await node.consume("auth", node.envelope("auth", "t", { user: 7 })),
		);
		expect(wrong.error).toMatchObject({ code: "VALIDATION_ERROR", retryable: false });
		expect(wrong.error.message).toContain("user");
		const broken = node.envelope("auth", "t", {}, { content: "{" });
		expect(failureOf(await node.consume("auth", broken)).error).toMatchObject({
			code: "LOTTOR_INVALID_PAYLOAD",
			retryable: false,
		});
		await node.consume("auth", node.envelope("auth", "t", { user: "ada" }));
		expect(runs).toBe(1);
	});

	test("a consumed message stays consumed, though the service would refuse it today", async () => {
		const store = memoryParticipantStore({
			clock: new ManualClock(Date.now()),
			random: systemRandom,
		});
		const first = await authNode({ t: () => undefined }, { store });
		const envelope = first.envelope("auth", "t", { user: 7 });
		await first.consume("auth", envelope);
		await stopNodes();
		const second = await authNode(
			{ t: { params: { user: "string" }, handler: () => 1 } },
			{ store },
		);
		expect(await second.consume("auth", envelope)).toMatchObject([
			{ result: "reported", report: { result: "consumed" } },
		]);
	});

	test("LOTTOR_HANDLER_FAILED: what is thrown need not be an Error", async () => {
		const node = await authNode({
			t: () => {
				// eslint-disable-next-line @typescript-eslint/only-throw-error
				throw "just text";
			},
		});
		const { error } = failureOf(await node.consume("auth", node.envelope("auth", "t", {})));
		expect(error).toMatchObject({ code: "LOTTOR_HANDLER_FAILED", retryable: true });
		expect(error.message).toContain("just text");
	});

	test.each<[string, Error, string, boolean]>([
		["a plain error", new TypeError("x"), "TypeError", true],
		["its code", Object.assign(new Error("x"), { code: "ECONNREFUSED" }), "ECONNREFUSED", true],
		["Moleculer's", new Errors.MoleculerError("x", 500, "MY_TYPE"), "MY_TYPE", false],
		["a retryable one", new Errors.MoleculerRetryableError("x", 503, "LATER"), "LATER", true],
		["a client's", new Errors.MoleculerClientError("x", 400), "400", false],
		["validation", new Errors.ValidationError("x"), "VALIDATION_ERROR", false],
	])("%s: its code and whether it is retried", async (_, thrown, code, retryable) => {
		const node = await authNode({
			t: () => {
				throw thrown;
			},
		});
		const { error } = failureOf(await node.consume("auth", node.envelope("auth", "t", {})));
		expect(error).toMatchObject({ code, message: "x", retryable });
		expect(error.stack).toContain("x");
	});

	test("stacks are cut, and the type's retry policy travels with the report", async () => {
		const long = Object.assign(new Error("m".repeat(9_000)), { stack: "s".repeat(9_000) });
		const fail = () => {
			throw long;
		};
		const retryPolicy = { retries: 5, delay: "2s", factor: 3, maxDelay: "1m" };
		const node = await authNode({
			own: { retryPolicy, handler: fail },
			off: { retryPolicy: { enabled: false }, handler: fail },
			check: { retryPolicy: { check: (error) => error !== long }, handler: fail },
			none: fail,
		});
		const report = async (type: string) =>
			failureOf(await node.consume("auth", node.envelope("auth", type, {})));
		const own = await report("own");
		expect(own.policy).toEqual({ retries: 5, delay: 2_000, factor: 3, maxDelay: 60_000 });
		expect(own.error.stack).toHaveLength(STACK_LIMIT);
		expect(own.error.message.length).toBeLessThan(9_000);
		expect((await report("off")).policy).toEqual({
			retries: 0,
			delay: 1_000,
			factor: 2,
			maxDelay: 300_000,
		});
		expect((await report("check")).error.retryable).toBe(false);
		expect((await report("none")).policy).toBeUndefined();
	});

	test("R35 LOTTOR_HANDLER_TIMEOUT on a recorded store: failed, and no retry here until the handler settles", async () => {
		const clock = new ManualClock(Date.now());
		const work = deferred();
		const node = await authNode(
			{ t: { timeout: "1s", handler: () => work.promise } },
			{ clock },
		);
		const envelope = node.envelope("auth", "t", {});
		const first = node.consume("auth", envelope);
		await settle();
		await clock.advance(1_000);
		expect(await first).toEqual([{ result: "accepted" }]);
		await until(() => node.coordinator.reported.length === 1);
		expect(node.coordinator.reported).toMatchObject([
			{ result: "failed", error: { code: "LOTTOR_HANDLER_TIMEOUT", retryable: true } },
		]);
		const retry = { ...envelope, attempt: 2 };
		expect(await node.consume("auth", retry)).toMatchObject([
			{ result: "refused", error: { code: "LOTTOR_FENCE_BUSY", retryable: true } },
		]);
		const storeId = node.metadata("auth").storeId;
		const ask = { id: envelope.id, storeId, attempt: 2, revision: 0 };
		expect(await node.ask<AskAnswer>("auth", "ask", ask)).toEqual([{ result: "running" }]);
		expect(
			await node.ask<FenceAnswer>("auth", "fence", {
				id: envelope.id,
				storeId,
				minRevision: 1,
			}),
		).toEqual([{ result: "busy" }]);
		work.resolve();
		await settle();
		expect(await node.consume("auth", retry)).toMatchObject([
			{ report: { result: "consumed" } },
		]);
	});
});

describe("on a transactional store", () => {
	let folder = "";
	beforeEach(() => {
		folder = mkdtempSync(join(tmpdir(), "lottor-mixin-"));
	});
	afterEach(async () => {
		await stopNodes();
		rmSync(folder, { recursive: true });
	});
	const sqliteNode = (messages: MessagesSchema, options: Partial<ReliableMessageOptions> = {}) =>
		authNode(messages, { store: `sqlite:${join(folder, "auth.db")}`, ...options });

	test("R35 LOTTOR_HANDLER_TIMEOUT: the transaction is rolled back and refuses use, then failed is reported", async () => {
		const clock = new ManualClock(Date.now());
		let late: unknown;
		const go = deferred();
		const done = deferred();
		const node = await sqliteNode(
			{
				t: {
					timeout: "1s",
					async handler(ctx: Context, tx: SqliteTx) {
						if ((ctx.locals["message"] as IncomingMessage).attempt > 1) return;
						tx.run("CREATE TABLE effects (id)");
						await go.promise;
						try {
							tx.run("INSERT INTO effects VALUES (1)");
						} catch (error) {
							late = error;
						}
						done.resolve();
					},
				},
			},
			{ clock },
		);
		const envelope = node.envelope("auth", "t", {});
		const first = node.consume("auth", envelope);
		await settle();
		await clock.advance(1_000);
		expect(await first).toEqual([{ result: "accepted" }]);
		await until(() => node.coordinator.reported.length === 1);
		expect(node.coordinator.reported).toMatchObject([
			{ result: "failed", error: { code: "LOTTOR_HANDLER_TIMEOUT", retryable: true } },
		]);
		go.resolve();
		await done.promise;
		expect(late).toMatchObject({ type: "LOTTOR_TX_CLOSED" });
		expect(await node.consume("auth", { ...envelope, attempt: 2 })).toMatchObject([
			{ report: { result: "consumed", attempt: 2 } },
		]);
	});

	test("effects of a handler that fails are undone; of one that succeeds they stand once", async () => {
		let fail = true;
		const counts: unknown[] = [];
		const node = await sqliteNode({
			t: {
				handler(_: Context, tx: SqliteTx) {
					tx.run("CREATE TABLE IF NOT EXISTS effects (id)");
					tx.run("INSERT INTO effects VALUES (1)");
					counts.push(tx.get("SELECT count(*) AS n FROM effects")?.["n"]);
					if (fail) throw new Error("no");
				},
			},
		});
		const envelope = node.envelope("auth", "t", {});
		expect(failureOf(await node.consume("auth", envelope)).error.message).toBe("no");
		fail = false;
		const again = { ...envelope, attempt: 2 };
		await node.consume("auth", again);
		expect(await node.consume("auth", again)).toMatchObject([
			{ report: { result: "consumed" } },
		]);
		expect(counts).toEqual([1, 1]);
	});
});

describe("reports", () => {
	async function late(node: Awaited<ReturnType<typeof authNode>>, clock: ManualClock) {
		const answering = node.consume("auth", node.envelope("auth", "t", {}));
		await settle();
		await clock.advance(50);
		expect(await answering).toEqual([{ result: "accepted" }]);
	}

	test("a report that cannot be sent is kept and sent again, then its row is settled", async () => {
		const clock = new ManualClock(Date.now());
		const store = memoryParticipantStore({ clock, random: systemRandom });
		const coordinator = scriptedCoordinator();
		let failures = 2;
		coordinator.report = () => {
			if (failures-- > 0) throw new Error("down");
			return { result: "ok" };
		};
		const work = deferred();
		const node = await authNode({ t: () => work.promise }, { clock, store }, coordinator);
		await late(node, clock);
		work.resolve();
		for (let i = 0; i < 10; i++) await clock.advance(200);
		await node.reliable("auth").flushed();
		expect(coordinator.reported).toHaveLength(3);
		await clock.advance(1_000);
		expect(await store.unsettled(-1, 10)).toEqual([]);
	});

	test("R5 a report that is refused is not repeated", async () => {
		const clock = new ManualClock(Date.now());
		const coordinator = scriptedCoordinator();
		const error = { code: "LOTTOR_RECEIPT_INVALID", message: "no", retryable: false };
		coordinator.report = () => ({ result: "invalid", error });
		const work = deferred();
		const node = await authNode({ t: () => work.promise }, { clock }, coordinator);
		await late(node, clock);
		work.resolve();
		await node.reliable("auth").flushed();
		await clock.advance(200_000);
		expect(coordinator.reported).toHaveLength(1);
	});

	test("a report that travelled with its answer is settled when the coordinator says so", async () => {
		const clock = new ManualClock(Date.now());
		const store = memoryParticipantStore({ clock, random: systemRandom });
		const node = await authNode({ t: () => undefined }, { clock, store });
		const envelope = node.envelope("auth", "t", {});
		await node.consume("auth", envelope);
		expect(await store.unsettled(-1, 10)).toHaveLength(1);
		await node.broker.call("auth.reliable.consume", {
			items: [],
			settled: [{ id: envelope.id, attempt: 1 }],
		});
		await clock.advance(1_000);
		expect(await store.unsettled(-1, 10)).toEqual([]);
		expect(node.coordinator.reported).toEqual([]);
	});

	test("else it is reported again a minute later", async () => {
		const clock = new ManualClock(Date.now());
		const store = memoryParticipantStore({ clock, random: systemRandom });
		const node = await authNode({ t: () => undefined }, { clock, store });
		await node.consume("auth", node.envelope("auth", "t", {}));
		await clock.advance(80_000);
		const reported = node.coordinator.reported;
		expect(reported).toMatchObject([{ result: "consumed", receipt: "receipt", attempt: 1 }]);
		await clock.advance(200_000);
		expect(node.coordinator.reported).toHaveLength(1);
	});
});
