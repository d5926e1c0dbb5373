import { afterEach, describe, expect, test } from "@jest/globals";
import type { ServiceSchema } from "moleculer";

import type { Delivery, Receiver } from "../../adapters/delivery/index.ts";
import type { ParticipantStore } from "../../adapters/participant-store/contract.ts";
import { defineMessages, ReliableMessage } from "../../mixins/reliable-message/index.ts";
import { hasCode, LottorError } from "../../protocol/index.ts";
import { ManualClock } from "../support/manual-clock.ts";
import {
	deferred,
	type MixinNode,
	startNode,
	stopNodes,
	storeWith,
} from "../support/mixin-node.ts";
import { until } from "../support/until.ts";

/** A broker that is the test's own hand. */
class HandBroker implements Delivery {
	readonly description = "by hand";
	readonly durable = true;
	readonly maxBytes = 1_000_000;
	readonly available = true;
	receiver: Receiver | undefined;
	stopped = false;
	start = () => Promise.resolve();
	stop = () => Promise.resolve();
	send = () => Promise.resolve();
	backlog = () => Promise.resolve(0);

	receive(receiver: Receiver) {
		this.receiver = receiver;
		return Promise.resolve({
			stop: () => {
				this.stopped = true;
				return Promise.resolve();
			},
		});
	}

	get taker(): Receiver {
		if (!this.receiver) throw new Error("Nobody takes messages");
		return this.receiver;
	}
}

const broker = { hand: new HandBroker() };

afterEach(async () => {
	await stopNodes();
	broker.hand = new HandBroker();
});

function auth(
	handler: () => unknown,
	more: Partial<Parameters<typeof ReliableMessage>[0]> = {},
	schema: Partial<ServiceSchema> = {},
): ServiceSchema {
	return {
		name: "auth",
		mixins: [ReliableMessage({ store: "memory:", delivery: broker.hand, ...more })],
		messages: defineMessages<Record<"grant", unknown>>({ grant: { handler } }),
		...schema,
	} as ServiceSchema;
}

function grant(node: MixinNode, more = {}) {
	return node.envelope("auth", "grant", {}, more);
}

