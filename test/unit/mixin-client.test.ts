import { afterEach, describe, expect, test } from "@jest/globals";
import type { ServiceBroker } from "moleculer";
import { memoryParticipantStore } from "../../adapters/participant-store/index.ts";
import {
	ReliableMessage,
	type ReliableMessageOptions,
} from "../../mixins/reliable-message/index.ts";
import { type PrepareItem, systemRandom } from "../../protocol/index.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";
import {
	deferred,
	hang,
	makeBroker,
	type MixinNode,
	startNode,
	stopNodes,
} from "../support/mixin-node.ts";
import {
	type ScriptedCoordinator,
	scriptedCoordinator,
	until,
} from "../support/scripted-coordinator.ts";

const MESSAGE = { target: "auth", type: "grant", payload: { user: "ada" } };

afterEach(stopNodes);

function user(options: Partial<ReliableMessageOptions> = {}) {
	return { name: "user", mixins: [ReliableMessage({ store: "memory:", ...options })] };
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
	return promise.then(
		() => "no failure",
		(error: unknown) => error,
	);
}

/** Advances until the promise has ended. */
async function ending<T>(clock: ManualClock, promise: Promise<T>, step = 100): Promise<T> {
	let ended = false;
	const done = promise.finally(() => (ended = true));
	done.catch(() => undefined);
	while (!ended) await clock.advance(step);
	return done;
}

async function startCoordinators(...coordinators: ScriptedCoordinator[]): Promise<ServiceBroker[]> {
	const brokers = coordinators.map(({ schema }) => {
		const broker = makeBroker({ transporter: "Fake" });
		broker.createService(schema);
		return broker;
	});
	await Promise.all(brokers.map((broker) => broker.start()));
	return brokers;
}

describe("R6 prepare has one deadline over all tries", () => {
	test("R6 LOTTOR_NO_COORDINATOR when none lives for the whole deadline; the work does not run", async () => {
		const clock = new ManualClock();
		const node = await startNode([user({ clock })], null);
		let ran = false;
		const before = clock.now();
		const sent = node.reliable("user").transaction(null, [MESSAGE], () => {
			ran = true;
		});
		expect(await ending(clock, failure(sent))).toMatchObject({
			type: "LOTTOR_NO_COORDINATOR",
			retryable: true,
		});
		expect(clock.now() - before).toBe(5_000);
		expect(ran).toBe(false);
	});

	test("R6 a coordinator that comes to life within the deadline is used", async () => {
		const clock = new ManualClock();
		const coordinator = scriptedCoordinator();
		const node = await startNode([user({ clock })], null);
		const sent = node.reliable("user").transaction(null, [MESSAGE], () => "done");
		await clock.advance(2_000);
		node.broker.createService(coordinator.schema);
		await node.broker.waitForServices("lottor", 5_000, 10);
		expect(await ending(clock, sent)).toBe("done");
	});

	test("R6 LOTTOR_PREPARE_FAILED when a coordinator never answers, and a late answer changes nothing", async () => {
		const clock = new ManualClock();
		const coordinator = scriptedCoordinator();
		const answer = deferred();
		const { prepare } = coordinator;
		coordinator.prepare = async (item) => {
			await answer.promise;
			return prepare(item);
		};
		const node = await startNode([user({ clock })], coordinator);
		let ran = false;
		const sent = node.reliable("user").transaction(null, [MESSAGE], () => {
			ran = true;
		});
		const error = await ending(clock, failure(sent));
		answer.resolve();
		await settle();
		const ids = new Set(coordinator.prepared.map(({ id }) => id));
		expect(error).toMatchObject({
			type: "LOTTOR_PREPARE_FAILED",
			data: { group: [...ids][0] },
		});
		expect(ran).toBe(false);
		expect(coordinator.prepared.length).toBeGreaterThan(1);
		expect(ids.size).toBe(1);
	});

	test("R6 an answer at the deadline itself is too late", async () => {
		const clock = new ManualClock();
		const coordinator = scriptedCoordinator();
		const { prepare } = coordinator;
		coordinator.prepare = async (item) => {
			// Time passes while no timer fires, as in a process that was stopped and went on.
			Object.assign(clock, { now: () => later });
			return prepare(item);
		};
		const later = clock.now() + 5_000;
		const node = await startNode([user({ clock })], coordinator);
		const sent = node.reliable("user").transaction(null, [MESSAGE], () => "ran");
		expect(await failure(sent)).toMatchObject({ type: "LOTTOR_PREPARE_FAILED" });
	});

	test("R6 an unavailable store is tried again with the same id; a final refusal is passed on", async () => {
		const coordinator = scriptedCoordinator();
		const { prepare } = coordinator;
		let tries = 0;
		coordinator.prepare = (item) => {
			if (++tries > 2) return prepare(item);
			const error = { code: "LOTTOR_STORE_UNAVAILABLE", message: "disk", retryable: true };
			return { result: "refused", error };
		};
		const node = await startNode([user()], coordinator);
		expect(await node.reliable("user").transaction(null, [MESSAGE], () => "done")).toBe("done");
		expect(new Set(coordinator.prepared.map(({ id }) => id)).size).toBe(1);

		coordinator.prepare = () => ({
			result: "refused",
			error: {
				code: "LOTTOR_UNKNOWN_TARGET",
				message: "never seen",
				retryable: false,
				data: { field: "messages[0].target" },
			},
		});
		const refused = failure(node.reliable("user").transaction(null, [MESSAGE], () => 1));
		expect(await refused).toMatchObject({
			type: "LOTTOR_UNKNOWN_TARGET",
			code: 422,
			retryable: false,
			data: { field: "messages[0].target" },
		});
	});
});

