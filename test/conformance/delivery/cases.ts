import { isDeepStrictEqual } from "node:util";

import channels from "@moleculer/channels";
import type { Context, Middleware, ServiceBroker, ServiceSchema } from "moleculer";

import { type ChannelAdapter, channelAdapter } from "../../../adapters/channels/index.ts";
import { SignedCalls } from "../../../middlewares/signed-calls.ts";
import {
	type ConsumeAnswer,
	type ItemAnswer,
	type MessageRecord,
	newGroupId,
	type ParticipantMetadata,
	type PlainRoute,
	systemClock,
	systemRandom,
	toHeaders,
	WIRE_VERSION,
} from "../../../protocol/index.ts";
import { until } from "../../support/until.ts";
import { type DeliveryStage, type Peer, Work } from "./stage.ts";

/** @returns why the case is not for this way of delivery; undefined: it held */
type Case = (stage: DeliveryStage) => Promise<string | undefined | void>;

const NONE = "-";

/** Every case of the suite; each has a cluster of its own. */
export const CASES = {
	async "R23 first message before any consumer exists"(stage) {
		await stage.start();
		const ids = await stage.send("auth", 5);
		await stage.reached(ids, ({ parked, sends }) => parked && sends === 0);
		await stage.consumer("c", "auth", new Work());
		await stage.exactlyOnce(["auth"]);
	},

	async "R24 a consumer that is down: its backlog waits once, and drains when it returns"(stage) {
		await stage.start();
		const work = new Work(true);
		const options = { concurrency: 4, handlerTimeout: 5_000, stopTimeout: 1 };
		const first = await stage.consumer("c1", "auth", work, options);
		const ids = await stage.send("auth", 30);
		await until(() => work.runs.size > 0);
		await first.stop();
		ids.push(...(await stage.send("auth", 30)));
		await stage.consumer("c2", "auth", new Work());
		await stage.exactlyOnce(["auth"]);
		for (const id of ids) {
			const [message] = await stage.messages(id);
			// The one attempt that the stop cut short may have been reported as failed.
			if ((message?.sends ?? 9) > 3)
				throw new Error(`${message?.id}: ${message?.sends} sends`);
		}
	},

	async "burst of 10,000"(stage) {
		await stage.start({ ackTimeout: 10_000 });
		const work = new Work();
		await stage.consumer("c", "auth", work);
		for (let i = 0; i < 100; i++) {
			await stage.sendGroup(Array.from({ length: 100 }, () => ({ target: "auth" })));
		}
		await stage.exactlyOnce(["auth"]);
		const runs = [...work.runs.values()];
		if (runs.length !== 10_000 || runs.some((count) => count !== 1)) {
			throw new Error(`${runs.length} handled, not each once`);
		}
	},

	async "R23 handler slower than ackTimeout"(stage) {
		await stage.start({ ackTimeout: 200 });
		const work = new Work(true);
		await stage.consumer("c", "auth", work);
		const ids = await stage.send("auth", 2);
		await stage.reached(ids, ({ asks }) => asks >= 2);
		work.open();
		await stage.exactlyOnce(["auth"]);
	},

	"poison body": (stage) => poison(stage, Buffer.from([0xff, 0x00, 0xc1]), false),

	"header missing": (stage) => poison(stage, Buffer.from("{}"), true),

	async "R33 graceful stop with work in flight"(stage) {
		await stage.start();
		const work = new Work(true);
		const first = await stage.consumer("c1", "auth", work, { concurrency: 2 });
		await stage.send("auth", 10);
		await until(() => work.runs.size > 0);
		const stopping = first.stop();
		work.open();
		await stopping;
		const later = new Work();
		await stage.consumer("c2", "auth", later);
		await stage.exactlyOnce(["auth"]);
		const twice = [...later.runs.keys()].filter((id) => work.runs.has(id));
		if (twice.length > 0) throw new Error(`run by both: ${twice.join()}`);
	},

	async "kill -9 of the consumer in the handler"(stage) {
		await stage.startForPeers();
		const stuck = await stage.peer("c1", "auth", "stuck");
		await stage.send("auth", 3);
		await stuck.handling();
		await stuck.kill();
		await stage.peer("c2", "auth", "well");
		await stage.exactlyOnce(["auth"]);
	},

	async "R23 LOTTOR_CONSUMER_CRASHED: a message that kills every consumer fails, the others get through"(
		stage,
	) {
		await stage.startForPeers({ maxVanished: 2, askTimeout: 10_000 });
		const deadly = await stage.send("auth", 1, { payload: { kill: true } });
		const others = await stage.send("auth", 5);
		const failed = async () => {
			const [message] = await stage.messages(deadly[0] ?? "");
			return message?.state === "failed" ? message.error?.code : undefined;
		};
		let deaths = 0;
		let peer: Peer | undefined;
		while ((await failed()) === undefined) {
			peer = await stage.peer(`c${deaths}`, "auth", "deadly");
			await Promise.race([
				peer.ended.then(() => deaths++),
				until(async () => !!(await failed())),
			]);
			if (deaths > 10) throw new Error(`${deaths} consumers died of it`);
		}
		if ((await failed()) !== "LOTTOR_CONSUMER_CRASHED") throw new Error(await failed());
		await stage.reached(others, ({ state }) => state === "consumed");
		// Mended consumers, and an operator.
		await peer?.kill();
		await stage.peer("mended", "auth", "well");
		const items = [{ id: `${deadly[0]}.0` }];
		await stage.cluster.brokers[0]?.call("lottor.messages.retry", { items });
		await stage.exactlyOnce(["auth"]);
	},

	async "R24 broker restart with persistent data"(stage) {
		if (!stage.subject.broker) return NONE;
		const server = await stage.ownServer();
		await stage.start();
		const work = new Work(true);
		await stage.consumer("c", "auth", work, { concurrency: 1, handlerTimeout: "2m" });
		const ids = await stage.send("auth", 5);
		await stage.reached(ids, ({ state }) => state === "delivering");
		await until(() => work.runs.size === 1);
		await server.kill();
		const late = await stage.send("auth", 5);
		await stage.reached(late, ({ sends, waiting, state }) =>
			sends === 0 ? waiting !== null : state === "delivering",
		);
		await server.start();
		work.open();
		await stage.exactlyOnce(["auth"]);
	},

	async "connection cut"(stage) {
		const proxy = await stage.proxied();
		await stage.start();
		await stage.consumer("c", "auth", new Work());
		for (let i = 0; i < 3; i++) {
			const sending = stage.send("auth", 5);
			await proxy.close();
			await proxy.open();
			await sending;
		}
		await stage.exactlyOnce(["auth"]);
	},

	async "connection half open"(stage) {
		const proxy = await stage.proxied();
		await stage.start({ callTimeout: 500 });
		await stage.consumer("c", "auth", new Work());
		const before = await stage.send("auth", 3);
		await stage.reached(before, ({ state }) => state === "consumed");
		proxy.blackhole();
		const ids = await stage.send("auth", 5);
		// It counts as sent, or is not sent any more, and is asked about.
		await stage.reached(ids, ({ asks, waiting }) => asks > 0 || waiting !== null);
		proxy.mend();
		await stage.exactlyOnce(["auth"]);
	},

	async "R24 connection refused: commits are accepted, messages wait"(stage) {
		const proxy = await stage.proxied();
		await proxy.close();
		await stage.start();
		await stage.consumer("c", "auth", new Work());
		const ids = await stage.send("auth", 5);
		await stage.reached(ids, ({ parked, sends }) => parked && sends === 0);
		await proxy.open();
		await stage.exactlyOnce(["auth"]);
	},

	async "consumer stopped and started again in the same process"(stage) {
		await stage.start();
		const former = await stage.consumer("c", "auth", new Work());
		await stage.send("auth", 5);
		await former.stop();
		await stage.send("auth", 5);
		const node = await stage.consumer("c", "auth", new Work());
		await stage.send("auth", 5);
		// And the service alone, on a node that goes on.
		const service = node.getLocalService("auth");
		const { originalSchema } = service;
		await node.destroyService(service);
		await stage.send("auth", 5);
		node.createService(originalSchema);
		await stage.send("auth", 5);
		await stage.exactlyOnce(["auth"]);
	},

	async "two services on one broker"(stage) {
		await stage.start();
		await stage.consumer("c", ["auth", "mail"], new Work());
		await stage.send("auth", 10);
		await stage.send("mail", 10);
		await stage.sendGroup([{ target: "auth" }, { target: "mail" }]);
		await stage.exactlyOnce(["auth", "mail"]);
	},

	async "two instances of one service: each message is handled by one"(stage) {
		await stage.start();
		const works = [new Work(), new Work()];
		await Promise.all(works.map((work, place) => stage.consumer(`c${place}`, "auth", work)));
		await stage.send("auth", 40);
		await stage.exactlyOnce(["auth"]);
		const [one, other] = works.map(({ runs }) => [...runs.keys()]);
		const both = one?.filter((id) => other?.includes(id)) ?? [];
		if (both.length > 0) throw new Error(`handled by both: ${both.join()}`);
	},

	async "channel deleted under way"(stage) {
		if (!stage.subject.broker) return NONE;
		await stage.start();
		const work = new Work(true);
		await stage.consumer("c", "auth", work, { concurrency: 1 });
		await stage.send("auth", 5);
		await until(() => work.runs.size === 1);
		await stage.broker.remove(stage.url, stage.channel("tx-auth"), "auth");
		await stage.send("auth", 5);
		work.open();
		await stage.exactlyOnce(["auth"]);
	},

	async "namespace set: clusters on one broker don't see each other"(stage) {
		const stages = [stage, stage.beside()];
		for (const [place, one] of stages.entries()) {
			await one.start();
			await one.consumer("c", "auth", new Work());
			await one.send("auth", 5 + place);
		}
		for (const one of stages) await one.exactlyOnce(["auth"]);
	},

	async "R21 a slow target holds up no other, and gets no more than maxInFlight"(stage) {
		// Nothing is asked about meanwhile: what is not answered for long no longer takes room.
		await stage.start({ maxInFlight: 8, ackTimeout: 600_000 });
		const slow = new Work(true);
		await stage.consumer("c1", "slow", slow, { handlerTimeout: "2m" });
		await stage.consumer("c2", "auth", new Work());
		const waiting = await stage.send("slow", 40);
		const quick = await stage.send("auth", 20);
		await stage.reached(quick, ({ state }) => state === "consumed");
		const sent = await Promise.all(waiting.map((id) => stage.messages(id)));
		const underWay = sent.flat().filter(({ state }) => state === "delivering").length;
		if (underWay > 8) throw new Error(`${underWay} under way to the slow target`);
		slow.open();
		await stage.exactlyOnce(["auth", "slow"]);
	},

	async "R3 a partitioned target: each store has its own messages, which wait for it alone"(
		stage,
	) {
		await stage.start();
		const files = ["auth-0", "auth-1"];
		const works = [new Work(), new Work(true)];
		const begin = (place: number, work = works[place] as Work) =>
			stage.consumer(`c${place}`, "auth", work, {
				partitioned: true,
				file: files[place] ?? "",
				handlerTimeout: 500,
				stopTimeout: 1,
			});
		const [first, second] = [await begin(0), await begin(1)];
		const storeOf = (node: ServiceBroker) =>
			(node.getLocalService("auth").metadata["lottor"] as ParticipantMetadata).storeId;
		const stores = [storeOf(first), storeOf(second)];
		const bound: MessageRecord[] = [];
		// What one call commits goes to one store.
		while (
			!stores.every((store) => bound.filter(({ storeId }) => storeId === store).length > 2)
		) {
			const ids = await stage.send("auth", 1);
			await stage.reached(ids, ({ storeId }) => storeId !== null);
			bound.push(...(await stage.messages(ids[0] ?? "")));
		}
		await second.stop();
		const groups = bound.map(({ id }) => id.split(".")[0] ?? "");
		await stage.reached(
			groups.filter((_, place) => bound[place]?.storeId === stores[0]),
			({ state }) => state === "consumed",
		);
		const again = new Work();
		await begin(1, again);
		await stage.exactlyOnce(["auth"], files);
		// What the second one refused when it stopped was not sent: it may have gone to the first.
		const ended = (await Promise.all(groups.map((id) => stage.messages(id)))).flat();
		if (!ended.some(({ storeId }) => storeId === stores[1]))
			throw new Error("Nothing waited for the store that was away");
		for (const { id, storeId } of ended) {
			const own = storeId === stores[0] ? works[0] : again;
			if (!own?.runs.has(id)) throw new Error(`${id} did not run at its store`);
			if (storeId !== stores[0] && works[0]?.runs.has(id))
				throw new Error(`${id} ran at another store`);
		}
	},

	async "LOTTOR_SIGNATURE_INVALID: with a secret, what an intruder writes to the broker is poison"(
		stage,
	) {
		if (!stage.subject.broker) return NONE;
		const node = () => ({
			metrics: true,
			middlewares: [SignedCalls({ secret: "a secret of this cluster" })],
		});
		await stage.start({}, node());
		const consumer = await stage.consumer("c", "auth", new Work(), { node: node() });
		await stage.send("auth", 3);
		const { storeId } = consumer.getLocalService("auth").metadata[
			"lottor"
		] as ParticipantMetadata;
		const group = newGroupId(systemClock, systemRandom);
		const now = Date.now();
		const head = {
			...{ v: WIRE_VERSION, id: `${group}.0`, group, source: "shop", target: "auth" },
			...{ type: "t", attempt: 1, revision: 0, receipt: "r".repeat(32), storeId },
			...{ coordinator: "c", createdAt: now, sentAt: now, orderingKey: null, context: "{}" },
		};
		const body = Buffer.from("{}");
		const adapter = await stage.adapter();
		await adapter.publish(stage.channel("tx-auth"), body, {
			raw: true,
			headers: toHeaders(head, "application/json"),
			groups: ["auth"],
		});
		await stage.send("auth", 3);
		await stage.exactlyOnce(["auth"]);
		await dead(stage, body, "LOTTOR_SIGNATURE_INVALID");
		expectCounted(stage, consumer, { poison: 1, dead: 1 });
	},

	async "R33 a hook localChannel that throws keeps the message"(stage) {
		if (!stage.subject.broker) return NONE;
		await stage.start();
		const refused = new Set<string>();
		const node = {
			metrics: true,
			middlewares: [
				localChannel(async (ctx, next) => {
					const { n } = ctx.params as { n: string };
					if (!refused.has(n)) {
						refused.add(n);
						throw new Error(`the hook's own fault at ${n}`);
					}
					await next();
				}),
			],
		};
		const consumer = await stage.consumer("c", "auth", new Work(), { node });
		for (const n of ["one", "two", "three"]) await stage.send("auth", 1, { payload: { n } });
		await stage.exactlyOnce(["auth"]);
		if (refused.size !== 3) throw new Error(`the hook saw ${refused.size} of 3`);
		expectCounted(stage, consumer, { poison: 0, dead: 0 });
	},

	async "LOTTOR_CHANNEL_UNAVAILABLE: a channel that the broker refuses holds up no other, and says why"(
		stage,
	) {
		if (!stage.subject.broker) return NONE;
		const bad = stage.channel("tx-bad");
		await stage.broker.spoil(stage.url, bad, "bad");
		await stage.start();
		await stage.consumer("c1", "bad", new Work());
		await stage.consumer("c2", "auth", new Work());
		const refused = await stage.send("bad", 3);
		const good: string[] = [];
		const isRefused = async () => {
			const messages = (await Promise.all(refused.map((id) => stage.messages(id)))).flat();
			return messages.every(({ waiting }) =>
				waiting?.startsWith("LOTTOR_CHANNEL_UNAVAILABLE: "),
			);
		};
		// Until it was refused twice, at least.
		const until2s = performance.now() + 2_000;
		while (performance.now() < until2s || !(await isRefused())) {
			const ids = await stage.send("auth", 1);
			await stage.reached(ids, ({ state }) => state === "consumed");
			good.push(...ids);
		}
		for (const id of good) {
			const { timeline } = await stage.cluster.view(id);
			const held = timeline.find(({ why }) => why?.includes("UNAVAILABLE"));
			if (held) throw new Error(`a good one was held up: ${held.why}`);
		}
		await stage.broker.remove(stage.url, bad, "bad");
		await stage.exactlyOnce(["auth", "bad"]);
	},

	async "channels' own Tracing() sees each message"(stage) {
		if (!stage.subject.broker) return NONE;
		await stage.start();
		const spans: unknown[] = [];
		const node = {
			metrics: true,
			tracing: true,
			middlewares: [
				localChannel(async (ctx, next) => {
					spans.push(ctx.span?.name);
					await next();
				}),
				channels.Tracing(),
			],
		};
		const consumer = await stage.consumer("c", "auth", new Work(), { node });
		await stage.send("auth", 3);
		await stage.exactlyOnce(["auth"]);
		const expected = `channel '${stage.channel("tx-auth")}'`;
		if (!isDeepStrictEqual(spans, [expected, expected, expected]))
			throw new Error(`spans: ${spans.join()}`);
		expectCounted(stage, consumer, { poison: 0, dead: 0 });
	},

	async "dates, buffers and big integers arrive, by CBOR"(stage) {
		const node = { serializer: "CBOR" as const };
		await stage.start({}, node);
		const work = new Work();
		await stage.consumer("c", "auth", work, { node });
		const payload = {
			at: new Date("2026-01-31T12:00:00.123Z"),
			bytes: Buffer.from([0, 255]),
			many: 2n ** 70n,
		};
		await stage.send("auth", 1, { payload });
		await stage.exactlyOnce(["auth"]);
		if (!isDeepStrictEqual(work.payloads, [payload])) throw new Error("another payload came");
	},

	async "R25 targets without the mixin: an action, and a consumer of the channel"(stage) {
		await stage.start();
		await plainTarget(stage, "action");
		if (stage.subject.broker)
			await plainTarget(stage, "channel", channelAdapter(stage.delivery as string));
	},

	async "R25 a consumer of the channel with the stock adapter"(stage) {
		const { broker } = stage.subject;
		if (!broker) return NONE;
		await broker.ready?.(stage.url, stage.channel("tx-legacy-channel"));
		await stage.start();
		await plainTarget(stage, "channel", broker.stock(stage.url));
	},
} as const satisfies Record<string, Case>;

