import { afterEach, describe, expect, test } from "@jest/globals";
import type { Context } from "moleculer";
import { memoryParticipantStore } from "../../adapters/participant-store/index.ts";
import {
	ReliableMessage,
	type ReliableMessageOptions,
} from "../../mixins/reliable-message/index.ts";
import { type CheckAnswer, type PrepareItem, systemRandom } from "../../protocol/index.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";
import { deferred, hang, startNode, stopNodes, storeWith } from "../support/mixin-node.ts";

const MESSAGE = { target: "auth", type: "t", payload: {} };

afterEach(stopNodes);

async function failure(promise: Promise<unknown>): Promise<unknown> {
	return promise.then(
		() => "no failure",
		(error: unknown) => error,
	);
}

describe("a graceful stop", () => {
	test("LOTTOR_STOPPING: new transactions and messages are refused while running ones end and are told", async () => {
		const work = deferred();
		const handler = deferred();
		const order: string[] = [];
		const store = memoryParticipantStore({
			clock: new ManualClock(Date.now()),
			random: systemRandom,
		});
		const close = store.close.bind(store);
		store.close = async () => {
			order.push("closed");
			await close();
		};
		const node = await startNode([
			{
				name: "user",
				mixins: [ReliableMessage({ store })],
				messages: { t: () => handler.promise },
				stopped: () => void order.push("the service's own stopped"),
			},
		]);
		const { transaction } = node.reliable("user");
		const running = transaction(null, [MESSAGE], () => work.promise);
		const consuming = node.consume("user", node.envelope("user", "t", {}));
		await settle();
		const refused = node.envelope("user", "t", {});
		const stopping = node.broker.destroyService("user");
		await settle();

		expect(await failure(transaction(null, [MESSAGE], () => 1))).toMatchObject({
			type: "LOTTOR_STOPPING",
			retryable: true,
		});
		expect(await node.consume("user", refused)).toMatchObject([
			{ result: "refused", error: { code: "LOTTOR_STOPPING", retryable: true } },
		]);
		const { id, storeId, owner } = node.coordinator.prepared[0] as PrepareItem;
		const item = { id, storeId, owner, ownerGoneMs: null, createdAt: 0 };
		expect(await node.ask<CheckAnswer>("user", "check", item)).toEqual([{ result: "running" }]);

		work.resolve();
		handler.resolve();
		await Promise.all([running, consuming, stopping]);
		expect(node.coordinator.committed).toHaveLength(1);
		expect(order).toEqual(["closed", "the service's own stopped"]);
		expect(await failure(transaction(null, [MESSAGE], () => 1))).toMatchObject({
			type: "LOTTOR_STOPPING",
		});
	});

	test("R11 a handler that it waits for can still make its nested transaction", async () => {
		const handler = deferred();
		const node = await startNode([
			{
				name: "user",
				mixins: [ReliableMessage({ store: "memory:" })],
				messages: {
					t: async (ctx: Context) => {
						await handler.promise;
						await node.reliable("user").transaction(ctx, [MESSAGE], () => "nested");
					},
				},
			},
		]);
		const consuming = node.consume("user", node.envelope("user", "t", {}));
		await settle();
		const stopping = node.broker.destroyService("user");
		await settle();
		handler.resolve();

		await Promise.all([consuming, stopping]);
		expect(node.coordinator.committed).toHaveLength(1);
	});

	test("it waits no longer than stopTimeout; queued messages are left to the coordinator", async () => {
		const clock = new ManualClock(Date.now());
		let runs = 0;
		const node = await startNode([
			{
				name: "user",
				mixins: [
					ReliableMessage({ store: "memory:", clock, concurrency: 1, stopTimeout: "3s" }),
				],
				messages: {
					t: () => {
						runs++;
						return hang();
					},
				},
			},
		]);
		const consuming = node.consume(
			"user",
			node.envelope("user", "t", {}),
			node.envelope("user", "t", {}),
		);
		await settle();
		let stopped = false;
		const stopping = node.broker.destroyService("user").then(() => (stopped = true));
		await clock.advance(2_999);
		expect(stopped).toBe(false);
		while (!stopped) await clock.advance(100);
		await stopping;
		await consuming;
		expect(runs).toBe(1);
	});

	test("a coordinator that is away does not hold it up; the next start tells the commit", async () => {
		const clock = new ManualClock(Date.now());
		const store = memoryParticipantStore({ clock, random: systemRandom });
		const user = { name: "user", mixins: [ReliableMessage({ store, clock })] };
		const node = await startNode([user]);
		await node.reliable("user").transaction(null, [MESSAGE], async () => {
			await node.broker.destroyService("lottor");
		});
		await node.broker.destroyService("user");
		await clock.advance(1);
		const again = await startNode([user]);
		await again.reliable("user").flushed();
		while (again.coordinator.committed.length === 0) await settle();
		expect(again.coordinator.committed.map(({ id }) => id)).toEqual(
			node.coordinator.prepared.map(({ id }) => id),
		);
	});

	test("a store that two services share is closed when the second one leaves", async () => {
		let closed = 0;
		const store = storeWith({ close: async () => void closed++ });
		const mixin = (options: Partial<ReliableMessageOptions> = {}) =>
			ReliableMessage({ store, ...options });
		const node = await startNode([
			{ name: "one", mixins: [mixin()] },
			{ name: "two", mixins: [mixin()] },
		]);
		expect(node.metadata("one").storeId).toBe(node.metadata("two").storeId);
		await node.broker.destroyService("one");
		expect(closed).toBe(0);
		expect(await node.reliable("two").transaction(null, [MESSAGE], () => "works")).toBe(
			"works",
		);
		await node.broker.destroyService("two");
		expect(closed).toBe(1);
	});

	test("a store that cannot be opened stops the start with its own error", async () => {
		const store = storeWith({
			open: async () => {
				throw Object.assign(new Error("corrupt"), { type: "LOTTOR_STORE_UNUSABLE" });
			},
		});
		const starting = startNode([{ name: "user", mixins: [ReliableMessage({ store })] }]);
		expect(await failure(starting)).toMatchObject({ type: "LOTTOR_STORE_UNUSABLE" });
	});
});
