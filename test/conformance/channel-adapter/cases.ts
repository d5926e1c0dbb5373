import { setTimeout as sleep } from "node:timers/promises";

import { expect } from "@jest/globals";

import type { ChannelAdapter } from "../../../adapters/channels/index.ts";
import { until } from "../../support/until.ts";
import { consumer } from "./nodes.ts";
import type { Stage } from "./stage.ts";

type Case = (stage: Stage) => Promise<string | void>;

const WORK = "work";
const SVC = "svc";
const BURST = 10_000;
const names = (count: number) => Array.from({ length: count }, (_, index) => `m${index}`);

/** What handlers were called with. */
class Seen {
	readonly list: string[] = [];

	/** @returns a service that notes what it handles */
	service(name = SVC, channel = WORK, options: object = {}) {
		return consumer(name, channel, (payload: string) => void this.list.push(payload), options);
	}

	/** Waits until all of these were handled, and expects each once. */
	async exactly(expected: readonly string[]): Promise<void> {
		await until(() => new Set(this.list).size >= expected.length);
		expect([...this.list].sort()).toEqual([...expected].sort());
	}
}

/** Sends until the broker has it, as whoever keeps a message does. */
async function persistently(send: () => Promise<void>): Promise<unknown[]> {
	const errors: unknown[] = [];
	for (;;) {
		try {
			await send();
			return errors;
		} catch (error) {
			errors.push(error);
			await sleep(100);
		}
	}
}

const retryable = (type: RegExp) =>
	expect.objectContaining({ type: expect.stringMatching(type), retryable: true });
const UNSENT = /^LOTTOR_CHANNEL_UNAVAILABLE$/;
const ANY = /^LOTTOR_CHANNEL_(UNAVAILABLE|UNCONFIRMED)$/;

/** Waits until nothing is left; each adapter knows what its own consumers hold. */
const emptied = (stage: Stage, ...nodes: readonly { adapter: ChannelAdapter }[]) =>
	until(async () => {
		const left = await Promise.all(
			nodes.map(({ adapter }) => adapter.backlog(stage.named(WORK), SVC)),
		);
		return left.every((count) => count === 0);
	});

