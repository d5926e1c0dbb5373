import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, describe, expect, test } from "@jest/globals";
import { ServiceBroker } from "moleculer";
import { sqliteCoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import type {
	Delivery,
	DeliveryHost,
	Outgoing,
	SendResult,
} from "../../adapters/delivery/index.ts";
import { type Envelope, livingServices } from "../../protocol/index.ts";
import { runDue } from "../../services/coordinator/index.ts";
import { reportOf, scripted, TestCoordinator } from "../support/coordinator.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { until } from "../support/until.ts";

let lottor: TestCoordinator;
const others: ServiceBroker[] = [];

afterEach(async () => {
	await Promise.all(others.splice(0).map((broker) => broker.stop()));
	await lottor.stop();
});

/** Instances of a service that the coordinator's registry has. */
function seen(service: string): number {
	return livingServices(lottor.broker).filter((one) => one.fullName === service).length;
}

/** Keeps what it is told to send; the test settles it. */
class HandDelivery implements Delivery {
	readonly description = "by hand";
	readonly maxBytes = 1_000_000;
	available = true;
	#host: DeliveryHost | undefined;
	readonly durable: boolean;
	readonly sent: Envelope[] = [];
	/** What the store said of the message at the moment of its send. */
	readonly storedAtSend: string[] = [];
	waiting: number | undefined = 0;
	result: SendResult = { result: "accepted", instance: null };
	look: (envelope: Envelope) => Promise<string> = () => Promise.resolve("");

	constructor(durable: boolean) {
		this.durable = durable;
	}

	start(host: DeliveryHost): Promise<void> {
		this.#host = host;
		return Promise.resolve();
	}

	/** The broker is lost, or back. */
	turn(available: boolean): void {
		this.available = available;
		this.#host?.availabilityChanged();
	}

	stop(): Promise<void> {
		return Promise.resolve();
	}

	backlog(): Promise<number | undefined> {
		return Promise.resolve(this.waiting);
	}

	async send(
		items: readonly Outgoing[],
		settled: (place: number, result: SendResult) => Promise<boolean>,
	): Promise<void> {
		for (const [place, { envelope }] of items.entries()) {
			this.sent.push(envelope);
			this.storedAtSend.push(await this.look(envelope));
			void settled(place, this.result);
		}
	}
}

describe("delivery", () => {
	test("a commit delivers at once; the group completes when its messages are consumed", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{ content: '{"a":1}' }, { type: "u" }]);
		expect(await lottor.commit(id)).toMatchObject({ result: "ok", state: "committed" });
		expect(auth.consumed.map((one) => one.id)).toEqual([`${id}.0`, `${id}.1`]);
		expect(auth.consumed[0]).toMatchObject({
			content: '{"a":1}',
			attempt: 1,
			revision: 0,
			source: "user",
		});
		expect(await lottor.group(id)).toMatchObject({ state: "completed", conflict: null });
		const { timeline } = await lottor.view(id);
		expect(timeline.map((entry) => entry.event)).toEqual(
			expect.arrayContaining(["prepare", "commit", "sent", "consumed", "complete"]),
		);
	});

	test("a rollback lets nothing out", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		expect(await lottor.rollback(id)).toMatchObject({ result: "ok", state: "rolledBack" });
		await lottor.due(60_000);
		expect(auth.consumed).toEqual([]);
		expect((await lottor.message(id)).state).toBe("discarded");
	});

	test("a delayed message waits its time", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{ delay: 30_000 }]);
		await lottor.commit(id);
		await lottor.due(29_999);
		expect(auth.consumed).toEqual([]);
		await lottor.due(1);
		expect(auth.consumed).toHaveLength(1);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("a short retry is made in time, though a timer was set for before it", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, auth.schema);
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, envelope.attempt === 1 ? { delay: 200 } : undefined),
		});
		// Without runDue: only the coordinator's own timer may bring the retry.
		await lottor.clock.advance(900);
		const id = await lottor.prepare([{}]);
		await lottor.call("commit", { items: [{ id, storeId: "store-user" }] });
		await until(async () => (await lottor.message(id)).attempts === 1);
		await lottor.clock.advance(110);
		await lottor.clock.advance(120);
		await until(() => auth.consumed.length === 2);
	});

	test("defect 3: the state is stored before the send, so that no report comes too early", async () => {
		const delivery = new HandDelivery(false);
		lottor = await TestCoordinator.start({ delivery }, scripted("auth").schema);
		delivery.look = async (envelope) => (await lottor.message(envelope.group)).state;
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(delivery.storedAtSend).toEqual(["delivering"]);
	});

	test("defect 6: a failure is tried again with backoff, up to its limit, then it is a dead letter", async () => {
		const auth = scripted("auth");
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, { retries: 2, delay: 1_000 }),
		});
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(await lottor.message(id)).toMatchObject({ state: "pending", attempts: 1 });
		const { nextAt } = await lottor.message(id);
		expect((nextAt ?? 0) - lottor.clock.now()).toBeGreaterThanOrEqual(900);
		await lottor.due(1_101);
		expect(await lottor.message(id)).toMatchObject({ state: "pending", attempts: 2 });
		await lottor.due(2_201);
		expect(await lottor.message(id)).toMatchObject({ state: "failed", attempts: 3 });
		expect(auth.consumed.map((one) => one.attempt)).toEqual([1, 2, 3]);
		await lottor.due(3_600_000);
		expect(auth.consumed).toHaveLength(3);
	});

	test("a failure that is not retryable fails for good at once", async () => {
		const auth = scripted("auth");
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, { retryable: false, code: "VALIDATION_ERROR" }),
		});
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(await lottor.message(id)).toMatchObject({
			state: "failed",
			attempts: 1,
			error: { code: "VALIDATION_ERROR" },
		});
	});

	test("defect 7: a retry comes when it is due, not at the next scan of what is hours old", async () => {
		const auth = scripted("auth");
		let failures = 1;
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, failures-- > 0 ? { delay: 200 } : undefined),
		});
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		await lottor.due(220);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R21 messages above maxInFlight of their target stay pending, and go when there is room", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		lottor = await TestCoordinator.start({ maxInFlight: 2 }, auth.schema);
		const id = await lottor.prepare([{}, {}, {}, {}, {}]);
		await lottor.commit(id);
		expect(auth.consumed).toHaveLength(2);
		const states = (await lottor.group(id)).messages.map((one) => one.state);
		expect(states.filter((state) => state === "delivering")).toHaveLength(2);
		expect(states.filter((state) => state === "pending")).toHaveLength(3);
		for (let sent = 0; sent < 5; sent++) {
			await lottor.report(reportOf(auth.consumed[sent] as Envelope));
			await lottor.due(10);
		}
		expect(new Set(auth.consumed.map((one) => one.id)).size).toBe(5);
		expect(auth.consumed).toHaveLength(5);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R21 a target without room does not hold up another", async () => {
		const slow = scripted("slow");
		slow.consume = () => ({ result: "accepted" });
		const auth = scripted("auth");
		lottor = await TestCoordinator.start(
			{ maxInFlight: 1, claimLimit: 2 },
			slow.schema,
			auth.schema,
		);
		for (let i = 0; i < 5; i++) await lottor.commit(await lottor.prepare([{ target: "slow" }]));
		const id = await lottor.prepare([{ target: "auth", delay: 100 }]);
		await lottor.commit(id);
		await lottor.due(100);
		expect((await lottor.group(id)).state).toBe("completed");
		expect(slow.consumed).toHaveLength(1);
	});

	test("R23 no report: the target is asked, and nothing is sent again while it runs", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(auth.asked).toEqual([]);
		await lottor.due(10_000);
		expect(auth.asked).toHaveLength(1);
		await lottor.due(10_000);
		expect(auth.asked).toHaveLength(2);
		await lottor.due(120_000);
		expect(auth.asked.length).toBeGreaterThan(2);
		expect(auth.consumed).toHaveLength(1);
		expect(await lottor.message(id)).toMatchObject({
			state: "delivering",
			attempts: 0,
			sends: 1,
		});
		auth.ask = () => ({ result: "consumed", revision: 0 });
		await lottor.due(60_000);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R23 an answer that a failure stands counts as its report, once", async () => {
		const auth = scripted("auth");
		auth.consume = (envelope) => {
			auth.ask = () => ({
				result: "failed",
				report: reportOf(envelope, { delay: 500 }) as never,
			});
			return { result: "accepted" };
		};
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		await lottor.due(10_000);
		expect(await lottor.message(id)).toMatchObject({ state: "pending", attempts: 1 });
	});

	test("R23 no living instance: nothing is sent or asked; it goes on when one joins", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, scripted("user").schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		await lottor.due(1_000);
		expect(await lottor.message(id)).toMatchObject({
			state: "pending",
			sends: 0,
			parked: true,
			waiting: expect.stringContaining("no living instance of auth") as unknown,
		});
		const service = lottor.broker.createService(auth.schema);
		await lottor.broker.waitForServices("auth");
		await lottor.due(1_000);
		expect((await lottor.group(id)).state).toBe("completed");
		expect(auth.consumed).toHaveLength(1);
		await lottor.broker.destroyService(service);
	});

	test("R21 what becomes due between claim and send is sent with its payload", async () => {
		const folder = mkdtempSync(join(tmpdir(), "lottor-"));
		const clock = new ManualClock();
		const stored = sqliteCoordinatorStore({ file: join(folder, "lottor.db"), clock });
		let late = 0;
		const store = new Proxy(stored, {
			get(target, name) {
				if (name === "now") return () => target.now() + late;
				const value: unknown = Reflect.get(target, name, target);
				if (typeof value !== "function") return value;
				return async (...args: unknown[]) => {
					const result = (await value.apply(target, args)) as unknown;
					if (name === "claim" && Array.isArray(result) && result.length > 0) late = 500;
					return result;
				};
			},
		});
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({ store, clock }, scripted("user").schema);
		const id = await lottor.prepare([{}, { delay: 1_400 }]);
		await lottor.commit(id);
		await clock.advance(1_000);
		const service = lottor.broker.createService(auth.schema);
		await lottor.broker.waitForServices("auth");
		await lottor.due();
		rmSync(folder, { recursive: true });

		expect(auth.consumed.map((envelope) => envelope.id)).toEqual([`${id}.0`, `${id}.1`]);
		await lottor.broker.destroyService(service);
	});

	test("R23 a consumer that is down for an hour finds one copy of each message", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, scripted("user").schema);
		const ids: string[] = [];
		for (let i = 0; i < 20; i++) ids.push(await lottor.prepare([{}]));
		for (const id of ids) await lottor.commit(id);
		await lottor.due(3_600_000);
		lottor.broker.createService(auth.schema);
		await lottor.broker.waitForServices("auth");
		await lottor.due(1_000);
		expect(auth.consumed).toHaveLength(20);
		expect(
			(await lottor.call<{ groups: { completed: number } }>("stats")).groups.completed,
		).toBe(20);
	});

	test("R23 LOTTOR_CONSUMER_CRASHED: five instances lost over one message, it is fenced and fails", async () => {
		const auth = scripted("auth");
		auth.ask = () => ({ result: "unseen" });
		const delivery = new HandDelivery(false);
		lottor = await TestCoordinator.start({ delivery, maxVanished: 3 }, auth.schema);
		delivery.result = { result: "accepted", instance: { nodeID: "gone", instanceID: "gone" } };
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		await lottor.due(10_000);
		await lottor.due(10_000);
		expect(await lottor.message(id)).toMatchObject({
			state: "delivering",
			vanished: 2,
			sends: 3,
		});
		await lottor.due(10_000);
		expect(await lottor.message(id)).toMatchObject({
			state: "failed",
			attempts: 0,
			error: { code: "LOTTOR_CONSUMER_CRASHED" },
		});
		expect(auth.fenced).toMatchObject([{ id: `${id}.0`, minRevision: 1 }]);
		await lottor.call("messages.retry", { items: [{ id: `${id}.0` }] });
		await lottor.due();
		expect(delivery.sent.at(-1)).toMatchObject({ revision: 1, attempt: 1 });
	});

	test("R24 unseen with direct delivery: it is sent again", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		auth.ask = () => ({ result: "unseen" });
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		auth.consume = (envelope) => ({ result: "reported", report: reportOf(envelope) });
		await lottor.due(10_000);
		expect(auth.consumed.map((one) => one.attempt)).toEqual([1, 1]);
		expect(await lottor.message(id)).toMatchObject({
			state: "consumed",
			sends: 2,
			attempts: 0,
		});
	});

	test("R24 unseen over a durable broker: again only when its backlog is empty, or after resendAfter", async () => {
		const auth = scripted("auth");
		auth.ask = () => ({ result: "unseen" });
		const delivery = new HandDelivery(true);
		delivery.waiting = 7;
		lottor = await TestCoordinator.start({ delivery, resendAfter: "10m" }, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		for (let i = 0; i < 8; i++) await lottor.due(60_000);
		expect(delivery.sent).toHaveLength(1);
		delivery.waiting = undefined;
		for (let i = 0; i < 3; i++) await lottor.due(60_000);
		expect(delivery.sent).toHaveLength(2);
		delivery.waiting = 0;
		await lottor.due(((await lottor.message(id)).nextAt ?? 0) - lottor.clock.now());
		expect(delivery.sent).toHaveLength(3);
		expect(await lottor.message(id)).toMatchObject({ sends: 3, attempts: 0 });
	});

	test("R24 a consumer that was down for hours gets nothing twice when it comes back, and the rest of resendAfter", async () => {
		const auth = scripted("auth");
		auth.ask = () => ({ result: "unseen" });
		const delivery = new HandDelivery(true);
		delivery.waiting = 7;
		lottor = await TestCoordinator.start({ delivery, resendAfter: "10m" }, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		await lottor.due(5 * 60_000);
		await lottor.broker.destroyService(lottor.broker.getLocalService("auth"));
		for (let i = 0; i < 120; i++) await lottor.due(60_000);
		const again = lottor.broker.createService(auth.schema);
		await lottor.broker.waitForServices(again.name, 5_000, 10);
		const asked = auth.asked.length;
		for (let i = 0; i < 9; i++) await lottor.due(60_000);
		expect(auth.asked.length).toBeGreaterThan(asked);
		expect(delivery.sent).toHaveLength(1);
		for (let i = 0; i < 3; i++) await lottor.due(60_000);
		expect(delivery.sent).toHaveLength(2);
	});

	test("R24 a broker that is down: commits are accepted, messages wait without a send, and go when it is back", async () => {
		const delivery = new HandDelivery(true);
		delivery.available = false;
		lottor = await TestCoordinator.start({ delivery }, scripted("auth").schema);
		const ids: string[] = [];
		for (let i = 0; i < 3; i++) {
			const id = await lottor.prepare([{}]);
			ids.push(id);
			expect(await lottor.commit(id)).toMatchObject({ result: "ok", state: "committed" });
		}
		for (let i = 0; i < 20; i++) await lottor.due(1_000);
		const waiting = await lottor.group(ids[0] as string);
		expect(waiting.messages[0]).toMatchObject({ state: "pending", sends: 0, parked: true });
		expect(waiting.messages[0]?.waiting).toMatch(/^LOTTOR_CHANNEL_UNAVAILABLE/);
		// Committed, claimed, parked: it is not written again and again while the broker is away.
		expect(waiting.version).toBeLessThan(6);
		expect(delivery.sent).toEqual([]);

		delivery.turn(true);
		await lottor.due();
		expect(delivery.sent.map(({ group }) => group).toSorted()).toEqual(ids.toSorted());

		delivery.turn(false);
		const late = await lottor.prepare([{}]);
		await lottor.commit(late);
		expect(await lottor.message(late)).toMatchObject({ state: "pending", sends: 0 });
		delivery.turn(true);
		await lottor.due();
		expect(await lottor.message(late)).toMatchObject({ state: "delivering", sends: 1 });
	});

	test("R21 what a slow target still has, by its own word, goes on taking its room", async () => {
		const auth = scripted("auth");
		auth.ask = () => ({ result: "running" });
		const delivery = new HandDelivery(true);
		lottor = await TestCoordinator.start({ delivery, maxInFlight: 2 }, auth.schema);
		const ids: string[] = [];
		for (let i = 0; i < 5; i++) {
			const id = await lottor.prepare([{}]);
			ids.push(id);
			await lottor.commit(id);
		}
		for (let i = 0; i < 30; i++) await lottor.due(10_000);
		expect(delivery.sent).toHaveLength(2);
		await lottor.report(reportOf(delivery.sent[0] as Envelope));
		await lottor.due();
		await lottor.report(reportOf(delivery.sent[1] as Envelope));
		await lottor.due();
		expect(delivery.sent.length).toBeGreaterThan(2);
	});

	test("R21 what ends at another coordinator takes no room here for longer than its time", async () => {
		const delivery = new HandDelivery(true);
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({ delivery, maxInFlight: 4 }, auth.schema);
		for (let i = 0; i < 6; i++) await lottor.commit(await lottor.prepare([{}]));
		expect(delivery.sent).toHaveLength(4);
		const store = `sqlite:${join(lottor.folder, "lottor.db")}`;
		const other = await TestCoordinator.start({ store, clock: lottor.clock });
		const [first, ...rest] = delivery.sent.map((envelope) => reportOf(envelope));
		for (const report of rest)
			expect(await other.report(report)).toMatchObject({ result: "ok" });
		await other.stop();
		// Room for one: not worth a look for others, as long as the rest seems to be under way.
		await lottor.report(first);
		await lottor.due(20_000);

		expect(delivery.sent).toHaveLength(6);
	});

	test("R21 room that comes free while a message is being parked for want of it is not overlooked", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		const folder = mkdtempSync(join(tmpdir(), "lottor-"));
		const clock = new ManualClock();
		const store = sqliteCoordinatorStore({ file: join(folder, "lottor.db"), clock });
		const apply = store.apply.bind(store);
		let free: () => void = () => undefined;
		const held = new Promise<void>((resolve) => (free = resolve));
		let parks = 0;
		store.apply = async (changes) => {
			// A store on another machine: what is called later may be done before.
			if (changes.some((one) => "event" in one && one.event.type === "refused")) {
				parks++;
				await held;
			}
			return apply(changes);
		};
		lottor = await TestCoordinator.start({ store, clock, maxInFlight: 1 }, auth.schema);
		const first = await lottor.prepare([{}]);
		const second = await lottor.prepare([{}]);
		const items = [first, second].map((id) => ({ id, storeId: "store-user" }));
		await lottor.call("commit", { items });
		await until(() => auth.consumed.length === 1 && parks === 1);
		await lottor.report(reportOf(auth.consumed[0] as Envelope));
		free();
		await until(async () => {
			await runDue(lottor.broker);
			return auth.consumed.length === 2;
		});
		rmSync(folder, { recursive: true });
	});

	test("R25 a target that consumes the broker's channel itself is plain: it is not asked, its report counts", async () => {
		const delivery = new HandDelivery(true);
		lottor = await TestCoordinator.start({ delivery, plainTimeout: "5m" }, { name: "plain" });
		const id = await lottor.prepare([{ target: "plain", deliver: "channel" }]);
		await lottor.commit(id);
		expect(delivery.sent).toMatchObject([{ target: "plain", storeId: null, attempt: 1 }]);
		expect(await lottor.report(reportOf(delivery.sent[0] as Envelope))).toMatchObject({
			result: "ok",
			state: "consumed",
		});
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R25 a channel needs a broker: with direct calls, prepare refuses it", async () => {
		lottor = await TestCoordinator.start({}, { name: "plain" });
		await expect(lottor.prepare([{ target: "plain", deliver: "channel" }])).rejects.toThrow(
			/LOTTOR_INVALID_REQUEST.*messages\[0\]\.deliver/,
		);
	});

	test("R25 a plain target is called as an action; silence counts as an attempt, and it is sent again", async () => {
		const delivery = new HandDelivery(false);
		delivery.result = {
			result: "unknown",
			instance: null,
			error: { code: "X", message: "", retryable: true },
		};
		lottor = await TestCoordinator.start({ delivery, plainTimeout: "5m" }, { name: "plain" });
		const id = await lottor.prepare([{ target: "plain", deliver: "action" }]);
		await lottor.commit(id);
		await lottor.due(299_999);
		expect(delivery.sent).toHaveLength(1);
		await lottor.due(1);
		expect(await lottor.message(id)).toMatchObject({ state: "pending", attempts: 1 });
		await lottor.due(1_200);
		expect(delivery.sent).toHaveLength(2);
	});

	test("R25 LOTTOR_NO_REPORT: a plain target that never answers is a dead letter in the end", async () => {
		const delivery = new HandDelivery(false);
		delivery.result = {
			result: "unknown",
			instance: null,
			error: { code: "X", message: "", retryable: true },
		};
		lottor = await TestCoordinator.start(
			{ delivery, retryPolicy: { retries: 1 } },
			{ name: "plain" },
		);
		const id = await lottor.prepare([{ target: "plain", deliver: "action" }]);
		await lottor.commit(id);
		await lottor.due(300_000);
		await lottor.due(1_200);
		await lottor.due(300_000);
		expect(await lottor.message(id)).toMatchObject({
			state: "failed",
			error: { code: "LOTTOR_NO_REPORT" },
		});
	});

	test("R25 a plain action's own end is the report", async () => {
		const calls: unknown[] = [];
		let broken = true;
		lottor = await TestCoordinator.start(
			{},
			{
				name: "plain",
				actions: {
					add(ctx) {
						calls.push([
							ctx.params,
							(ctx.meta as { lottor: { attempt: number } }).lottor.attempt,
						]);
						if (broken) throw new Error("not yet");
						return "fine";
					},
				},
			},
		);
		const id = await lottor.prepare([
			{ target: "plain", type: "add", deliver: "action", content: '{"n":1}' },
		]);
		await lottor.commit(id);
		expect(await lottor.message(id)).toMatchObject({ state: "pending", attempts: 1 });
		broken = false;
		await lottor.due(1_200);
		expect((await lottor.group(id)).state).toBe("completed");
		expect(calls).toEqual([
			[{ n: 1 }, 1],
			[{ n: 1 }, 2],
		]);
	});

	test("R25 what a plain target had when its node ended takes no room at its next start", async () => {
		const calls: number[] = [];
		const plain = (life: number) => ({
			name: "plain",
			actions: {
				t: () => {
					calls.push(life);
					return life === 1 ? new Promise(() => undefined) : "fine";
				},
			},
		});
		const live = async (life: number) => {
			const broker = new ServiceBroker({
				nodeID: "plain",
				logger: false,
				transporter: "Fake",
			});
			broker.createService(plain(life));
			await broker.start();
			others.push(broker);
			return broker;
		};
		lottor = await TestCoordinator.startConnected({ maxInFlight: 1 });
		const first = await live(1);
		await until(() => seen("plain") === 1);
		const ids: string[] = [];
		for (let n = 0; n < 2; n++) {
			ids.push(await lottor.prepare([{ target: "plain", deliver: "action" }]));
			await lottor.call("commit", { items: [{ id: ids[n], storeId: "store-user" }] });
		}
		await until(() => calls.length === 1);
		others.pop();
		await first.stop();
		await until(() => seen("plain") === 0);
		await live(2);
		await until(async () => {
			await lottor.due();
			return (await lottor.group(ids[1] ?? "")).state === "completed";
		});
		expect(calls).toEqual([1, 2]);
		expect(await lottor.message(ids[0] ?? "")).toMatchObject({ state: "delivering" });
	});

	test("R28 a call that ends in an error says nothing of the handler: no attempt is used", async () => {
		const auth = scripted("auth");
		auth.consume = () => {
			throw new Error("the transport broke");
		};
		auth.ask = () => ({ result: "consumed", revision: 0 });
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(await lottor.message(id)).toMatchObject({ state: "delivering", attempts: 0 });
		await lottor.due(10_000);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R28 what a consumer refuses is pending again, no attempt used", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({
			result: "refused",
			error: { code: "LOTTOR_STOPPING", message: "stopping", retryable: true },
		});
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(await lottor.message(id)).toMatchObject({ state: "pending", attempts: 0, sends: 0 });
		auth.consume = (envelope) => ({ result: "reported", report: reportOf(envelope) });
		await lottor.due(1_000);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R3 LOTTOR_PARTITIONED_TARGET: instances of one target with different stores stop its delivery", async () => {
		const here = scripted("auth", { storeId: "store-1" });
		const there = scripted("auth", { storeId: "store-2" });
		lottor = await TestCoordinator.startConnected({}, here.schema);
		const other = new ServiceBroker({ nodeID: "other", logger: false, transporter: "Fake" });
		others.push(other);
		other.createService(there.schema);
		await other.start();
		await other.waitForServices("lottor");
		await until(() => seen("auth") === 2);
		await lottor.due(1_000);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(await lottor.message(id)).toMatchObject({
			state: "pending",
			sends: 0,
			waiting: expect.stringContaining("LOTTOR_PARTITIONED_TARGET") as unknown,
		});
		expect([...here.consumed, ...there.consumed]).toEqual([]);
		await other.stop();
		await until(() => seen("auth") === 1);
		await lottor.due(300_000);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R3 a message bound to a store waits for it; an operator may let it go to another", async () => {
		const first = scripted("auth", { storeId: "store-1" });
		first.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, { delay: 1_000 }),
		});
		lottor = await TestCoordinator.start({}, { name: "none" });
		const service = lottor.broker.createService(first.schema);
		await lottor.broker.waitForServices("auth");
		await lottor.due(1_000);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(await lottor.message(id)).toMatchObject({ storeId: "store-1", attempts: 1 });
		await lottor.broker.destroyService(service);
		const second = scripted("auth", { storeId: "store-2" });
		lottor.broker.createService(second.schema);
		await lottor.broker.waitForServices("auth");
		await lottor.due(60_000);
		expect(second.consumed).toEqual([]);
		expect(await lottor.message(id)).toMatchObject({
			state: "pending",
			waiting: expect.stringContaining(
				"with the store that the message is bound to",
			) as unknown,
		});
		await lottor.call("messages.retry", { items: [{ id: `${id}.0`, rebind: true }] });
		await lottor.due();
		expect(second.consumed).toHaveLength(1);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R4 a message for a former name goes to the service that has it as an alias", async () => {
		const auth = scripted("auth", { aliases: ["rights"] });
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{ target: "rights" }]);
		await lottor.commit(id);
		expect(auth.consumed).toMatchObject([{ target: "rights" }]);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R4 a backlog whose target does not live is shown with its age", async () => {
		lottor = await TestCoordinator.start({}, scripted("user").schema);
		const since = lottor.clock.now();
		await lottor.commit(await lottor.prepare([{ target: "v2.auth" }]));
		await lottor.due(5_000);
		const stats = await lottor.call<{ backlog: unknown[] }>("stats");
		expect(stats.backlog).toEqual([{ target: "v2.auth", messages: 1, since, living: false }]);
	});

	test("what is under way when the coordinator dies goes on after its restart", async () => {
		const auth = scripted("auth");
		const delivery = new HandDelivery(false);
		delivery.result = {
			result: "unknown",
			instance: null,
			error: { code: "X", message: "", retryable: true },
		};
		lottor = await TestCoordinator.start({ delivery }, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		auth.ask = () => ({ result: "unseen" });
		await lottor.restart();
		await lottor.due(10_000);
		expect(delivery.sent).toHaveLength(2);
	});

	test("R20 a report goes to any coordinator's hands at once: two messages of one group settle apart", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}, {}]);
		await lottor.commit(id);
		const reports = auth.consumed.map((envelope) => reportOf(envelope));
		const answers = await Promise.all(reports.map((report) => lottor.report(report)));
		expect(answers.map((one) => one.result)).toEqual(["ok", "ok"]);
		expect((await lottor.group(id)).state).toBe("completed");
	});
});