describe("messages from a broker", () => {
	test("R4 are taken for the service's name and its former ones, once its own started() has ended", async () => {
		const started = deferred();
		const order: string[] = [];
		const starting = startNode([
			auth(
				() => undefined,
				{ aliases: ["v1.auth"] },
				{
					async started() {
						await started.promise;
						order.push("started", broker.hand.receiver ? "taking" : "not taking yet");
					},
				},
			),
		]);
		started.resolve();
		const node = await starting;
		expect(order).toEqual(["started", "not taking yet"]);
		expect(broker.hand.taker).toMatchObject({
			targets: ["auth", "v1.auth"],
			storeId: null,
			maxInFlight: 128,
		});
		expect(node.metadata("auth")).toMatchObject({ receives: true });
	});

	test("are not taken by a service that only produces", async () => {
		const node = await startNode([
			{
				name: "user",
				mixins: [ReliableMessage({ store: "memory:", delivery: broker.hand })],
			},
		]);
		expect(broker.hand.receiver).toBeUndefined();
		expect(node.metadata("user")).toMatchObject({ receives: false });
	});

	test("R33 are acknowledged after a consumed row, and reported to the coordinator", async () => {
		const gate = deferred();
		const node = await startNode([auth(() => gate.promise)]);
		const envelope = grant(node);
		let acked = false;
		const end = broker.hand.taker.handle(envelope).finally(() => (acked = true));
		await until(async () => {
			const [answer] = await node.ask<{ result: string }>("auth", "ask", envelope);
			return answer?.result === "running";
		});
		expect(acked).toBe(false);
		gate.resolve();
		expect(await end).toBe("done");
		expect(await node.ask("auth", "ask", envelope)).toEqual([
			{ result: "consumed", revision: 0 },
		]);
		await node.reliable("auth").flushed();
		expect(node.coordinator.reported).toMatchObject([{ id: envelope.id, result: "consumed" }]);
	});

	test("R33 are acknowledged after a failed row: the coordinator owns retries", async () => {
		let runs = 0;
		const node = await startNode([
			auth(() => {
				runs++;
				throw new Error("no");
			}),
		]);
		const envelope = grant(node);
		expect(await broker.hand.taker.handle(envelope)).toBe("done");
		await node.reliable("auth").flushed();
		expect(runs).toBe(1);
		expect(node.coordinator.reported).toMatchObject([
			{ id: envelope.id, result: "failed", attempt: 1, error: { message: "no" } },
		]);
	});

	test("R33 a copy that comes while the first runs waits for its end, and the handler runs once", async () => {
		const gate = deferred();
		let runs = 0;
		const node = await startNode([
			auth(() => {
				runs++;
				return gate.promise;
			}),
		]);
		const envelope = grant(node);
		const ends = [envelope, envelope].map((one) => broker.hand.taker.handle(one));
		gate.resolve();
		expect(await Promise.all(ends)).toEqual(["done", "done"]);
		expect(await broker.hand.taker.handle(envelope)).toBe("done");
		expect(runs).toBe(1);
	});

	test("R33 are held, and tried again, while the store can't be used", async () => {
		const clock = new ManualClock();
		let down = true;
		const store = storeWith({}, clock);
		const failing = storeWith(
			{
				consume: (...args: Parameters<ParticipantStore["consume"]>) => {
					if (down) throw new LottorError("LOTTOR_STORE_UNAVAILABLE", "gone");
					return store.consume(...args);
				},
			},
			clock,
			store,
		);
		let runs = 0;
		const node = await startNode([auth(() => runs++, { store: failing, clock })]);
		let ended: string | undefined;
		const end = broker.hand.taker
			.handle(grant(node, { sentAt: clock.now() }))
			.then((how) => (ended = how));
		for (let i = 0; i < 20; i++) {
			await clock.advance(5_000);
			await new Promise((resolve) => setImmediate(resolve));
		}
		expect([ended, runs]).toEqual([undefined, 0]);
		down = false;
		await until(async () => {
			await clock.advance(5_000);
			return ended !== undefined;
		});
		expect([await end, runs]).toEqual(["done", 1]);
	});

	test("R34 a copy that is too old is not run, but acknowledged and reported", async () => {
		let runs = 0;
		const node = await startNode([auth(() => runs++, { keep: "1h" })]);
		const old = grant(node, { sentAt: Date.now() - 31 * 60_000 });
		expect(await broker.hand.taker.handle(old)).toBe("done");
		await node.reliable("auth").flushed();
		expect(runs).toBe(0);
		expect(node.coordinator.reported).toMatchObject([{ id: old.id, result: "expired" }]);
	});

	test("R3 a copy that is bound to another store is dropped, and nothing is reported", async () => {
		let runs = 0;
		const node = await startNode([auth(() => runs++)]);
		expect(await broker.hand.taker.handle(grant(node, { storeId: "another" }))).toBe("done");
		await node.reliable("auth").flushed();
		expect([runs, node.coordinator.reported]).toEqual([0, []]);
	});

	test("LOTTOR_ENVELOPE_INVALID: what is for another service is refused", async () => {
		const node = await startNode([auth(() => undefined)]);
		const wrong = { ...grant(node), target: "mail" };
		const error = await broker.hand.taker.handle(wrong).catch((thrown: unknown) => thrown);
		expect(hasCode(error, "LOTTOR_ENVELOPE_INVALID")).toBe(true);
	});

	test("R33 a graceful stop ends what runs, and leaves what waits to others", async () => {
		const gate = deferred();
		let runs = 0;
		const node = await startNode([
			auth(
				() => {
					runs++;
					return gate.promise;
				},
				{ concurrency: 1 },
			),
		]);
		const ends = [grant(node), grant(node)].map((one) => broker.hand.taker.handle(one));
		await until(() => runs === 1);
		const stopping = node.broker.stop();
		await until(() => broker.hand.stopped);
		expect(await ends[1]).toBe("keep");
		gate.resolve();
		expect(await ends[0]).toBe("done");
		await stopping;
		expect(runs).toBe(1);
	});
});