export type CaseName = keyof typeof CASES;

/** Something that is none of Lottor's comes between good messages. */
async function poison(stage: DeliveryStage, body: Buffer, readable: boolean): Promise<void> {
	await stage.start();
	const node = await stage.consumer("c", "auth", new Work(), { node: { metrics: true } });
	await stage.send("auth", 3);
	if (stage.subject.broker) {
		const adapter = await stage.adapter();
		const headers = readable
			? { "lottor-version": "1", "content-type": "application/json" }
			: {};
		await adapter.publish(stage.channel("tx-auth"), body, {
			raw: true,
			headers,
			groups: ["auth"],
		});
		await stage.send("auth", 3);
		await stage.exactlyOnce(["auth"]);
		await dead(stage, body, readable ? "LOTTOR_ENVELOPE_INVALID" : undefined);
		expectCounted(stage, node, { poison: 1, dead: 1 });
		return;
	}
	const items = [{ body }, null, 5];
	const answers = await node.call<ConsumeAnswer[], object>("auth.reliable.consume", { items });
	if (answers.some(({ result }) => result !== "refused"))
		throw new Error(JSON.stringify(answers));
	await stage.send("auth", 3);
	await stage.exactlyOnce(["auth"]);
}

/** A middleware whose hook is called as that of channels, inside of those that come after it. */
function localChannel(
	hook: (ctx: Context, next: () => Promise<unknown>) => Promise<void>,
): Middleware {
	return {
		localChannel:
			(handler: (...all: unknown[]) => Promise<unknown>) =>
			(ctx: Context, ...rest: unknown[]) =>
				hook(ctx, () => handler(ctx, ...rest)),
	} as Middleware;
}

