import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { ServiceBroker, type ServiceSchema } from "moleculer";

import { slotOf, sqliteCoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import {
	type CheckAnswer,
	type ConsumeAnswer,
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

const sees = (at: ServiceBroker, services: number) =>
	until(() => (at.registry.getServiceList({ skipInternal: true }) as []).length === services);

async function view(at: ServiceBroker, id: string): Promise<GroupView> {
	return at.call<GroupView, object>("lottor.groups.get", { id }, { nodeID: at.nodeID });
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
		const living = [a, b].map(({ nodeID, instanceID }) => ({ nodeID, instanceID }));
		const slots = new Set(slotsOf({ nodeID: "b", instanceID: b.instanceID }, living));
		let id: string;
		do id = await prepared(a, "auth");
		while (!slots.has(slotOf(id)));
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
		const store = sqliteCoordinatorStore({ file: join(folder, "lottor.db"), clock });
		const apply = store.apply.bind(store);
		let asleep = false;
		let wake: () => void = () => undefined;
		const sleeping = new Promise<void>((resolve) => (wake = resolve));
		store.apply = async (changes) => {
			if (changes.some((one) => "event" in one && one.event.type === "sent")) {
				asleep = true;
				await sleeping;
			}
			return apply(changes);
		};
		const [a, b] = [await coordinator("a", { store }), await coordinator("b")];
		await Promise.all([sees(a, 2), sees(b, 2)]);
		const living = [a, b].map(({ nodeID, instanceID }) => ({ nodeID, instanceID }));
		const slots = new Set(slotsOf({ nodeID: "a", instanceID: a.instanceID }, living));
		let id: string;
		do id = await prepared(a, "auth");
		while (!slots.has(slotOf(id)));
		await b.call("lottor.commit", { items: [{ id, storeId: "store-user" }] }, { nodeID: "b" });
		await runDue(b);
		// It waits for its target now: whoever finds that first, which is one that falls asleep.
		await node("auths", auth.schema);
		await Promise.all([sees(a, 3), sees(b, 3)]);
		const sleeper = runDue(a);
		await until(() => asleep);
		await until(async () => {
			await clock.advance(1_000);
			await runDue(b);
			return (await view(b, id)).group.messages[0]?.attempts === 1;
		});
		const before = await view(b, id);
		wake();
		await sleeper;

		expect(await view(b, id)).toEqual(before);
		expect(auth.consumed).toHaveLength(1);
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
