import { afterEach, beforeEach, describe, expect, jest, test } from "@jest/globals";
import { Serializers, ServiceBroker } from "moleculer";

import type { Channel, ChannelAdapter, PublishOptions } from "../../adapters/channels/index.ts";
import {
	type Delivery,
	type Outgoing,
	resolveDelivery,
	type SendResult,
	type TargetInstance,
} from "../../adapters/delivery/index.ts";
import {
	type Envelope,
	LottorError,
	messageId,
	newGroupId,
	systemClock,
	systemRandom,
	WIRE_VERSION,
} from "../../protocol/index.ts";
import { until } from "../support/until.ts";

interface Published {
	readonly channel: string;
	readonly body: unknown;
	readonly options: PublishOptions;
}

/** A message broker in memory, in the hands of the test. */
class HandAdapter implements ChannelAdapter {
	readonly description = "a broker in memory";
	readonly maxBytes = 1_000_000;
	connected = true;
	/** The connection is found to be lost by the next send. */
	gone = false;
	serializer: ChannelAdapter["serializer"] = new Serializers.JSON();
	readonly published: Published[] = [];
	readonly channels = new Map<string, Channel>();
	connections = 0;
	error: Error | undefined;

	init(): void {}

	connect(): Promise<void> {
		this.connections++;
		return Promise.resolve();
	}

	disconnect(): Promise<void> {
		this.connections--;
		return Promise.resolve();
	}

	subscribe(channel: Channel): Promise<void> {
		this.channels.set(channel.name, channel);
		return Promise.resolve();
	}

	unsubscribe({ name }: Channel): Promise<void> {
		this.channels.delete(name);
		return Promise.resolve();
	}

	publish(channel: string, payload: unknown, options: PublishOptions = {}): Promise<void> {
		if (this.gone) this.connected = false;
		if (this.error) return Promise.reject(this.error);
		this.published.push({
			channel,
			body: this.serializer.deserialize(payload as Buffer),
			options,
		});
		return Promise.resolve();
	}

	nameProblem = (channel: string) => (channel.includes(" ") ? "which has a space" : undefined);
	declare = () => Promise.resolve();
	backlog = (channel: string, group: string) =>
		Promise.resolve(this.published.filter((one) => one.channel === channel && group).length);
	addPrefixTopic = (name: string) => `ns.${name}`;
	parseMessageHeaders = (raw: unknown) => (raw as PublishOptions).headers ?? null;

	/** Hands a message to whoever subscribed. */
	hand({ channel, body, options }: Published): Promise<unknown> {
		const delivered = { body: this.serializer.serialize(body), repeated: false };
		return this.channels.get(channel)?.handler(body, options, delivered) ?? Promise.resolve();
	}
}

let broker: ServiceBroker;
let adapter: HandAdapter;
let delivery: Delivery;
let instance: TargetInstance;
let changes: boolean[];

beforeEach(async () => {
	broker = new ServiceBroker({ nodeID: "node", logger: false });
	adapter = new HandAdapter();
	delivery = resolveDelivery(adapter, "delivery");
	instance = {
		nodeID: "node",
		instanceID: "1",
		service: "auth",
		storeId: "store",
		receives: true,
		partitioned: false,
	};
	changes = [];
	await broker.start();
	await delivery.start({
		broker,
		logger: broker.logger,
		callTimeout: 1_000,
		instances: () => [instance],
		availabilityChanged: () => changes.push(delivery.available),
	});
	await until(() => delivery.available);
});

afterEach(async () => {
	await delivery.stop();
	await broker.stop();
});

function envelope(more: Partial<Envelope> = {}): Envelope {
	const group = newGroupId(systemClock, systemRandom);
	return {
		v: WIRE_VERSION,
		id: messageId(group, 0),
		group,
		source: "user",
		target: "auth",
		type: "grant",
		attempt: 1,
		revision: 0,
		receipt: "receipt",
		coordinator: "coordinator",
		storeId: "store",
		createdAt: 1,
		sentAt: 2,
		orderingKey: null,
		context: "{}",
		content: '{"a":1}',
		...more,
	};
}