describe("which coordinator is called", () => {
	const seesBoth = (node: MixinNode) =>
		until(() => {
			const services = node.broker.registry.getServiceList({});
			return services.filter(({ name }) => name === "lottor").length === 2;
		});

	async function nodeWithout(options: Partial<ReliableMessageOptions> = {}) {
		const node = await startNode([user(options)], null, { transporter: "Fake" });
		await node.broker.waitForServices("lottor", 5_000, 10);
		return node;
	}

	test("R3 the commit goes only to coordinators with the group's store", async () => {
		const a = scriptedCoordinator("store-a");
		const b = scriptedCoordinator("store-b");
		await startCoordinators(a, b);
		const node = await nodeWithout();
		await seesBoth(node);
		const { transaction, flushed } = node.reliable("user");
		for (let i = 0; i < 10; i++) await transaction(null, [MESSAGE], () => i);
		await flushed();
		const ids = ({ prepared }: ScriptedCoordinator) => prepared.map(({ id }) => id).toSorted();
		expect([a.prepared.length, b.prepared.length]).toEqual([5, 5]);
		expect(a.committed.map(({ id }) => id).toSorted()).toEqual(ids(a));
		expect(b.committed.map(({ id }) => id).toSorted()).toEqual(ids(b));
	});

	test("R3 a try that may have reached one store is never repeated at another", async () => {
		const clock = new ManualClock();
		const a = scriptedCoordinator("store-a");
		const b = scriptedCoordinator("store-b");
		const first: string[] = [];
		for (const coordinator of [a, b]) {
			coordinator.prepare = () => {
				first.push(coordinator.storeId);
				return hang();
			};
		}
		await startCoordinators(a, b);
		const node = await nodeWithout({ clock });
		await seesBoth(node);
		const sent = failure(node.reliable("user").transaction(null, [MESSAGE], () => 1));
		await until(() => first.length === 1);
		for (let i = 0; i < 3; i++) {
			await clock.advance(1_700);
			await settle();
		}
		expect(await ending(clock, sent)).toMatchObject({ type: "LOTTOR_PREPARE_FAILED" });
		expect(new Set(first).size).toBe(1);
	});

	test("R13 a hung node that the registry still shows is not called", async () => {
		const a = scriptedCoordinator("store-a");
		const b = scriptedCoordinator("store-b");
		const [first] = await startCoordinators(a, b);
		const node = await nodeWithout();
		await seesBoth(node);
		const hung = node.broker.registry.nodes.get(first?.nodeID ?? "");
		hung.lastHeartbeatTime = process.uptime() - 60;
		for (let i = 0; i < 4; i++)
			await node.reliable("user").transaction(null, [MESSAGE], () => i);
		expect([a.prepared.length, b.prepared.length]).toEqual([0, 4]);
	});

	test("a local coordinator is preferred", async () => {
		const remote = scriptedCoordinator("store-a");
		await startCoordinators(remote);
		const local = scriptedCoordinator("store-a");
		const node = await startNode([user()], local, { transporter: "Fake" });
		await seesBoth(node);
		for (let i = 0; i < 4; i++)
			await node.reliable("user").transaction(null, [MESSAGE], () => i);
		expect([remote.prepared.length, local.prepared.length]).toEqual([0, 4]);
	});

	test("another coordinator of the same store takes over when the first hangs", async () => {
		const clock = new ManualClock();
		const a = scriptedCoordinator("store-a");
		const b = scriptedCoordinator("store-a");
		let hung: ScriptedCoordinator | undefined;
		for (const coordinator of [a, b]) {
			const { prepare } = coordinator;
			coordinator.prepare = (item) => {
				hung ??= coordinator;
				return hung === coordinator ? hang() : prepare(item);
			};
		}
		await startCoordinators(a, b);
		const node = await nodeWithout({ clock });
		await seesBoth(node);
		const sent = node.reliable("user").transaction(null, [MESSAGE], () => "done");
		await until(() => hung !== undefined);
		await clock.advance(1_700);
		await clock.advance(100);
		expect(await sent).toBe("done");
		expect([a.prepared.length, b.prepared.length]).toEqual([1, 1]);
	});
});

