import { afterEach, describe, expect, test } from "@jest/globals";
import type { Context, ServiceSchema } from "moleculer";
import {
	ReliableMessage,
	type ReliableMessageOptions,
} from "../../mixins/reliable-message/index.ts";
import { LOTTOR_VERSION } from "../../protocol/index.ts";
import packageJson from "../../package.json" with { type: "json" };
import { ManualClock } from "../support/manual-clock.ts";
import { makeBroker, startNode, stopNodes } from "../support/mixin-node.ts";

/** Stands still: a handler is never too slow to be reported with the answer. */
const clock = new ManualClock(Date.now());

afterEach(stopNodes);

function fieldOf(fn: () => unknown): unknown {
	try {
		fn();
	} catch (error) {
		expect(error).toMatchObject({ type: "LOTTOR_INVALID_OPTIONS" });
		return (error as { data: { field: string } }).data.field;
	}
	return "nothing was thrown";
}

describe("LOTTOR_INVALID_OPTIONS names the option", () => {
	const cases: [Record<string, unknown> | undefined, string][] = [
		[undefined, "ReliableMessage"],
		[{}, "ReliableMessage.store"],
		[{ store: "ftp://x" }, "ReliableMessage.store"],
		[{ store: 7 }, "ReliableMessage.store"],
		[{ store: "memory:", timeout: 1 }, "ReliableMessage.timeout"],
		[{ store: "memory:", prepareTimeout: "soon" }, "ReliableMessage.prepareTimeout"],
		[{ store: "memory:", prepareTimeout: 0 }, "ReliableMessage.prepareTimeout"],
		[{ store: "memory:", workTimeout: -1 }, "ReliableMessage.workTimeout"],
		[{ store: "memory:", handlerTimeout: Number.NaN }, "ReliableMessage.handlerTimeout"],
		[{ store: "memory:", concurrency: 0 }, "ReliableMessage.concurrency"],
		[{ store: "memory:", maxQueued: 1.5 }, "ReliableMessage.maxQueued"],
		[{ store: "memory:", maxPayload: "1" }, "ReliableMessage.maxPayload"],
		[{ store: "memory:", keep: {} }, "ReliableMessage.keep"],
		[{ store: "memory:", stopTimeout: null }, "nothing was thrown"],
		[{ store: "memory:", stopTimeout: "x" }, "ReliableMessage.stopTimeout"],
		[{ store: "memory:", aliases: "old" }, "ReliableMessage.aliases"],
		[{ store: "memory:", aliases: ["a", ""] }, "ReliableMessage.aliases[1]"],
		[{ store: "memory:", partitioned: 1 }, "ReliableMessage.partitioned"],
		[{ store: "memory:", clock: {} }, "ReliableMessage.clock"],
		[{ store: "memory:", random: { fraction() {} } }, "ReliableMessage.random"],
	];
	test.each(cases)("%j", (options, field) => {
		expect(fieldOf(() => ReliableMessage(options as never as ReliableMessageOptions))).toBe(
			field,
		);
	});

	const messages: [unknown, string][] = [
		[{ t: 1 }, "auth.messages.t"],
		[{ t: {} }, "auth.messages.t.handler"],
		[{ t: { handler() {}, retries: 1 } }, "auth.messages.t.retries"],
		[{ t: { handler() {}, params: 1 } }, "auth.messages.t.params"],
		[{ t: { handler() {}, params: { a: "nosuchrule" } } }, "auth.messages.t.params"],
		[{ t: { handler() {}, timeout: "x" } }, "auth.messages.t.timeout"],
		[{ t: { handler() {}, concurrency: 0 } }, "auth.messages.t.concurrency"],
		[{ t: { handler() {}, retryPolicy: 1 } }, "auth.messages.t.retryPolicy"],
		[{ t: { handler() {}, retryPolicy: { tries: 1 } } }, "auth.messages.t.retryPolicy.tries"],
		[
			{ t: { handler() {}, retryPolicy: { retries: -1 } } },
			"auth.messages.t.retryPolicy.retries",
		],
		[{ t: { handler() {}, retryPolicy: { factor: 0 } } }, "auth.messages.t.retryPolicy.factor"],
		[{ t: { handler() {}, retryPolicy: { delay: "x" } } }, "auth.messages.t.retryPolicy.delay"],
		[
			{ t: { handler() {}, retryPolicy: { enabled: 1 } } },
			"auth.messages.t.retryPolicy.enabled",
		],
		[{ t: { handler() {}, retryPolicy: { check: 1 } } }, "auth.messages.t.retryPolicy.check"],
	];
	test.each(messages)("messages %j", (given, field) => {
		const broker = makeBroker();
		const schema = {
			name: "auth",
			mixins: [ReliableMessage({ store: "memory:" })],
			messages: given,
		} as ServiceSchema;
		expect(fieldOf(() => broker.createService(schema))).toBe(field);
	});
});