async function send(one: Envelope, plain: Outgoing["plain"] = false): Promise<SendResult> {
	let found: SendResult | undefined;
	await delivery.send([{ envelope: one, plain }], (_, result) => {
		found = result;
		return Promise.resolve(false);
	});
	if (!found) throw new Error("not settled");
	return found;
}

describe("sending", () => {
	test("a confirmed message is accepted; its group is the target, its key the ordering key or the group", async () => {
		const one = envelope();
		const other = envelope({ orderingKey: "ada" });
		expect(await send(one)).toEqual({ result: "accepted", instance: null });
		expect(await send(other)).toMatchObject({ result: "accepted" });
		expect(adapter.published).toMatchObject([
			{
				channel: "ns.tx-auth",
				body: { a: 1 },
				options: { groups: ["auth"], key: one.group },
			},
			{ channel: "ns.tx-auth", options: { key: "ada" } },
		]);
		expect(await delivery.backlog("auth", "store")).toBe(2);
	});

	test("each send has an id of its own, and a repeat of one send has the same", async () => {
		const one = envelope();
		for (const copy of [one, one, { ...one, attempt: 2 }, { ...one, sentAt: 3 }])
			await send(copy);
		const ids = adapter.published.map(({ options }) => options.messageId);
		expect([ids[0] === ids[1], new Set(ids).size]).toEqual([true, 3]);
	});

	test("LOTTOR_CHANNEL_UNAVAILABLE: certainly not sent is refused, and the others wait a moment", async () => {
		adapter.error = new LottorError("LOTTOR_CHANNEL_UNAVAILABLE", "gone");
		adapter.gone = true;
		expect(await send(envelope())).toMatchObject({
			result: "refused",
			error: { code: "LOTTOR_CHANNEL_UNAVAILABLE" },
		});
		expect([delivery.available, changes.at(-1)]).toEqual([false, false]);
		adapter.error = undefined;
		adapter.gone = false;
		adapter.connected = true;
		expect(await send(envelope())).toMatchObject({ result: "refused" });
		await until(() => delivery.available);
		expect([changes.at(-1), (await send(envelope())).result]).toEqual([true, "accepted"]);
	});

	test("what a broker refuses that is there is tried again later each time; others go on", async () => {
		adapter.error = new LottorError("LOTTOR_CHANNEL_UNAVAILABLE", "not this one");
		const first = await send(envelope());
		const together = await send(envelope());
		expect(first).toMatchObject({ result: "refused", delay: 1_000 });
		expect(together).toMatchObject({ result: "refused" });
		expect((together as { delay: number }).delay).toBeLessThanOrEqual(1_000);
		expect([delivery.available, changes]).toEqual([true, []]);
		const now = jest.spyOn(performance, "now").mockReturnValue(performance.now() + 1_000);
		expect(await send(envelope())).toMatchObject({ result: "refused", delay: 2_000 });
		now.mockRestore();
		adapter.error = undefined;
		expect(await send(envelope())).toMatchObject({ result: "accepted" });
		adapter.error = new LottorError("LOTTOR_CHANNEL_UNAVAILABLE", "again");
		expect(await send(envelope())).toMatchObject({ delay: 1_000 });
	});

	test("LOTTOR_PAYLOAD_TOO_LARGE: what the broker refuses for its size fails, and is not tried again", async () => {
		adapter.error = new LottorError("LOTTOR_PAYLOAD_TOO_LARGE", "raise it");
		expect(await send(envelope())).toMatchObject({
			result: "accepted",
			report: {
				result: "failed",
				attempt: 1,
				error: { code: "LOTTOR_PAYLOAD_TOO_LARGE", message: "raise it", retryable: false },
			},
		});
	});

	test("LOTTOR_INVALID_PAYLOAD: what the serializer can't write fails, and is not tried again", async () => {
		const one = envelope({ content: '{"many":{"$bigint":"1"}}' });
		expect(await send(one)).toMatchObject({
			report: {
				result: "failed",
				error: { code: "LOTTOR_INVALID_PAYLOAD", retryable: false },
			},
		});
		expect(adapter.published).toEqual([]);
	});

	test("LOTTOR_CHANNEL_UNCONFIRMED: what may have been sent is unknown, and treated as sent", async () => {
		adapter.error = new LottorError("LOTTOR_CHANNEL_UNCONFIRMED", "no answer");
		expect(await send(envelope())).toMatchObject({ result: "unknown", instance: null });
		expect(delivery.available).toBe(true);
	});

	test("R24 a lost connection is told, and its backlog is not known", async () => {
		adapter.connected = false;
		await until(() => !delivery.available);
		expect(await delivery.backlog("auth", "store")).toBeUndefined();
		adapter.connected = true;
		await until(() => delivery.available);
		expect(changes.slice(-2)).toEqual([false, true]);
	});

	test("R3 instances with stores of their own have a channel for each store", async () => {
		instance = { ...instance, partitioned: true };
		await send(envelope());
		expect(adapter.published[0]).toMatchObject({ channel: "ns.tx-auth.store" });
	});

	test("a target that takes no messages from a broker is not sent any, and is named", async () => {
		instance = { ...instance, receives: false };
		expect(await send(envelope())).toMatchObject({
			result: "refused",
			error: { message: expect.stringContaining("auth") as unknown },
		});
		expect(adapter.published).toEqual([]);
	});

	test("R25 a plain action is called past the broker; a plain channel gets no store", async () => {
		const service = { name: "plain", actions: { grant: () => "fine" } };
		broker.createService(service);
		await broker.waitForServices("plain");
		const toAction = envelope({ target: "plain", storeId: null });
		expect(await send(toAction, "action")).toMatchObject({ report: { result: "consumed" } });
		expect(adapter.published).toEqual([]);
		await send(toAction, "channel");
		const { headers } = adapter.published[0]?.options ?? {};
		expect(headers).toMatchObject({ "lottor-target": "plain" });
		expect(headers).not.toHaveProperty("lottor-store");
	});
});