describe("batches", () => {
	test("R29 calls of one tick leave as one, and no call is over the limits of a batch", async () => {
		const node = await startNode([user()]);
		const { transaction, flushed } = node.reliable("user");
		await Promise.all(Array.from({ length: 10 }, () => transaction(null, [MESSAGE], () => 1)));
		expect(node.coordinator.calls.filter(({ action }) => action === "prepare")).toEqual([
			{ action: "prepare", items: 10 },
		]);
		const large = { ...MESSAGE, payload: "x".repeat(200_000) };
		node.coordinator.calls.length = 0;
		await Promise.all(
			Array.from({ length: 5 }, () => transaction(null, [large as never], () => 1)),
		);
		expect(
			node.coordinator.calls
				.filter(({ action }) => action === "prepare")
				.map(({ items }) => items),
		).toEqual([2, 2, 1]);
		await flushed();
	});

	test("R28 calls carry their own time-out and are not repeated by Moleculer", async () => {
		const seen: unknown[] = [];
		const coordinator = scriptedCoordinator();
		const node = await startNode([user()], coordinator, {
			retryPolicy: { enabled: true, retries: 5, delay: 1, check: () => true },
			requestTimeout: 0,
			middlewares: [
				{
					localAction(next: (ctx: unknown) => unknown, action: { name: string }) {
						return (ctx: { options: object }) => {
							if (action.name.startsWith("lottor.")) seen.push({ ...ctx.options });
							return next(ctx);
						};
					},
				} as never,
			],
		});
		let calls = 0;
		const { prepare } = coordinator;
		coordinator.prepare = (item) => {
			if (++calls === 1) throw new Error("lost");
			return prepare(item);
		};
		await node.reliable("user").transaction(null, [MESSAGE], () => 1);
		await node.reliable("user").flushed();
		expect(calls).toBe(2);
		expect(seen).toHaveLength(3);
		for (const options of seen) {
			expect(options).toMatchObject({ retries: 0, nodeID: node.broker.nodeID });
			expect((options as { timeout: number }).timeout).toBeGreaterThan(0);
		}
	});
});

