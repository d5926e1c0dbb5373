import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { ServiceBroker, type ServiceSchema } from "moleculer";

import { slotOf, sqliteCoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import {
	type CheckAnswer,
	type ConsumeAnswer,
	type GroupEvent,
	type MessageEvent,
	newGroupId,
	type PrepareAnswer,
	systemRandom,
} from "../../protocol/index.ts";
import {
	Coordinator,
	type CoordinatorOptions,
	type CoordinatorView,
	type GroupView,
	runDue,
} from "../../services/coordinator/index.ts";
import { slotsOf } from "../../services/coordinator/share.ts";
import { reportOf, scripted } from "../support/coordinator.ts";
import { prepareItem } from "../support/groups.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { until } from "../support/until.ts";

let folder: string;
let clock: ManualClock;
const brokers: ServiceBroker[] = [];

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "lottor-"));
	clock = new ManualClock();
});

afterEach(async () => {
	await Promise.all(brokers.splice(0).map((broker) => broker.stop()));
	rmSync(folder, { recursive: true, force: true });
});

async function node(nodeID: string, ...schemas: ServiceSchema[]): Promise<ServiceBroker> {
	const broker = new ServiceBroker({ nodeID, logger: false, transporter: "Fake" });
	for (const schema of schemas) broker.createService(schema);
	await broker.start();
	brokers.push(broker);
	return broker;
}

/** A coordinator on the file that all of this test share. */
function coordinator(nodeID: string, options: CoordinatorOptions = {}): Promise<ServiceBroker> {
	const store = `sqlite:${join(folder, "lottor.db")}`;
	return node(nodeID, Coordinator({ store, clock, ...options }));
}

async function prepared(at: ServiceBroker, target: string, source = "user"): Promise<string> {
	const item = prepareItem({
		id: newGroupId(clock, systemRandom),
		source,
		storeId: `store-${source}`,
		messages: [{ target, type: "t", content: "{}" }],
	});
	await at.call("lottor.prepare", { items: [item] }, { nodeID: at.nodeID });
	return item.id;
}

/** Prepares a group that falls into the share of one of these coordinators. */
async function preparedIn(
	nodeID: string,
	coordinators: readonly ServiceBroker[],
	target: string,
): Promise<string> {
	const living = coordinators.map((one) => ({ nodeID: one.nodeID, instanceID: one.instanceID }));
	const self = living.find((one) => one.nodeID === nodeID) as (typeof living)[number];
	const slots = new Set(slotsOf(self, living));
	for (;;) {
		const id = await prepared(coordinators[0] as ServiceBroker, target);
		if (slots.has(slotOf(id))) return id;
	}
}

const sees = (at: ServiceBroker, services: number) =>
	until(() => (at.registry.getServiceList({ skipInternal: true }) as []).length === services);

async function view(at: ServiceBroker, id: string): Promise<GroupView> {
	return at.call<GroupView, object>("lottor.groups.get", { id }, { nodeID: at.nodeID });
}

/** A store on the shared file in whose way a coordinator falls asleep before it stores such an event. */
function fallingAsleep(type: MessageEvent["type"] | GroupEvent["type"]) {
	const store = sqliteCoordinatorStore({ file: join(folder, "lottor.db"), clock });
	const apply = store.apply.bind(store);
	let sleeps: () => void = () => undefined;
	const asleep = new Promise<void>((resolve) => (sleeps = resolve));
	let wake: () => void = () => undefined;
	const sleeping = new Promise<void>((resolve) => (wake = resolve));
	store.apply = async (changes) => {
		if (changes.some((one) => "event" in one && one.event.type === type)) {
			sleeps();
			await sleeping;
		}
		return apply(changes);
	};
	return { store, asleep, wake };
}

/**
 * Has `a` fall asleep over its work on the group, until `b` has done that work instead, and wake up
 * again: nothing of the group may have changed by that.
 *
 * @param done whether `b` has done it
 */
async function overtaken(
	sleepy: ReturnType<typeof fallingAsleep>,
	a: ServiceBroker,
	b: ServiceBroker,
	id: string,
	done: (view: GroupView) => boolean,
): Promise<void> {
	const sleeper = runDue(a);
	await sleepy.asleep;
	await until(async () => {
		await clock.advance(1_000);
		await runDue(b);
		return done(await view(b, id));
	});
	const before = await view(b, id);
	sleepy.wake();
	await sleeper;
	expect(await view(b, id)).toEqual(before);
}