describe("receiving", () => {
	const taken: Envelope[] = [];
	let end: "done" | "keep" = "done";

	async function receive(targets = ["auth"]) {
		taken.length = 0;
		end = "done";
		const service = broker.createService({
			name: `auth-${targets.length}`,
		});
		const reception = await delivery.receive?.({
			service,
			targets,
			storeId: null,
			maxInFlight: 5,
			handle: (one) => {
				taken.push(one);
				return Promise.resolve(end);
			},
		});
		await until(() => adapter.channels.size === targets.length);
		return reception;
	}

	test("the envelope comes as it was sent, on every name of the service; one connection serves all", async () => {
		const reception = await receive(["auth", "v1.auth"]);
		expect(adapter.connections).toBe(1);
		expect([...adapter.channels.keys()]).toEqual(["ns.tx-auth", "ns.tx-v1.auth"]);
		expect(adapter.channels.get("ns.tx-v1.auth")).toMatchObject({
			group: "v1.auth",
			maxInFlight: 5,
			maxRetries: -1,
		});
		const one = envelope({ content: '{"own":{"$literal":{"$date":"x"}}}' });
		await send(one);
		await adapter.hand(adapter.published[0] as Published);
		expect(taken).toEqual([one]);
		await reception?.stop();
		expect([adapter.channels.size, adapter.connections]).toEqual([0, 1]);
	});

	test("LOTTOR_ENVELOPE_INVALID: what is none of Lottor's is refused, for the dead-letter queue", async () => {
		await receive();
		await send(envelope());
		const [good] = adapter.published as [Published];
		const rest = { ...good.options.headers };
		delete rest["lottor-receipt"];
		for (const bad of [{ headers: {} }, { headers: rest }]) {
			const error: unknown = await adapter
				.hand({ ...good, options: bad })
				.catch((thrown: unknown) => thrown);
			expect(error).toMatchObject({ type: "LOTTOR_ENVELOPE_INVALID" });
			expect(adapter.channels.get(good.channel)?.isPoison?.(error)).toBe(true);
		}
		expect(taken).toEqual([]);
	});

	test("R33 what a hook throws or swallows is not poison; what it throws afterwards counts for nothing", async () => {
		const own = new LottorError("LOTTOR_ENVELOPE_INVALID", "the hook's own");
		let hook: (next: () => Promise<unknown>) => unknown = () => Promise.reject(own);
		broker.middlewares.add({
			localChannel:
				(next: (...all: unknown[]) => Promise<unknown>) =>
				(...all: unknown[]) =>
					hook(() => next(...all)),
		} as never);
		await receive();
		await send(envelope());
		const [good] = adapter.published as [Published];
		const isPoison = adapter.channels.get(good.channel)?.isPoison;
		const first: unknown = await adapter.hand(good).catch((error: unknown) => error);
		expect([first, isPoison?.(first)]).toEqual([own, false]);
		hook = () => undefined;
		const second: unknown = await adapter.hand(good).catch((error: unknown) => error);
		expect([String(second), isPoison?.(second)]).toEqual([
			expect.stringContaining("has not called"),
			false,
		]);
		expect(taken).toEqual([]);
		hook = (next) => next().then(() => Promise.reject(own));
		await adapter.hand(good);
		expect(taken).toHaveLength(1);
	});

	test("R33 what a stopping consumer leaves is given back", async () => {
		await receive();
		end = "keep";
		await send(envelope());
		await expect(adapter.hand(adapter.published[0] as Published)).rejects.toMatchObject({
			type: "LOTTOR_STOPPING",
		});
	});
});

