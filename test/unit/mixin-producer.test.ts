import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "@jest/globals";
import { Context } from "moleculer";
import type { ParticipantStore, RunResult } from "../../adapters/participant-store/index.ts";
import {
	ReliableMessage,
	type ReliableMessageOptions,
} from "../../mixins/reliable-message/index.ts";
import {
	type CallContext,
	type CheckAnswer,
	isGroupId,
	LottorError,
	type PrepareItem,
} from "../../protocol/index.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";
import {
	deferred,
	type MixinNode,
	startNode,
	stopNodes,
	storeWith,
} from "../support/mixin-node.ts";
import { scriptedCoordinator, until } from "../support/scripted-coordinator.ts";

const MESSAGE = { target: "auth", type: "grant", payload: { user: "ada" } };
const folders: string[] = [];

afterEach(async () => {
	await stopNodes();
	for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function userNode(
	options: Partial<ReliableMessageOptions> = {},
	coordinator = scriptedCoordinator(),
) {
	const mixin = ReliableMessage({ store: "memory:", ...options });
	return startNode([{ name: "user", mixins: [mixin] }], coordinator);
}

function sqlite(): string {
	const folder = mkdtempSync(join(tmpdir(), "lottor-mixin-"));
	folders.push(folder);
	return `sqlite:${join(folder, "user.db")}`;
}

function storeThatRuns(result: RunResult<never>): ParticipantStore {
	return storeWith({ run: async () => result });
}

async function failure(
	promise: Promise<unknown>,
): Promise<{ type: string; data: { field: string } }> {
	return promise.then(
		() => {
			throw new Error("it did not fail");
		},
		(error: unknown) => error as never,
	);
}

function check(node: MixinNode, group: PrepareItem, more: object = {}): Promise<CheckAnswer[]> {
	const { id, storeId, owner } = group;
	return node.ask("user", "check", {
		id,
		storeId,
		owner,
		ownerGoneMs: null,
		createdAt: 0,
		...more,
	});
}

describe("what is refused before anything happens", () => {
	const cycle: Record<string, unknown> = {};
	cycle["self"] = { cycle };
	const deep: unknown[] = [];
	for (let i = 0, at = deep; i < 300; i++) {
		const next: unknown[] = [];
		at.push(next);
		at = next;
	}
	const cases: [string, unknown, string, string][] = [
		["no array", MESSAGE, "LOTTOR_INVALID_REQUEST", "messages"],
		["no message", [], "LOTTOR_INVALID_REQUEST", "messages"],
		["null", [null], "LOTTOR_INVALID_REQUEST", "messages[0]"],
		[
			"no target",
			[MESSAGE, { ...MESSAGE, target: "" }],
			"LOTTOR_INVALID_REQUEST",
			"messages[1].target",
		],
		["no type", [{ ...MESSAGE, type: 7 }], "LOTTOR_INVALID_REQUEST", "messages[0].type"],
		[
			"wrong delay",
			[{ ...MESSAGE, delay: "soon" }],
			"LOTTOR_INVALID_REQUEST",
			"messages[0].delay",
		],
		[
			"wrong maxAttempts",
			[{ ...MESSAGE, maxAttempts: 0 }],
			"LOTTOR_INVALID_REQUEST",
			"messages[0].maxAttempts",
		],
		[
			"wrong orderingKey",
			[{ ...MESSAGE, orderingKey: 1 }],
			"LOTTOR_INVALID_REQUEST",
			"messages[0].orderingKey",
		],
		[
			"wrong deliver",
			[{ ...MESSAGE, deliver: "call" }],
			"LOTTOR_INVALID_REQUEST",
			"messages[0].deliver",
		],
		[
			"unknown field",
			[{ ...MESSAGE, payloads: 1 }],
			"LOTTOR_INVALID_REQUEST",
			"messages[0].payloads",
		],
		[
			"no payload",
			[{ target: "a", type: "b" }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload",
		],
		[
			"a date",
			[{ ...MESSAGE, payload: { at: new Date() } }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload.at",
		],
		[
			"a buffer",
			[{ ...MESSAGE, payload: Buffer.from("x") }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload",
		],
		[
			"a map",
			[{ ...MESSAGE, payload: [new Map()] }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload[0]",
		],
		[
			"a bigint",
			[{ ...MESSAGE, payload: { n: 1n } }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload.n",
		],
		[
			"NaN",
			[{ ...MESSAGE, payload: Number.NaN }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload",
		],
		[
			"a function",
			[{ ...MESSAGE, payload: { f() {} } }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload.f",
		],
		[
			"a hole",
			[{ ...MESSAGE, payload: [1, undefined] }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload[1]",
		],
		[
			"a cycle",
			[{ ...MESSAGE, payload: cycle }],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload.self.cycle",
		],
		[
			"a getter that throws",
			[
				{
					...MESSAGE,
					payload: {
						get x() {
							throw new Error("no");
						},
					},
				},
			],
			"LOTTOR_INVALID_PAYLOAD",
			"messages[0].payload",
		],
		[
			"too large",
			[{ ...MESSAGE, payload: "é".repeat(600_000) }],
			"LOTTOR_PAYLOAD_TOO_LARGE",
			"messages[0].payload",
		],
		[
			"a group too large",
			Array.from({ length: 20 }, () => ({ ...MESSAGE, payload: "x".repeat(500_000) })),
			"LOTTOR_PAYLOAD_TOO_LARGE",
			"messages",
		],
		[
			"too many",
			Array.from({ length: 1_001 }, () => MESSAGE),
			"LOTTOR_TOO_MANY_MESSAGES",
			"messages",
		],
	];
	test.each(cases)(
		"%s: LOTTOR_INVALID_REQUEST, LOTTOR_INVALID_PAYLOAD, LOTTOR_PAYLOAD_TOO_LARGE or LOTTOR_TOO_MANY_MESSAGES",
		async (_, messages, type, field) => {
			const node = await userNode();
			const { transaction } = node.reliable("user");
			let ran = false;
			const error = await failure(
				transaction(null, messages as never, async () => {
					ran = true;
				}),
			);
			expect(error).toMatchObject({ type, data: { field } });
			expect([ran, node.coordinator.prepared]).toEqual([false, []]);
		},
	);

	test("nesting deeper than 200 levels: LOTTOR_INVALID_PAYLOAD", async () => {
		const node = await userNode();
		const sent = node
			.reliable("user")
			.transaction(null, [{ ...MESSAGE, payload: { deep } }], () => 1);
		expect(await failure(sent)).toMatchObject({ type: "LOTTOR_INVALID_PAYLOAD" });
	});

	test.each([
		["ctx", [[], () => 1]],
		["ctx", [{}, [MESSAGE], () => 1]],
		["work", [null, [MESSAGE], "work"]],
		["options", [null, [MESSAGE], () => 1, 7]],
		["options.key", [null, [MESSAGE], () => 1, { key: "x" }]],
		["options.idempotencyKey", [null, [MESSAGE], () => 1, { idempotencyKey: "" }]],
		["options.timeout", [null, [MESSAGE], () => 1, { timeout: 0 }]],
		["options.checkAfter", [null, [MESSAGE], () => 1, { checkAfter: "x" }]],
	])("a wrong argument: LOTTOR_INVALID_REQUEST names %s", async (field, args) => {
		const node = await userNode();
		const { transaction } = node.reliable("user");
		const error = await failure(
			(transaction as (...given: unknown[]) => Promise<unknown>)(...args),
		);
		expect(error).toMatchObject({ type: "LOTTOR_INVALID_REQUEST", data: { field } });
		expect(node.coordinator.prepared).toEqual([]);
	});

	test("undefined properties are left out, as JSON does; objects without a prototype are plain", async () => {
		const node = await userNode();
		const payload = Object.assign(Object.create(null) as object, { a: 1, b: undefined });
		await node.reliable("user").transaction(null, [{ ...MESSAGE, payload }], () => 1);
		expect(node.coordinator.prepared[0]?.messages[0]?.content).toBe('{"a":1}');
	});
});

describe("the transaction", () => {
	test("R1 each call makes a new group id; R2 the owner is node and process start", async () => {
		const node = await userNode();
		const { transaction } = node.reliable("user");
		await transaction(null, [MESSAGE], () => 1);
		await transaction(null, [MESSAGE], () => 1);
		const [first, second] = node.coordinator.prepared as [PrepareItem, PrepareItem];
		expect(isGroupId(first.id) && isGroupId(second.id)).toBe(true);
		expect(first.id).not.toBe(second.id);
		expect(first).toMatchObject({
			source: "user",
			owner: { nodeID: node.broker.nodeID, instanceID: node.broker.instanceID },
			storeId: node.metadata("user").storeId,
			guarantee: "memory",
		});
	});

	test("what prepare carries: options, delays in milliseconds, the caller's context", async () => {
		const node = await userNode();
		const ctx = new Context(node.broker);
		ctx.meta = { user: "u1", when: new Date(), big: "x".repeat(20_000), ok: { deep: [1] } };
		ctx.requestID = "r-1";
		ctx.level = 3;
		await node
			.reliable("user")
			.transaction(
				ctx,
				[{ ...MESSAGE, delay: "2s", maxAttempts: 3, orderingKey: "k", deliver: "action" }],
				() => 1,
				{ idempotencyKey: "key", checkAfter: "1m" },
			);
		const item = node.coordinator.prepared[0] as PrepareItem;
		expect(item).toMatchObject({ idempotencyKey: "key", checkAfter: 60_000 });
		expect(item.messages).toEqual([
			{
				target: "auth",
				type: "grant",
				content: '{"user":"ada"}',
				delay: 2_000,
				maxAttempts: 3,
				orderingKey: "k",
				deliver: "action",
			},
		]);
		expect(JSON.parse(item.context ?? "") as CallContext).toEqual({
			requestID: "r-1",
			parentID: ctx.id,
			level: 3,
			caller: "user",
			meta: { user: "u1", ok: { deep: [1] } },
		});
	});

	test("R7 the work runs once, after prepare, and its value comes back before the coordinator knows", async () => {
		const coordinator = scriptedCoordinator();
		const told = deferred();
		coordinator.commit = async () => {
			await told.promise;
			return { result: "ok" };
		};
		const node = await userNode({}, coordinator);
		let runs = 0;
		const value = await node.reliable("user").transaction(null, [MESSAGE], (tx) => {
			runs++;
			expect(coordinator.prepared.map(({ id }) => id)).toEqual([tx.group]);
			return 42;
		});
		expect([value, runs]).toEqual([42, 1]);
		told.resolve();
		await node.reliable("user").flushed();
		expect(coordinator.committed).toEqual([
			{ id: coordinator.prepared[0]?.id, storeId: node.metadata("user").storeId },
		]);
	});

	test("R8 work that throws is rolled back and told so; the caller gets its own error, with the group", async () => {
		const node = await userNode();
		const thrown = new Error("no such user");
		const error = await failure(
			node.reliable("user").transaction(null, [MESSAGE], () => {
				throw thrown;
			}),
		);
		await node.reliable("user").flushed();
		const id = node.coordinator.prepared[0]?.id;
		expect(error).toBe(thrown);
		expect(error.data).toEqual({ group: id });
		expect(node.coordinator.rolledBack.map((item) => item.id)).toEqual([id]);
		expect(node.coordinator.committed).toEqual([]);
	});

	test("work may throw anything: what cannot carry the group comes back unchanged", async () => {
		const node = await userNode();
		const { transaction } = node.reliable("user");
		const work = (thrown: unknown) => () => {
			throw thrown;
		};
		expect(await failure(transaction(null, [MESSAGE], work("text")))).toBe("text");
		const frozen = Object.freeze(new Error("frozen"));
		expect(await failure(transaction(null, [MESSAGE], work(frozen)))).toBe(frozen);
	});

	test("LOTTOR_FENCED: a group that was rolled back meanwhile does not run, by store or by prepare", async () => {
		const byStore = await userNode({ store: storeThatRuns({ state: "fenced" }) });
		const first = await failure(byStore.reliable("user").transaction(null, [MESSAGE], () => 1));
		expect(first).toMatchObject({ type: "LOTTOR_FENCED", retryable: true });

		const coordinator = scriptedCoordinator();
		coordinator.prepare = ({ id }) => ({
			result: "existing",
			id,
			state: "rolledBack",
			coordinator: "coordinator-1",
		});
		const byPrepare = await userNode({}, coordinator);
		let ran = false;
		const second = await failure(
			byPrepare.reliable("user").transaction(null, [MESSAGE], () => {
				ran = true;
			}),
		);
		expect(second).toMatchObject({
			type: "LOTTOR_FENCED",
			data: { group: coordinator.prepared[0]?.id },
		});
		expect([ran, coordinator.committed, coordinator.rolledBack]).toEqual([false, [], []]);
	});

	test("R7 LOTTOR_FENCED: a check-back that comes between prepare and the work's first statement wins", async () => {
		const store = sqlite();
		const coordinator = scriptedCoordinator();
		const node = await userNode({ store }, coordinator);
		const other = await userNode({ store });
		const { prepare } = coordinator;
		coordinator.prepare = async (item) => {
			expect(await check(other, item)).toEqual([{ result: "rolledBack" }]);
			return prepare(item);
		};
		let ran = false;
		const sent = node.reliable("user").transaction(null, [MESSAGE], () => {
			ran = true;
		});
		expect(await failure(sent)).toMatchObject({ type: "LOTTOR_FENCED" });
		expect(ran).toBe(false);
	});

	test("R8 LOTTOR_OUTCOME_UNKNOWN: nothing is sent while the store cannot tell", async () => {
		const store = storeThatRuns({ state: "unknown", error: new Error("connection lost") });
		const node = await userNode({ store });
		const error = await failure(node.reliable("user").transaction(null, [MESSAGE], () => 1));
		expect(error).toMatchObject({
			type: "LOTTOR_OUTCOME_UNKNOWN",
			data: { cause: "connection lost" },
		});
		await node.reliable("user").flushed();
		await settle();
		expect(node.coordinator.calls.map(({ action }) => action)).toEqual(["prepare"]);
	});

	test("LOTTOR_OUTCOME_CONFLICT: the commit is sent all the same, so that the group comes in doubt", async () => {
		const coordinator = scriptedCoordinator();
		coordinator.commit = () => ({ result: "conflict", state: "rolledBack" });
		const store = storeThatRuns({ state: "conflict", value: undefined as never });
		const node = await userNode({ store }, coordinator);
		const error = await failure(node.reliable("user").transaction(null, [MESSAGE], () => 1));
		expect(error).toMatchObject({ type: "LOTTOR_OUTCOME_CONFLICT" });
		await node.reliable("user").flushed();
		expect(coordinator.committed).toHaveLength(1);
	});

	test("LOTTOR_DUPLICATE_REQUEST: a used idempotency key names its group, and the work does not run", async () => {
		const coordinator = scriptedCoordinator();
		coordinator.prepare = () => ({
			result: "existing",
			id: "0".repeat(26),
			state: "completed",
			coordinator: "coordinator-1",
		});
		const node = await userNode({}, coordinator);
		let ran = false;
		const error = await failure(
			node.reliable("user").transaction(
				null,
				[MESSAGE],
				() => {
					ran = true;
				},
				{ idempotencyKey: "k" },
			),
		);
		expect(error).toMatchObject({
			type: "LOTTOR_DUPLICATE_REQUEST",
			data: { group: "0".repeat(26), state: "completed" },
		});
		expect(ran).toBe(false);
	});

	test("R10 LOTTOR_WORK_TIMEOUT: a transactional work over its limit is rolled back", async () => {
		const clock = new ManualClock();
		const node = await userNode({ store: sqlite(), clock, workTimeout: "1m" });
		const started = deferred();
		const running = failure(
			node.reliable("user").transaction(null, [MESSAGE], () => {
				started.resolve();
				return new Promise(() => undefined);
			}),
		);
		await started.promise;
		await clock.advance(60_000);
		expect(await running).toMatchObject({ type: "LOTTOR_WORK_TIMEOUT", retryable: true });
		await until(() => node.coordinator.rolledBack.length === 1);
	});

	test("R10 R13 a recorded work over its limit stays in memory until it ends, then its outcome is told", async () => {
		const clock = new ManualClock();
		const node = await userNode({ clock, workTimeout: "1m" });
		const work = deferred();
		const started = deferred();
		const running = failure(
			node.reliable("user").transaction(null, [MESSAGE], () => {
				started.resolve();
				return work.promise;
			}),
		);
		await started.promise;
		await clock.advance(60_000);
		expect(await running).toMatchObject({ type: "LOTTOR_OUTCOME_UNKNOWN" });
		const group = node.coordinator.prepared[0] as PrepareItem;
		expect(await check(node, group)).toEqual([{ result: "running" }]);
		work.resolve();
		await until(() => node.coordinator.committed.length === 1);
		expect(await check(node, group)).toEqual([{ result: "committed" }]);
	});

	test("R13 from before prepare on, check-back is answered from memory", async () => {
		const coordinator = scriptedCoordinator();
		const answers: CheckAnswer[] = [];
		const node = await userNode({}, coordinator);
		coordinator.prepare = async (item) => {
			answers.push(...(await check(node, item)));
			return {
				result: "prepared",
				id: item.id,
				state: "prepared",
				coordinator: "coordinator-1",
			};
		};
		const told = deferred();
		coordinator.commit = async () => {
			await told.promise;
			return { result: "ok" };
		};
		await node.reliable("user").transaction(null, [MESSAGE], async () => {
			answers.push(...(await check(node, coordinator.prepared[0] as PrepareItem)));
		});
		answers.push(...(await check(node, coordinator.prepared[0] as PrepareItem)));
		told.resolve();
		expect(answers).toEqual([
			{ result: "running" },
			{ result: "running" },
			{ result: "committed" },
		]);
	});

	test("two hundred at once: all committed, in few calls", async () => {
		const node = await userNode();
		const { transaction, flushed } = node.reliable("user");
		await Promise.all(Array.from({ length: 200 }, () => transaction(null, [MESSAGE], () => 1)));
		await flushed();
		expect(node.coordinator.committed).toHaveLength(200);
		expect(node.coordinator.calls.length).toBeLessThan(50);
	});

	test("LOTTOR_OVERLOADED: no more than ten thousand run at once, however slow the local work is", async () => {
		const node = await userNode({ clock: new ManualClock() });
		const { transaction } = node.reliable("user");
		const ending = deferred();
		let begun = 0;
		const work = () => {
			begun++;
			return ending.promise;
		};
		const running = Array.from({ length: 10_000 }, () => transaction(null, [MESSAGE], work));
		await until(() => begun === 10_000);
		const refused = await failure(transaction(null, [MESSAGE], work));
		expect(refused).toMatchObject({ type: "LOTTOR_OVERLOADED", retryable: true });
		expect(node.coordinator.prepared).toHaveLength(10_000);
		ending.resolve();
		await Promise.all(running);
	});
});

describe("R11 inside a handler", () => {
	async function nestedNode(
		store: string,
		handler: (node: () => MixinNode, ctx: Context) => unknown,
	) {
		const schema = {
			name: "user",
			mixins: [ReliableMessage({ store, clock: new ManualClock(Date.now()) })],
			messages: { outer: (ctx: Context): unknown => handler(() => node, ctx) },
		};
		const node: MixinNode = await startNode([schema]);
		return node;
	}

	test("R11 the work joins the handler's transaction: the commit is sent after it, not before", async () => {
		const seen: number[] = [];
		const node = await nestedNode(sqlite(), async (node, ctx) => {
			await node()
				.reliable("user")
				.transaction(ctx, [MESSAGE], () => 1);
			await settle();
			seen.push(node().coordinator.committed.length);
			const group = node().coordinator.prepared[0] as PrepareItem;
			expect(await check(node(), group)).toEqual([{ result: "running" }]);
		});
		const answers = await node.consume("user", node.envelope("user", "outer", {}));
		expect(answers).toMatchObject([{ result: "reported", report: { result: "consumed" } }]);
		await until(() => node.coordinator.committed.length === 1);
		expect(seen).toEqual([0]);
	});

	test("R11 a handler that fails takes the nested group with it: rolled back, nothing delivered", async () => {
		const node = await nestedNode(sqlite(), async (node, ctx) => {
			await node()
				.reliable("user")
				.transaction(ctx, [MESSAGE], () => 1);
			throw new Error("later");
		});
		const answers = await node.consume("user", node.envelope("user", "outer", {}));
		expect(answers).toMatchObject([
			{ report: { result: "failed", error: { message: "later" } } },
		]);
		await until(() => node.coordinator.rolledBack.length === 1);
		expect(node.coordinator.committed).toEqual([]);
		expect(await check(node, node.coordinator.prepared[0] as PrepareItem)).toEqual([
			{ result: "rolledBack" },
		]);
	});

	test("R11 on a recorded store the nested work stands by itself: at least once", async () => {
		const node = await nestedNode("memory:", async (node, ctx) => {
			await node()
				.reliable("user")
				.transaction(ctx, [MESSAGE], () => 1);
			throw new Error("later");
		});
		await node.consume("user", node.envelope("user", "outer", {}));
		await until(() => node.coordinator.committed.length === 1);
	});

	test("LOTTOR_TX_CLOSED: a handler's context is of no use once the handler has ended", async () => {
		let kept: Context | undefined;
		const node = await nestedNode("memory:", (_, ctx) => {
			kept = ctx;
		});
		await node.consume("user", node.envelope("user", "outer", {}));
		const late = node.reliable("user").transaction(kept as Context, [MESSAGE], () => 1);
		expect(await failure(late)).toBeInstanceOf(LottorError);
		expect(await failure(late)).toMatchObject({ type: "LOTTOR_TX_CLOSED" });
	});
});