describe("the schema", () => {
	test("messages of the service and of every mixin are merged, the service's own first", async () => {
		const said: string[] = [];
		const say = (text: string) => () => {
			said.push(text);
		};
		const inner: Partial<ServiceSchema> = { messages: { a: say("inner"), c: say("inner") } };
		const outer: Partial<ServiceSchema> = {
			mixins: [inner],
			messages: { a: say("outer"), b: say("outer") },
		};
		const node = await startNode([
			{
				name: "auth",
				version: 2,
				mixins: [ReliableMessage({ store: "memory:", clock }), outer],
				messages: { b: say("own") },
			},
		]);
		expect(node.metadata("v2.auth").types.toSorted()).toEqual(["a", "b", "c"]);
		for (const type of ["a", "b", "c"]) {
			await node.consume("v2.auth", node.envelope("v2.auth", type, {}));
		}
		expect(said).toEqual(["outer", "own", "inner"]);
	});

	test("without messages the service is no consumer, and nothing of the options is published", async () => {
		const node = await startNode([
			{ name: "user", mixins: [ReliableMessage({ store: "memory:", aliases: ["old"] })] },
		]);
		expect(node.metadata("user")).toMatchObject({
			roles: ["producer"],
			types: [],
			aliases: ["old"],
			guarantee: "memory",
			partitioned: false,
			instanceID: node.broker.instanceID,
		});
		expect(node.service("user").settings).toEqual({});
	});

	test("two services can be given one mixin; each has a store of its own", async () => {
		const mixin = ReliableMessage({ store: "memory:", clock });
		const node = await startNode([
			{ name: "one", mixins: [mixin] },
			{ name: "two", mixins: [mixin] },
		]);
		expect(node.metadata("one").storeId).not.toBe(node.metadata("two").storeId);
	});

	test("a service without a name prefix for its actions can still be called by coordinators", async () => {
		const node = await startNode([
			{
				name: "auth",
				version: 1,
				settings: { $noServiceNamePrefix: true },
				mixins: [ReliableMessage({ store: "memory:", clock })],
				messages: { t: () => undefined },
			},
		]);
		const answers = await node.consume("v1.auth", node.envelope("v1.auth", "t", {}));
		expect(answers).toMatchObject([{ result: "reported" }]);
	});

	test("a handler written as a function or as a definition gets the service as this", async () => {
		const seen: unknown[] = [];
		const node = await startNode([
			{
				name: "auth",
				mixins: [ReliableMessage({ store: "memory:", clock })],
				messages: {
					short(ctx: Context) {
						seen.push(this.name, ctx.service?.fullName);
					},
					long: {
						handler() {
							seen.push(this.name);
						},
					},
				},
			},
		]);
		await node.consume("auth", node.envelope("auth", "short", {}));
		await node.consume("auth", node.envelope("auth", "long", {}));
		expect(seen).toEqual(["auth", "auth", "auth"]);
	});

	test("hooks for all actions apply to the service's actions, not to the mixin's", async () => {
		const seen: string[] = [];
		const schema: ServiceSchema = {
			name: "auth",
			mixins: [ReliableMessage({ store: "memory:", clock })],
			hooks: {
				before: { "*": ["checkUser", "missing"] },
				after: { "*": (_, result: string) => `${result} and after` },
				// An error hook may answer in place of the error, which its type does not say.
				error: { "*": () => "healed" as never },
			},
			methods: {
				checkUser: (ctx: Context) => {
					seen.push(ctx.action?.name ?? "");
				},
			},
			actions: {
				who: () => "me",
				fail: () => {
					throw new Error("no");
				},
			},
			messages: { t: () => undefined },
		};
		const node = await startNode([schema]);
		expect(await node.consume("auth", node.envelope("auth", "t", {}))).toMatchObject([
			{ result: "reported" },
		]);
		await expect(node.broker.call("auth.reliable.consume", { items: 1 })).rejects.toThrow();
		expect(await node.broker.call("auth.who")).toBe("me and after");
		expect(await node.broker.call("auth.fail")).toBe("healed");
		expect(seen).toEqual(["auth.who", "auth.fail"]);
	});

	test("the version that status tells is the package's", () => {
		expect(LOTTOR_VERSION).toBe(packageJson.version);
	});
});