describe("LOTTOR_INVALID_OPTIONS: refused at the start", () => {
	test("an adapter with another serializer than the node's", async () => {
		const other = new HandAdapter();
		other.serializer = new Serializers.JSONExt();
		const host = { broker, logger: broker.logger, callTimeout: 1_000 };
		const starting = resolveDelivery(other, "delivery").start({
			...host,
			instances: () => [],
			availabilityChanged: () => undefined,
		});
		await expect(starting).rejects.toMatchObject({
			type: "LOTTOR_INVALID_OPTIONS",
			message: expect.stringContaining("application/json;variant=moleculer-ext") as unknown,
			data: { field: "delivery" },
		});
	});

	test("a name that the broker can't have, by its field", async () => {
		const service = broker.createService({ name: "fine" });
		const receiving = delivery.receive?.({
			service,
			targets: ["fine", "old name"],
			storeId: null,
			maxInFlight: 1,
			handle: () => Promise.resolve("done"),
		});
		await expect(receiving).rejects.toMatchObject({ data: { field: "fine.aliases[0]" } });
		expect(delivery.targetProblem?.("old name")).toBe("which has a space");
		expect(delivery.targetProblem?.("fine")).toBeUndefined();
	});
});

describe("a broker's URL or options", () => {
	test("are told without their secrets", () => {
		const said = (spec: string) => resolveDelivery(spec, "delivery").description;
		expect(said("amqp://user:S3cret@host:5672/vhost")).toBe("amqp://host:5672");
		expect(said("kafka://a:1,b:2?ssl=true")).toBe("kafka://a:1,b:2");
		expect(resolveDelivery({ kafka: { brokers: ["a"] } }, "delivery").description).toBe(
			"kafka by options",
		);
	});

	test.each([["mqtt://u:S3cret@h"], ["redis://:S3cret@"], [{}], [null], [5], ["directly"]])(
		"%j is refused by the option's name",
		(spec) => {
			const resolve = () => resolveDelivery(spec as string, "Coordinator.delivery");
			expect(resolve).toThrow("Option Coordinator.delivery");
			expect(resolve).not.toThrow(/S3cret/);
		},
	);
});