export const CASES = {
	async "first message before any consumer"(stage) {
		const seen = new Seen();
		const producer = await stage.started("producer");
		await producer.send(WORK, "first", { groups: [SVC] });
		await stage.started("consumer", [seen.service()]);
		await seen.exactly(["first"]);
	},

	async "consumer later than its producer"(stage) {
		const seen = new Seen();
		const producer = await stage.started("producer");
		await producer.adapter.declare(stage.named(WORK), SVC);
		for (const name of names(20)) await producer.send(WORK, name);
		await producer.broker.stop();
		const { adapter } = await stage.started("consumer", [seen.service()]);
		await seen.exactly(names(20));
		await emptied(stage, { adapter });
	},

	async "burst of 10,000"(stage) {
		const seen = new Seen();
		const { send, adapter } = await stage.started("both", [
			seen.service(SVC, WORK, { maxInFlight: 200 }),
		]);
		await Promise.all(names(BURST).map((name) => send(WORK, name)));
		await seen.exactly(names(BURST));
		await emptied(stage, { adapter });
	},

	async "poison body"(stage) {
		const seen = new Seen();
		const { send, adapter, broker } = await stage.started("both", [seen.service()]);
		const poison = Buffer.from("{nobody can read");
		await adapter.publish(stage.named(WORK), poison, { raw: true, headers: { own: "kept" } });
		await send(WORK, "good");
		await seen.exactly(["good"]);
		await emptied(stage, { adapter });
		const dead = await stage.subject.first(stage.url, stage.named("FAILED_MESSAGES"));
		expect(dead.body).toEqual(poison);
		const headers = Object.fromEntries(
			Object.entries(dead.headers).map(([name, value]) => [name, String(value)]),
		);
		expect(headers).toMatchObject({
			own: "kept",
			"x-original-channel": stage.named(WORK),
			"x-original-group": SVC,
			"x-error-name": "SyntaxError",
			"x-error-message": expect.stringContaining("JSON"),
			"x-error-timestamp": expect.stringMatching(/^\d{13}$/),
		});
		const poisoned = broker.metrics.getMetric("moleculer.lottor.channels.poison.total");
		expect(poisoned?.get({ channel: stage.named(WORK), group: SVC })?.value).toBe(1);
	},

	async "header missing, handler that fails"(stage) {
		const headers: unknown[] = [];
		const failing = consumer(SVC, WORK, (_: unknown, raw) => {
			headers.push(node.adapter.parseMessageHeaders(raw));
			throw new Error("always");
		});
		const node = await stage.started("both", [failing]);
		await node.adapter.publish(stage.named(WORK), Buffer.from('"bare"'), { raw: true });
		await emptied(stage, node);
		expect(headers).toHaveLength(3);
		expect(Object.keys(headers[0] ?? {}).filter((name) => !/^nats/i.test(name))).toEqual([]);
		const dead = await stage.subject.first(stage.url, stage.named("FAILED_MESSAGES"));
		expect(String(dead.headers["x-error-message"])).toBe("always");
	},

	async "graceful stop with work in flight"(stage) {
		const seen = new Seen();
		let open: () => void = () => undefined;
		const gate = new Promise<void>((resolve) => (open = resolve));
		const begun: string[] = [];
		const slow = consumer(SVC, WORK, async (name: string) => {
			begun.push(name);
			await gate;
			seen.list.push(name);
		});
		const first = await stage.started("first", [slow], { maxInFlight: 5 });
		for (const name of names(20)) await first.send(WORK, name);
		await until(() => begun.length === 5);
		const { adapter } = first;
		const unsubscribe = adapter.unsubscribe.bind(adapter);
		// Handlers end only when the end of the subscription has begun.
		adapter.unsubscribe = (channel) => {
			const ended = unsubscribe(channel);
			open();
			return ended;
		};
		const stopped = first.broker.stop();
		await stopped;
		expect(seen.list).toHaveLength(5);
		const second = await stage.started("second", [seen.service()], stage.subject.hasty);
		await seen.exactly(names(20));
		await emptied(stage, second);
	},

	async "kill -9 in the handler"(stage) {
		const seen = new Seen();
		const { subject } = stage;
		const producer = await stage.started("producer", [], subject.hasty);
		await producer.adapter.declare(stage.named(WORK), SVC);
		const peer = await stage.peer("victim", { ...subject.hasty, maxInFlight: 10 });
		await until(() => peer.handled.includes("PEER STARTED"));
		for (const name of ["stuck", ...names(10)]) await producer.send(WORK, name, { key: "one" });
		await until(() => peer.handled.length === 12);
		// Acknowledgements leave a moment after a handler's end, and nobody tells of them.
		await sleep(500);
		// Those that are done stay done; on an ordered log, those after the stuck one come again.
		await peer.kill();
		await producer.send(WORK, "later", { key: "one" });
		const begin = performance.now();
		const { adapter } = await stage.started("heir", [seen.service()], subject.hasty);
		await until(() => seen.list.includes("stuck") && seen.list.includes("later"));
		await emptied(stage, { adapter });
		const seconds = ((performance.now() - begin) / 1_000).toFixed(1);
		if (subject.name !== "Kafka") expect(seen.list.sort()).toEqual(["later", "stuck"]);
		return `${seconds} s`;
	},

	async "broker restart with its data"(stage) {
		const seen = new Seen();
		const server = await stage.ownServer();
		const both = await stage.started(
			"both",
			[seen.service()],
			{ publishTimeout: 2_000 },
			server.url,
		);
		await both.send(WORK, "before");
		await seen.exactly(["before"]);
		const kept = await stage.started("kept", [], {}, server.url);
		await kept.send("other", "kept", { groups: ["later"] });

		await server.kill();
		await expect(persistentlyFailing(() => both.send(WORK, "during"))).resolves.toEqual(
			retryable(ANY),
		);
		await server.start();
		await persistently(() => both.send(WORK, "after"));
		await until(() => seen.list.includes("after"));
		const later = new Seen();
		await stage.started("later", [later.service("later", "other")], {}, server.url);
		await later.exactly(["kept"]);
	},

	async "server down at the start"(stage) {
		const seen = new Seen();
		const { proxy, url, options } = await stage.proxy();
		await proxy.close();
		const node = stage.node("both", [seen.service()], options, url);
		let up = false;
		const started = node.broker.start().then(() => (up = true));
		await sleep(300);
		expect(up).toBe(false);
		await expect(node.send(WORK, "early")).rejects.toEqual(retryable(UNSENT));
		await proxy.open();
		await started;
		await node.send(WORK, "m0");
		await seen.exactly(["m0"]);
	},

	async "connection cut, and refused for a while"(stage) {
		const seen = new Seen();
		const { proxy, url, options } = await stage.proxy();
		const direct = await stage.started("direct");
		const both = await stage.started(
			"both",
			[seen.service()],
			{ ...options, publishTimeout: 2_000 },
			url,
		);
		await both.send(WORK, "before");
		await seen.exactly(["before"]);
		await proxy.close();
		const error = await persistentlyFailing(() => both.send(WORK, "during"));
		expect(error).toEqual(retryable(ANY));
		await direct.send(WORK, "meanwhile");
		await proxy.open();
		await persistently(() => both.send(WORK, "after"));
		await until(() => ["meanwhile", "after"].every((name) => seen.list.includes(name)));
	},

	async "half-open connection"(stage) {
		const seen = new Seen();
		const { proxy, url, options } = await stage.proxy();
		const direct = await stage.started("direct");
		const given = { ...stage.subject.hasty, ...options, publishTimeout: 1_000 };
		const merged = stage.subject.over
			? {
					...given,
					kafka: {
						...(stage.subject.hasty["kafka"] as object),
						...(options["kafka"] as object),
					},
				}
			: given;
		const both = await stage.started("both", [seen.service()], merged, url);
		await both.send(WORK, "before");
		await seen.exactly(["before"]);
		proxy.strand();
		const begin = performance.now();
		await direct.send(WORK, "meanwhile");
		const errors = await persistently(() => both.send(WORK, "after"));
		expect(errors[0]).toEqual(retryable(ANY));
		await until(() => ["meanwhile", "after"].every((name) => seen.list.includes(name)));
		return `${((performance.now() - begin) / 1_000).toFixed(1)} s`;
	},

	async "stopped and started again in one process"(stage) {
		const seen = new Seen();
		const node = await stage.started("both", [seen.service()]);
		await node.send(WORK, "m0");
		await seen.exactly(["m0"]);
		await node.broker.stop();
		await expect(node.send(WORK, "no")).rejects.toEqual(retryable(UNSENT));
		await node.broker.start();
		await node.send(WORK, "m1");
		await seen.exactly(["m0", "m1"]);
	},

	async "two services on one channel"(stage) {
		const [one, two] = [new Seen(), new Seen()];
		const { send } = await stage.started("both", [one.service("one"), two.service("two")]);
		for (const name of names(10)) await send(WORK, name);
		await Promise.all([one.exactly(names(10)), two.exactly(names(10))]);
	},

	async "two instances of one service"(stage) {
		const all = new Seen();
		const counts = [0, 0];
		const instance = (place: 0 | 1) =>
			consumer(SVC, WORK, async (name: string) => {
				counts[place] = (counts[place] ?? 0) + 1;
				all.list.push(name);
				await sleep(5);
			});
		const options = { maxInFlight: 3 };
		const one = await stage.started("one", [instance(0)], options);
		const two = await stage.started("two", [instance(1)], options);
		const count = 300;
		await Promise.all(names(count).map((name) => one.send(WORK, name, { key: name })));
		await all.exactly(names(count));
		await emptied(stage, one, two);
		expect(Math.min(...counts)).toBeGreaterThan(0);
		return counts.join(" + ");
	},

	async "channel deleted under way"(stage) {
		const seen = new Seen();
		const { send, adapter } = await stage.started("both", [seen.service()]);
		await send(WORK, "before", { groups: [SVC] });
		await seen.exactly(["before"]);
		await emptied(stage, { adapter });
		await stage.subject.remove(stage.url, stage.named(WORK), SVC);
		await persistently(() => send(WORK, "after", { groups: [SVC] }));
		// What was sent while the channel was being removed may have gone with it.
		let sends = 1;
		while (!seen.list.includes("after")) {
			await sleep(500);
			if (seen.list.includes("after")) break;
			if ((await adapter.backlog(stage.named(WORK), SVC)) !== 0) continue;
			sends++;
			await persistently(() => send(WORK, "after", { groups: [SVC] }));
		}
		await send(WORK, "again");
		await until(() => seen.list.includes("again"));
		return `${sends} sends`;
	},

	async "backlog, unacknowledged ones included"(stage) {
		const channel = stage.named(WORK);
		let open: () => void = () => undefined;
		const gate = new Promise<void>((resolve) => (open = resolve));
		const begun: string[] = [];
		const producer = await stage.started("producer");
		expect(await producer.adapter.backlog(channel, SVC)).toBe(0);
		for (const name of names(5)) await producer.send(WORK, name, { groups: [SVC] });
		expect(await producer.adapter.backlog(channel, SVC)).toBe(5);
		const slow = consumer(SVC, WORK, (name: string) => {
			begun.push(name);
			return gate;
		});
		const { adapter } = await stage.started("consumer", [slow], { maxInFlight: 5 });
		await until(() => begun.length === 5);
		expect(await adapter.backlog(channel, SVC)).toBe(5);
		// The others can't be held by whoever asks.
		const { tellsOthers } = stage.subject;
		expect(await producer.adapter.backlog(channel, SVC)).toBe(tellsOthers ? 5 : 0);
		open();
		await emptied(stage, { adapter });
		await producer.broker.stop();
		expect(await producer.adapter.backlog(channel, SVC)).toBeUndefined();
	},

	async "channels whose names differ in a dot only"(stage) {
		// Kafka itself refuses the second topic, since its metrics would have the same name.
		if (stage.subject.name === "Kafka") return "-";
		const [one, two] = [new Seen(), new Seen()];
		const { send, adapter } = await stage.started("both", [
			one.service(SVC, "v2.work"),
			two.service(SVC + "2", "v2_work"),
		]);
		await send("v2.work", "dot");
		await send("v2_work", "line");
		await Promise.all([one.exactly(["dot"]), two.exactly(["line"])]);
		for (const [name, group] of [
			["v2.work", SVC],
			["v2_work", SVC + "2"],
		] as const)
			await until(async () => (await adapter.backlog(stage.named(name), group)) === 0);
	},

	async "a size that the broker refuses"(stage) {
		if (!stage.subject.limit) return "-";
		await stage.subject.limit(stage.url, stage.named(WORK), 2_000);
		const seen = new Seen();
		const { send } = await stage.started("both", [seen.service()]);
		const large = "x".repeat(3_000);
		const ends = await Promise.allSettled(
			[...names(10), large, "after"].map((payload) => send(WORK, payload)),
		);
		const refused = ends.flatMap((end) =>
			end.status === "rejected" ? [end.reason as unknown] : [],
		);
		expect(refused).toEqual([
			expect.objectContaining({ type: "LOTTOR_PAYLOAD_TOO_LARGE", retryable: false }),
		]);
		await seen.exactly([...names(10), "after"]);
	},

	async "maxInFlight of each channel"(stage) {
		const most: Record<string, number> = {};
		let handled = 0;
		const limited = (name: string, maxInFlight: number) => {
			let now = 0;
			let full: () => void = () => undefined;
			const filled = new Promise<void>((resolve) => (full = resolve));
			const handler = async () => {
				most[name] = Math.max(most[name] ?? 0, ++now);
				if (now === maxInFlight) full();
				await filled;
				await sleep(5);
				now--;
				handled++;
			};
			return consumer(name, name, handler, { maxInFlight });
		};
		const { send } = await stage.started("both", [limited("one", 1), limited("four", 4)]);
		const sends = names(20).flatMap((name) => [
			send("one", name, { key: "k" }),
			send("four", name, { key: "k" }),
		]);
		await Promise.all(sends);
		await until(() => handled === 40);
		expect(most).toEqual({ one: 1, four: 4 });
	},

	async "handler slower than every time-out"(stage) {
		const seen = new Seen();
		let ended = 0;
		const slow = consumer(SVC, WORK, async (name: string) => {
			seen.list.push(name);
			await sleep(12_000);
			ended++;
		});
		// Short, but no machine that is busy stands still for so long.
		const options = {
			redis: { consumerOptions: { minIdleTime: 5_000, claimInterval: 500 } },
			nats: { consumerOptions: { config: { ack_wait: 5e9 } } },
			kafka: { consumerOptions: { sessionTimeout: 8_000, heartbeatInterval: 500 } },
		};
		const one = await stage.started("one", [slow], options);
		const two = await stage.started("two", [slow], options);
		await one.send(WORK, "m0");
		await until(() => ended > 0);
		await emptied(stage, one, two);
		expect(seen.list).toEqual(["m0"]);
	},

	async "handled ones trimmed, others not"(stage) {
		if (!stage.subject.trims) return "-";
		const seen = new Seen();
		const options = { trimInterval: 100 };
		const never = consumer("stuck", WORK, (name: string) =>
			name === "m50" ? new Promise(() => undefined) : undefined,
		);
		const { send, adapter } = await stage.started("both", [seen.service(), never], {
			...options,
			stopTimeout: 100,
		});
		await Promise.all(names(50).map((name) => send(WORK, name)));
		for (const name of ["m50", ...names(10)]) await send(WORK, name);
		const channel = stage.named(WORK);
		await until(async () => (await adapter.backlog(channel, "stuck")) === 1);
		await until(async () => (await stage.subject.stored(stage.url, channel)) <= 12);
		expect(await stage.subject.stored(stage.url, channel)).toBeGreaterThanOrEqual(11);
		expect(seen.list).toHaveLength(61);
	},
} as const satisfies Record<string, Case>;

export type CaseName = keyof typeof CASES;

/** Cases that start servers, or a burden for two cores: they are played one adapter after the other. */
export const HEAVY: readonly CaseName[] = ["burst of 10,000"];

/** @returns the first error */
async function persistentlyFailing(send: () => Promise<void>): Promise<unknown> {
	for (;;) {
		try {
			await send();
			await sleep(20);
		} catch (error) {
			return error;
		}
	}
}