/** What a consumer's node has to have counted of the channel `tx-auth`. */
function expectCounted(
	stage: DeliveryStage,
	{ metrics }: ServiceBroker,
	expected: { poison: number; dead: number },
): void {
	const labels = { channel: stage.channel("tx-auth"), group: "auth" };
	const count = (name: string): number => {
		const found = metrics.getMetric(name)?.get(labels) as { value: number } | undefined;
		return found?.value ?? 0;
	};
	const counted = {
		poison: count("moleculer.lottor.channels.poison.total"),
		dead: count("moleculer.channels.messages.deadLettering.total"),
	};
	if (!isDeepStrictEqual(counted, expected)) throw new Error(JSON.stringify(counted));
}

/** What the dead-letter queue has to have: the body as it came, and what was wrong with it. */
async function dead(stage: DeliveryStage, body: Buffer, type: string | undefined): Promise<void> {
	let found: Awaited<ReturnType<DeliveryStage["broker"]["first"]>> | undefined;
	await until(async () => {
		found = await stage.broker
			.first(stage.url, stage.channel("tx-auth.dead"))
			.catch(() => undefined);
		return found !== undefined && found.body.length > 0;
	});
	const text = (name: string) => {
		const value = found?.headers[name];
		return Buffer.isBuffer(value) || typeof value === "string" ? value.toString() : "";
	};
	if (!found?.body.equals(body)) throw new Error("the dead letter has another body");
	if (text("x-error-message") === "") throw new Error("the dead letter does not say why");
	if (type !== undefined && text("x-error-type") !== type) throw new Error(text("x-error-type"));
	if (text("x-original-channel") !== stage.channel("tx-auth")) {
		throw new Error(`dead letter of ${text("x-original-channel")}`);
	}
}