/** @returns messages under way, by coordinator */
async function inFlight(at: ServiceBroker): Promise<Record<string, number>> {
	const all = await at.call<CoordinatorView[]>("lottor.coordinators");
	return Object.fromEntries(all.map((one) => [one.nodeID, one.status?.inFlight ?? -1]));
}

describe("several coordinators on one store", () => {
	test("each claims what its share is; nobody takes a group twice", async () => {
		const user = scripted("user");
		user.check = () => ({ result: "rolledBack" });
		const [a, b] = [await coordinator("a"), await coordinator("b")];
		await node("users", user.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const ids: string[] = [];
		for (let n = 0; n < 40; n++) ids.push(await prepared(a, "auth"));
		await clock.advance(10_000);
		await Promise.all([runDue(a), runDue(b)]);

		expect(user.checked.map(({ id }) => id).sort()).toEqual([...ids].sort());
		const living = [a, b].map(({ nodeID, instanceID }) => ({ nodeID, instanceID }));
		const slots = new Set(slotsOf({ nodeID: "a", instanceID: a.instanceID }, living));
		for (const id of ids) {
			const { timeline } = await view(a, id);
			expect(timeline.map((entry) => entry.event)).toContain("rollback");
		}
		const shares = await Promise.all(
			[a, b].map(async (one) => {
				const all = await one.call<CoordinatorView[]>("lottor.coordinators");
				return all.map(({ nodeID, status }) => [nodeID, status?.share]).sort();
			}),
		);
		const expected = [
			["a", slots.size / 256],
			["b", 1 - slots.size / 256],
		];
		expect(shares).toEqual([expected, expected]);
	});

	test("what its owner does not take is anybody's once it is overdue by a lease", async () => {
		const user = scripted("user");
		user.check = () => ({ result: "rolledBack" });
		const a = await coordinator("a");
		const [own] = await a.call<CoordinatorView[]>("lottor.coordinators");
		// It lives, by the registry, and does nothing.
		const { lottor } = a.getLocalService("lottor").metadata as { lottor: object };
		const metadata = { lottor: { ...lottor } };
		const b = await node("b", { name: "lottor", metadata });
		expect(own?.status?.share).toBe(1);
		await node("users", user.schema);
		await sees(a, 3);
		const ids: string[] = [];
		for (let n = 0; n < 40; n++) ids.push(await prepared(a, "auth"));
		const living = [a, b].map(({ nodeID, instanceID }) => ({ nodeID, instanceID }));
		const slots = new Set(slotsOf({ nodeID: "a", instanceID: a.instanceID }, living));
		const mine = ids.filter((id) => slots.has(slotOf(id)));
		expect(mine.length).toBeLessThan(ids.length);
		await clock.advance(10_000);
		await runDue(a);
		expect(user.checked.map(({ id }) => id).sort()).toEqual([...mine].sort());
		await clock.advance(5_000);
		await runDue(a);
		expect(user.checked.map(({ id }) => id).sort()).toEqual([...ids].sort());
	});

	test("a short retry is made in time by whoever heard of the failure, whosever share it is", async () => {
		const auth = scripted("auth");
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, envelope.attempt === 1 ? { delay: 200 } : undefined),
		});
		const [a, b] = [await coordinator("a"), await coordinator("b", { pollInterval: "1h" })];
		await node("auths", auth.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const id = await preparedIn("b", [a, b], "auth");
		await a.call("lottor.commit", { items: [{ id, storeId: "store-user" }] }, { nodeID: "a" });
		await until(async () => (await view(a, id)).group.messages[0]?.attempts === 1);
		await clock.advance(250);
		await until(async () => (await view(a, id)).group.state === "completed");
	});

	test("one that leaves in good order has its sends reported first", async () => {
		const auth = scripted("auth");
		let end: (answer: ConsumeAnswer) => void = () => undefined;
		auth.consume = () => new Promise((resolve) => (end = resolve));
		const [a, b] = [await coordinator("a"), await coordinator("b")];
		await node("auths", auth.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const id = await prepared(a, "auth");
		const items = [{ id, storeId: "store-user" }];
		await a.call("lottor.commit", { items }, { nodeID: "a" });
		await until(() => auth.consumed.length === 1);
		const [envelope] = auth.consumed;
		const stopped = a.stop();
		brokers.splice(brokers.indexOf(a), 1);
		if (envelope) end({ result: "reported", report: reportOf(envelope) });
		await stopped;

		expect((await view(b, id)).group.state).toBe("completed");
	});

	test("one that leaves in good order still sends what was being committed", async () => {
		const auth = scripted("auth");
		const store = sqliteCoordinatorStore({ file: join(folder, "lottor.db"), clock });
		const decide = store.decide.bind(store);
		let deciding: () => void = () => undefined;
		const called = new Promise<void>((resolve) => (deciding = resolve));
		let go: () => void = () => undefined;
		const held = new Promise<void>((resolve) => (go = resolve));
		store.decide = async (decisions) => {
			deciding();
			await held;
			return decide(decisions);
		};
		const [a, b] = [await coordinator("a", { store }), await coordinator("b")];
		await node("auths", auth.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const id = await prepared(a, "auth");
		const items = [{ id, storeId: "store-user" }];
		const committed = a.call("lottor.commit", { items }, { nodeID: "a" });
		await called;
		const stopped = a.stop();
		brokers.splice(brokers.indexOf(a), 1);
		// The stop waits, for so long at the most.
		await until(() => clock.dueIn(5_000));
		go();
		await Promise.all([committed, stopped]);

		expect(auth.consumed).toHaveLength(1);
		expect((await view(b, id)).group.state).toBe("completed");
	});

	test("R20 one that wakes up after its lease has ended changes nothing, and sends nothing", async () => {
		const auth = scripted("auth");
		// As far as the message's own state goes, it may be sent again at any time.
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, { delay: 300_000 }),
		});
		const sleepy = fallingAsleep("sent");
		const [a, b] = [await coordinator("a", { store: sleepy.store }), await coordinator("b")];
		await Promise.all([sees(a, 2), sees(b, 2)]);
		const id = await preparedIn("a", [a, b], "auth");
		await b.call("lottor.commit", { items: [{ id, storeId: "store-user" }] }, { nodeID: "b" });
		await runDue(b);
		// It waits for its target now: whoever finds that first, which is one that falls asleep.
		await node("auths", auth.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		await overtaken(sleepy, a, b, id, ({ group }) => group.messages[0]?.attempts === 1);
		expect(auth.consumed).toHaveLength(1);
	});

	test("R20 one that falls asleep after a check-back changes nothing when it wakes up", async () => {
		const user = scripted("user");
		user.check = () => ({ result: "unknown", why: "asked" });
		const sleepy = fallingAsleep("checked");
		const [a, b] = [await coordinator("a", { store: sleepy.store }), await coordinator("b")];
		await node("users", user.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const id = await preparedIn("a", [a, b], "auth");
		await clock.advance(10_000);
		await overtaken(sleepy, a, b, id, ({ group }) => group.checks === 1);
		expect(user.checked.filter((item) => item.id === id)).toHaveLength(2);
	});

	test("R20 one that falls asleep after it asked a target changes nothing when it wakes up", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		const sleepy = fallingAsleep("asked");
		const [a, b] = [await coordinator("a", { store: sleepy.store }), await coordinator("b")];
		await node("auths", auth.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const id = await preparedIn("a", [a, b], "auth");
		await a.call("lottor.commit", { items: [{ id, storeId: "store-user" }] }, { nodeID: "a" });
		await until(() => auth.consumed.length === 1);
		await clock.advance(10_000);
		await overtaken(sleepy, a, b, id, ({ group }) => group.messages[0]?.asks === 1);
		expect(auth.asked).toHaveLength(2);
	});

	test("R21 what is reported to another coordinator frees its room at the one that sent it", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		const limits = { maxInFlight: 4 };
		const [a, b] = [await coordinator("a", limits), await coordinator("b", limits)];
		await node("auths", auth.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const ids: string[] = [];
		for (let n = 0; n < 40; n++) ids.push(await preparedIn("a", [a, b], "auth"));
		const items = ids.map((id) => ({ id, storeId: "store-user" }));
		await a.call("lottor.commit", { items }, { nodeID: "a" });
		await until(() => auth.consumed.length === 4);
		expect(await inFlight(a)).toEqual({ a: 4, b: 0 });
		let reported = 0;
		const begin = clock.now();
		await until(async () => {
			const reports = auth.consumed.slice(reported).map((envelope) => reportOf(envelope));
			reported += reports.length;
			expect(reports.length).toBeLessThanOrEqual(4);
			if (reports.length > 0)
				await b.call("lottor.report", { items: reports }, { nodeID: "b" });
			await clock.advance(50);
			return reported === 40;
		});
		expect(clock.now() - begin).toBeLessThan(5_000);
		const groups = await Promise.all(ids.map((id) => view(b, id)));
		expect(new Set(groups.map(({ group }) => group.state))).toEqual(new Set(["completed"]));
		await clock.advance(2_000);
		await until(async () => {
			const left = await inFlight(a);
			return left["a"] === 0 && left["b"] === 0;
		});
	});

	test("R21 what a coordinator that died had taken reports of takes no room, either", async () => {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		const [a, b] = [await coordinator("a", { maxInFlight: 4 }), await coordinator("b")];
		await node("auths", auth.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const ids: string[] = [];
		for (let n = 0; n < 4; n++) ids.push(await prepared(a, "auth"));
		const items = ids.map((id) => ({ id, storeId: "store-user" }));
		await a.call("lottor.commit", { items }, { nodeID: "a" });
		await until(() => auth.consumed.length === 4);
		const reports = auth.consumed.map((envelope) => reportOf(envelope));
		await b.call("lottor.report", { items: reports }, { nodeID: "b" });
		brokers.splice(brokers.indexOf(b), 1);
		await b.stop();
		await clock.advance(2_000);
		await until(async () => (await inFlight(a))["a"] === 0);
	});

	test("how late it was with the oldest work, each tells", async () => {
		const user = scripted("user");
		const [a, b] = [await coordinator("a"), await coordinator("b", { pollInterval: "1h" })];
		await node("users", user.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		await preparedIn("b", [a, b], "auth");
		await clock.advance(12_000);
		await runDue(b);
		const all = await a.call<CoordinatorView[]>("lottor.coordinators");
		expect(all.find(({ nodeID }) => nodeID === "b")?.status?.lag).toBe(2_000);
	});

	test("one whose sends don't end stops all the same", async () => {
		const auth = scripted("auth");
		auth.consume = () => new Promise(() => undefined);
		const a = await coordinator("a", { stopTimeout: "5s" });
		await node("auths", auth.schema);
		await sees(a, 2);
		const id = await prepared(a, "auth");
		await a.call("lottor.commit", { items: [{ id, storeId: "store-user" }] });
		await until(() => auth.consumed.length === 1);
		brokers.splice(brokers.indexOf(a), 1);
		let ended = false;
		void a.stop().then(() => (ended = true));
		await until(async () => {
			await clock.advance(1_000);
			return ended;
		});
	});
});

describe("one coordinator", () => {
	test("a source that does not answer holds up no delivery", async () => {
		const user = scripted("user");
		const auth = scripted("auth");
		let asked: () => void = () => undefined;
		const asking = new Promise<void>((resolve) => (asked = resolve));
		let answer: (said: CheckAnswer) => void = () => undefined;
		user.check = () => {
			asked();
			return new Promise((resolve) => (answer = resolve));
		};
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, envelope.attempt === 1 ? { delay: 5_000 } : undefined),
		});
		const a = await coordinator("a", { askTimeout: "1m" });
		await node("others", user.schema, auth.schema);
		await sees(a, 3);
		await prepared(a, "auth");
		const id = await prepared(a, "auth");
		await clock.advance(9_000);
		await a.call("lottor.commit", { items: [{ id, storeId: "store-user" }] });
		await until(async () => (await view(a, id)).group.messages[0]?.attempts === 1);
		await clock.advance(1_000);
		await asking;
		await clock.advance(6_000);
		await until(() => auth.consumed.length === 2);
		answer({ result: "rolledBack" });
	});

	test("LOTTOR_OVERLOADED refuses prepares above the limit, stores nothing of them, and takes them later", async () => {
		const a = await coordinator("a", { maxPreparing: 3 });
		const items = Array.from({ length: 5 }, () => prepareItem());
		const answers = await a.call<PrepareAnswer[], object>("lottor.prepare", { items });
		expect(answers.map((one) => one.result)).toEqual([
			...Array.from({ length: 3 }, () => "prepared"),
			...Array.from({ length: 2 }, () => "refused"),
		]);
		expect(answers[4]).toMatchObject({ error: { code: "LOTTOR_OVERLOADED", retryable: true } });
		const stored = await a.call<{ items: { id: string }[] }>("lottor.groups.list");
		expect(stored.items).toHaveLength(3);
		const again = await a.call<PrepareAnswer[], object>("lottor.prepare", {
			items: items.slice(3),
		});
		expect(again.map((one) => one.result)).toEqual(["prepared", "prepared"]);
	});

	test("LOTTOR_OVERLOADED counts bytes too, but takes one large group alone", async () => {
		const a = await coordinator("a", { maxPreparingBytes: 1_000 });
		const item = (size: number) => {
			const content = JSON.stringify("x".repeat(size));
			return prepareItem({ messages: [{ target: "auth", type: "t", content }] });
		};
		const items = [item(2_000), item(10)];
		const answers = await a.call<PrepareAnswer[], object>("lottor.prepare", { items });
		expect(answers.map((one) => one.result)).toEqual(["prepared", "refused"]);
	});
});