describe("R9 confirms", () => {
	test("defect 4, R9 a commit that cannot be told is repeated until it is acknowledged, and never reaches the caller", async () => {
		const clock = new ManualClock();
		const coordinator = scriptedCoordinator();
		let failures = 3;
		coordinator.commit = () => {
			if (failures-- > 0) throw new Error("down");
			return { result: "ok" };
		};
		const node = await startNode([user({ clock })], coordinator);
		expect(await node.reliable("user").transaction(null, [MESSAGE], () => "done")).toBe("done");
		await ending(clock, node.reliable("user").flushed());
		expect(coordinator.committed).toHaveLength(4);
		expect(failures).toBe(-1);
	});

	test("R9 a commit that the coordinator does not know is counted and repeated with backoff, never dropped", async () => {
		const clock = new ManualClock();
		const coordinator = scriptedCoordinator();
		coordinator.commit = () => ({ result: "unknown" });
		const node = await startNode([user({ clock })], coordinator);
		await node.reliable("user").transaction(null, [MESSAGE], () => "done");
		await until(() => coordinator.committed.length === 1);
		await clock.advance(1);
		expect(await node.ask("user", "status", {})).toMatchObject([
			{ service: "user", confirmsUnknown: 1, unconfirmed: 1, roles: ["producer"] },
		]);
		await clock.advance(1_000);
		await clock.advance(2_000);
		expect(coordinator.committed.length).toBe(3);
		coordinator.commit = () => ({ result: "ok" });
		await ending(clock, node.reliable("user").flushed());
		expect(await node.ask("user", "status", {})).toMatchObject([{ confirmsUnknown: 0 }]);
	});

	test("R9 acknowledged commits are confirmed in the store, many in one write", async () => {
		const clock = new ManualClock();
		const store = memoryParticipantStore({ clock, random: systemRandom });
		const confirmed: (readonly string[])[] = [];
		const confirm = store.confirm.bind(store);
		store.confirm = (ids) => {
			confirmed.push(ids);
			return confirm(ids);
		};
		const node = await startNode([user({ clock, store })]);
		const { transaction, flushed } = node.reliable("user");
		for (let i = 0; i < 20; i++) await transaction(null, [MESSAGE], () => i);
		await flushed();
		await clock.advance(1_000);
		expect(confirmed.map((ids) => ids.length)).toEqual([20]);
		expect(await store.unconfirmed(-1, 100)).toEqual([]);
	});

	test("R9 at start, what was committed but never acknowledged is told again", async () => {
		const clock = new ManualClock();
		const store = memoryParticipantStore({ clock, random: systemRandom });
		const { storeId } = await store.open();
		const owner = { nodeID: "crashed", instanceID: "gone" };
		await store.run(
			{ id: "0".repeat(26), owner, coordinator: "coordinator-1", timeout: 1_000 },
			async () => 1,
		);
		await clock.advance(1);
		const node = await startNode([user({ clock, store })]);
		await until(() => node.coordinator.committed.length === 1);
		expect(node.coordinator.committed).toEqual([{ id: "0".repeat(26), storeId }]);
	});

	test("R17 a commit that meets a rollback is final: it is not repeated, and its row stays unconfirmed", async () => {
		const clock = new ManualClock();
		const store = memoryParticipantStore({ clock, random: systemRandom });
		const coordinator = scriptedCoordinator();
		coordinator.commit = () => ({ result: "conflict", state: "inDoubt" });
		const node = await startNode([user({ clock, store })], coordinator);
		await node.reliable("user").transaction(null, [MESSAGE], () => 1);
		await node.reliable("user").flushed();
		await clock.advance(200_000);
		expect(coordinator.committed).toHaveLength(1);
		expect(await store.unconfirmed(0, 10)).toHaveLength(1);
	});

	test("R34 rows are purged by age only once they are acknowledged", async () => {
		const clock = new ManualClock();
		const store = memoryParticipantStore({ clock, random: systemRandom });
		const coordinator = scriptedCoordinator();
		const node = await startNode([user({ clock, store, keep: "1h" })], coordinator);
		await node.reliable("user").transaction(null, [MESSAGE], () => "acknowledged");
		await node.reliable("user").flushed();
		coordinator.commit = () => ({ result: "conflict" });
		await node.reliable("user").transaction(null, [MESSAGE], () => "in conflict");
		await node.reliable("user").flushed();
		await clock.advance(59 * 60_000);
		await clock.advance(3 * 60_000);
		const left = (await store.unconfirmed(-1, 10)).map(({ id }) => id);
		expect(left).toEqual([coordinator.prepared[1]?.id]);
		expect(await store.purge(-1, 10)).toBe(0);
	});

	test("R3 R9 a coordinator of another store is never told", async () => {
		const clock = new ManualClock();
		const coordinator = scriptedCoordinator("store-b");
		coordinator.prepare = ({ id }: PrepareItem) => ({
			result: "prepared",
			id,
			state: "prepared",
			coordinator: "store-a",
		});
		const node = await startNode([user({ clock })], coordinator);
		await node.reliable("user").transaction(null, [MESSAGE], () => 1);
		await clock.advance(60_000);
		expect(coordinator.committed).toEqual([]);
		expect(await node.ask("user", "status", {})).toMatchObject([{ unconfirmed: 1 }]);
	});

	test("a coordinator that comes back is told at once, without waiting for the backoff", async () => {
		const clock = new ManualClock();
		const node = await startNode([user({ clock })]);
		const { transaction } = node.reliable("user");
		await transaction(null, [MESSAGE], async () => {
			await node.broker.destroyService("lottor");
		});
		await settle();
		const again = scriptedCoordinator();
		node.broker.createService(again.schema);
		await until(() => again.committed.length === 1);
	});
});