/** Sends to a service without the mixin, each of whose messages fails once and then succeeds. */
async function plainTarget(
	stage: DeliveryStage,
	deliver: PlainRoute,
	adapter?: ChannelAdapter,
): Promise<void> {
	const tried = new Set<unknown>();
	const handled: unknown[] = [];
	const name = `legacy-${deliver}`;
	const node = stage.cluster.broker(name, {
		namespace: stage.namespace,
		transporter: "Fake",
		middlewares: adapter ? [channels.Middleware({ adapter } as never)] : [],
	});
	node.createService(
		plain(name, deliver, ({ n }) => {
			if (!tried.has(n)) {
				tried.add(n);
				throw new Error("not yet");
			}
			handled.push(n);
		}),
	);
	await node.start();
	const sent = [1, 2, 3, 4, 5];
	for (const n of sent) await stage.send(name, 1, { payload: { n }, deliver });
	await stage.ended();
	if (!isDeepStrictEqual(handled.sort(), sent)) throw new Error(`handled: ${handled.join()}`);
}

/** The service of docs/delivery.md, or the action. */
function plain(
	name: string,
	deliver: PlainRoute,
	work: (payload: { n: number }) => void,
): ServiceSchema {
	if (deliver === "action") {
		return { name, actions: { t: (ctx: Context<{ n: number }>) => work(ctx.params) } };
	}
	return {
		name,
		channels: {
			[`tx-${name}`]: {
				kafka: { fromBeginning: true },
				async handler(
					this: { broker: ServiceBroker },
					payload: { n: number },
					raw: unknown,
				) {
					const { channelAdapter: adapter } = this.broker as ServiceBroker & {
						channelAdapter: {
							parseMessageHeaders(raw: unknown): Record<string, unknown>;
						};
					};
					const headers = adapter.parseMessageHeaders(raw);
					const text = (header: string) =>
						decodeURIComponent(String(headers[`lottor-${header}`]));
					const item = {
						id: text("id"),
						receipt: text("receipt"),
						attempt: Number(text("attempt")),
						revision: Number(text("revision")),
						storeId: null,
						result: "consumed",
					};
					const failed = {
						...{ result: "failed" },
						error: { code: "NOT_YET", message: "not yet", retryable: true },
					};
					try {
						work(payload);
					} catch {
						Object.assign(item, failed);
					}
					const items = [item];
					const [answer] = await this.broker.call<ItemAnswer[], object>("lottor.report", {
						items,
					});
					if (answer?.result !== "ok") throw new Error(answer?.result);
				},
			},
		},
	} as ServiceSchema;
}
