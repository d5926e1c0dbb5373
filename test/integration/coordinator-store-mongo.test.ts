import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from "@jest/globals";
import { Collection, MongoClient } from "mongodb";
import { ServiceBroker } from "moleculer";

import { ACTIVITY_MS, type CoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import {
	mongoCoordinatorStore,
	type MongoCoordinatorStoreOptions,
} from "../../adapters/coordinator-store/mongo.ts";
import { dueFilter } from "../../adapters/coordinator-store/mongo/claims.ts";
import {
	planOf,
	queryOf,
	wantedGroups,
	wantedMessages,
} from "../../adapters/coordinator-store/mongo/lists.ts";
import { INDEXES } from "../../adapters/coordinator-store/mongo/schema.ts";
import { newGroupId, type NewGroup, systemClock, systemRandom } from "../../protocol/index.ts";
import { ferretdb } from "../../scripts/servers/ferretdb.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { LottorAdmin } from "../../services/admin/index.ts";
import { Coordinator } from "../../services/coordinator/index.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { within } from "../support/live-clock.ts";
import { dispatchTo, FATAL, newGroup, RETRY } from "../support/groups.ts";
import { TestCluster } from "../support/lottor.ts";
import { http, portOf } from "../support/http.ts";
import { dropDatabase, ownDatabase } from "../support/mongo-stores.ts";
import { PrivateServer } from "../support/private-server.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

/** The bar: work goes on by itself this long after the server's return. */
const BACK_WITHIN_MS = 5_000;
const PATIENCE_MS = 120_000;
const SECRET = "s3cret-word";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
	for (const clean of cleanups.splice(0).reverse()) await clean();
});

interface Sends {
	auth: { "grant-role": { user: string } };
}

function fresh(fields: Partial<NewGroup> = {}): NewGroup {
	return newGroup({ id: newGroupId(systemClock, systemRandom), ...fields });
}

async function opened(options: MongoCoordinatorStoreOptions): Promise<CoordinatorStore> {
	const store = mongoCoordinatorStore(options);
	cleanups.push(() => store.close());
	await store.open();
	return store;
}

/** Prepares and commits one group. @returns its id */
async function committed(store: CoordinatorStore): Promise<string> {
	const group = fresh();
	const { id } = group;
	await store.insert([group]);
	const dispatch = dispatchTo("auth");
	await store.decide([{ id, to: "committed", by: "producer", who: "user", dispatch }]);
	return id;
}

/** Prepares, commits and consumes one group. @returns its id, once every step was acknowledged */
async function threeSteps(store: CoordinatorStore): Promise<string> {
	const id = await committed(store);
	await store.apply([{ id, index: 0, event: { type: "consumed", revision: 0, who: "auth" } }]);
	return id;
}

/** Prepares and commits one group; its message fails for good. @returns its id */
async function failedOnce(store: CoordinatorStore, code: string): Promise<string> {
	const id = await committed(store);
	const event = {
		type: "failed",
		attempt: 1,
		revision: 0,
		error: { ...FATAL, code },
		policy: RETRY,
		fraction: 0.5,
		who: "auth",
	} as const;
	await store.apply([{ id, index: 0, event }]);
	return id;
}

describe("coordinator store mongo: what it refuses", () => {
	test.each([
		["localhost", "url"],
		["mongodb:///x", "url"],
		["mysql://host/db", "url"],
	])("%s: LOTTOR_INVALID_OPTIONS", (url, field) => {
		expect(() => mongoCoordinatorStore({ url })).toThrow(
			expect.objectContaining({ type: "LOTTOR_INVALID_OPTIONS", data: { field } }),
		);
	});

	test.each([
		"w=1",
		"w=0",
		"journal=false",
		"readPreference=secondary",
		"readConcernLevel=local",
	])("%s: LOTTOR_STORE_UNUSABLE, without the password", async (setting) => {
		const url = `mongodb://lottor:${SECRET}@127.0.0.1:1/db?${setting}`;
		const store = mongoCoordinatorStore({ url });
		const error = await store.open().catch((thrown: unknown) => thrown);
		expect(error).toMatchObject({ type: "LOTTOR_STORE_UNUSABLE", retryable: false });
		expect(String((error as Error).message)).toContain(setting);
		expect(JSON.stringify(error) + store.description).not.toContain(SECRET);
	});

	test("nobody there: LOTTOR_STORE_UNAVAILABLE", async () => {
		const store = mongoCoordinatorStore({ url: "mongodb://127.0.0.1:1/db", timeout: 100 });
		await expect(store.open()).rejects.toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
		await expect(store.get(["x"])).rejects.toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
	});

	withServer(ferretdb, "coordinator store mongo on FerretDB", (server) => {
		test("FerretDB 1: LOTTOR_STORE_UNUSABLE, and says what it lacks (R19)", async () => {
			const store = mongoCoordinatorStore({ url: ownDatabase(server) });
			await expect(store.open()).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("$$NOW") as unknown,
			});
		});
	});
});

withServer(mongodb, "coordinator store mongo on DocumentDB", (server) => {
	describe("coordinator store mongo on DocumentDB", () => {
		async function database(): Promise<string> {
			const url = ownDatabase(server);
			cleanups.push(() => dropDatabase(url));
			return url;
		}

		test("a database of a newer schema is refused", async () => {
			const url = await database();
			await (await opened({ url })).close();
			const client = new MongoClient(url);
			cleanups.push(() => client.close());
			const own = client.db().collection<{ _id: string }>("lottor_coordinator");
			await own.updateOne({ _id: "identity" }, { $set: { schema: 99 } });
			await expect(mongoCoordinatorStore({ url }).open()).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("schema 99") as unknown,
			});
		});

		test("driver 6 works as well as 7, on the same data", async () => {
			const url = await database();
			const old = await opened({ url, driver: () => import("mongodb-6") });
			const store = await opened({ url });
			const [a, b] = [await threeSteps(old), await threeSteps(store)];
			for (const one of [old, store]) {
				const groups = await one.get([a, b]);
				expect(groups.map((group) => group?.state)).toEqual(["completed", "completed"]);
				expect(await one.timeline(a)).toHaveLength(5);
				expect(await one.purge({ state: "rolledBack", age: 0, limit: 1 })).toBe(0);
				expect((await one.list({}, { limit: 9 })).items).toHaveLength(2);
				const since = one.now() - ACTIVITY_MS.minute;
				const rows = await one.activity("minute", since, one.now() + 1);
				expect(rows.filter(({ what }) => what === "prepared")).not.toHaveLength(0);
			}
		});

		test("R19: times are the server's, whatever this machine's time of day is", async () => {
			const url = await database();
			const store = await opened({ url });
			const client = new MongoClient(url);
			cleanups.push(() => client.close());
			const raw = client
				.db()
				.collection<{ _id: string; leaseUntil: number; due: object }>("lottor_groups");
			const other = await opened({ url });
			const wrong = jest.spyOn(Date, "now").mockReturnValue(Date.now() + 300_000);
			try {
				const ids: string[] = [];
				for (let i = 0; i < 3; i++) {
					const group = fresh({ checkAfter: 1 });
					await store.insert([group]);
					ids.push(group.id);
				}
				const request = { kind: "check", lease: 60_000, limit: 10 } as const;
				const taken: string[] = [];
				while (taken.length < 3) {
					const claimed = await other.claim({ ...request, owner: "lottor@b" });
					taken.push(...claimed.map(({ group }) => group.id));
				}
				expect(taken.sort()).toEqual(ids.sort());
				expect(await store.claim({ ...request, owner: "lottor@a" })).toEqual([]);
				const [group] = await store.get([taken[0] ?? ""]);
				const stored = await raw.findOne({ _id: taken[0] ?? "" });
				expect(stored?.leaseUntil).toBe(group?.leaseUntil);
				// The engine runs on this machine, whose true time the mock hides from Date only.
				const truth = performance.timeOrigin + performance.now();
				expect(Math.abs((stored?.leaseUntil ?? 0) - 60_000 - truth)).toBeLessThan(30_000);
				expect(Math.abs(store.now() - truth)).toBeLessThan(30_000);
			} finally {
				wrong.mockRestore();
			}
		});

		test("R19: a lease ends by the server's clock, and then the group is another's", async () => {
			const url = await database();
			const [store, other] = [await opened({ url }), await opened({ url })];
			const group = fresh({ checkAfter: 1 });
			await store.insert([group]);
			const claim = (by: CoordinatorStore, lease: number) =>
				by.claim({ kind: "check", owner: "x", lease, limit: 10 });
			await until(async () => (await claim(store, 300)).length === 1);
			let epoch: number | undefined;
			await until(async () => {
				epoch = (await claim(other, 60_000))[0]?.group.epoch;
				return epoch !== undefined;
			});
			expect(epoch).toBe(2);
		});

		test("an idempotency key whose group never came is taken over, and its taker gives way", async () => {
			const url = await database();
			const store = await opened({ url });
			const client = new MongoClient(url);
			cleanups.push(() => client.close());
			const keys = client.db().collection<{ _id: string; group: string }>("lottor_keys");
			const key = JSON.stringify(["user", "k"]);
			await keys.insertOne({ _id: key, group: "gone", settled: false } as never);
			const group = fresh({ idempotencyKey: "k" });
			expect(await store.insert([group])).toEqual([{ result: "created" }]);
			expect(await keys.findOne({ _id: key })).toMatchObject({
				group: group.id,
				settled: true,
			});
			const racing = await Promise.all(
				[await opened({ url }), await opened({ url }), store].map((one) =>
					one.insert([fresh({ idempotencyKey: "r" })]),
				),
			);
			const results = racing.flat().map(({ result }) => result);
			expect(results.filter((result) => result === "created")).toHaveLength(1);
			expect((await store.list({}, { limit: 10 })).items).toHaveLength(2);
		});

		test("a coordinator on it delivers, retries and completes", async () => {
			const url = await database();
			const cluster = new TestCluster();
			cleanups.push(() => cluster.stop());
			const broker = cluster.broker("node");
			cluster.coordinator(broker, { store: url });
			let tries = 0;
			cluster.participant(broker, "auth", {
				"grant-role": async () => {
					if (++tries === 1) throw new Error("not yet");
				},
			});
			const user = cluster.participant(broker, "user");
			await broker.start();
			const message = {
				target: "auth",
				type: "grant-role",
				payload: { user: "ada" },
			} as const;
			const work = async (tx: { readonly group: string }) => tx.group;
			const id = await cluster.reliable<Sends>(user).transaction(null, [message], work);
			const { group } = await cluster.reached(id, "completed");
			expect(group.messages[0]).toMatchObject({ state: "consumed", attempts: 1 });
			expect(tries).toBe(2);
		});

		test("a write that the driver never answers holds up nobody for good", async () => {
			const store = await opened({ url: await database(), timeout: "1s" });
			const group = fresh();
			await store.insert([group]);
			const dispatch = dispatchTo("auth");
			const commit = () =>
				store.decide([
					{ id: group.id, to: "committed", by: "producer", who: "user", dispatch },
				]);
			const write = Reflect.get(Collection.prototype, "bulkWrite");
			let unanswered = 0;
			const silent = jest
				.spyOn(Collection.prototype, "bulkWrite")
				.mockImplementation(function (this: Collection, ...args) {
					if (this.collectionName !== "lottor_groups" || unanswered++ > 0)
						return write.apply(this, args);
					return new Promise(() => undefined);
				});
			cleanups.push(async () => silent.mockRestore());
			await expect(commit()).rejects.toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
			expect(unanswered).toBe(1);

			// Who came while the batch was given up gets its error, too.
			expect(await commit().catch(commit)).toMatchObject([{ result: "done" }]);
			await store.close();
		});

		test("a purge that died halfway is ended by the next", async () => {
			const url = await database();
			const store = await opened({ url });
			const id = await threeSteps(store);
			const client = new MongoClient(url);
			cleanups.push(() => client.close());
			await client
				.db()
				.collection<{ _id: string; ids: string[] }>("lottor_purges")
				.insertOne({ _id: "1000000000000 x", ids: [id] });
			await client.db().collection<{ _id: string }>("lottor_groups").deleteOne({ _id: id });
			await store.purge({ state: "completed", age: 0, limit: 10 });
			await until(async () => {
				const left = ["lottor_payloads", "lottor_timeline", "lottor_purges"].map((name) =>
					client.db().collection(name).countDocuments(),
				);
				return (await Promise.all(left)).every((count) => count === 0);
			});
		});

		test("counts anew what a process that died has not counted, and a database without counters", async () => {
			const url = await database();
			const store = await opened({ url });
			await threeSteps(store);
			await store.insert([fresh(), fresh({ source: "v2.shop" })]);
			const stats = await store.stats();
			expect(stats.groups).toMatchObject({ completed: 1, prepared: 2 });
			await store.close();
			const client = new MongoClient(url);
			cleanups.push(() => client.close());
			const counters = client.db().collection<{ _id: string }>("lottor_counters");
			expect(await counters.findOne()).toMatchObject({ open: {} });

			await counters.updateOne(
				{ _id: "standing" },
				{
					$inc: { "group.completed": 5, "message.held": -2, "backlog.auth": 3 },
					$set: { "open.dead": 1 },
				},
			);
			const next = await opened({ url });
			await until(async () => JSON.stringify(await next.stats()) === JSON.stringify(stats));
			await until(async () => (await counters.countDocuments({ "open.dead": 1 })) === 0);
			await next.close();

			await counters.deleteMany({});
			const last = await opened({ url });
			expect(await last.stats()).toEqual(stats);
		});

		test("two that count anew at once correct once", async () => {
			const url = await database();
			const store = await opened({ url });
			await threeSteps(store);
			await failedOnce(store, "E_ONE");
			const [stats, failures] = [await store.stats(), await store.failures()];
			await store.close();
			const client = new MongoClient(url);
			cleanups.push(() => client.close());
			const counters = client.db().collection<{ _id: string }>("lottor_counters");
			for (let round = 0; round < 5; round++) {
				await counters.updateMany({ count: { $exists: true } }, { $inc: { count: 3 } });
				await counters.updateOne(
					{ _id: "standing" },
					{ $inc: { "group.completed": -1 }, $set: { "open.dead": 1 } },
				);
				const both = await Promise.all([opened({ url }), opened({ url })]);
				await Promise.all(both.map((one) => one.close()));
				const next = await opened({ url });
				expect(await next.stats()).toEqual(stats);
				expect(await next.failures()).toEqual(failures);
				await next.close();
			}
		});

		test("counts failures anew after a process that died, and where they were never counted", async () => {
			const url = await database();
			const store = await opened({ url });
			await failedOnce(store, "E_ONE");
			// Half of a character, as a text that is cut has at its end.
			const odd = await failedOnce(store, "E_TWO \ud83d");
			const last = await failedOnce(store, "E_ONE");
			const failures = await store.failures();
			expect(failures).toMatchObject([
				{ errorCode: "E_ONE", messages: 2, newest: { group: last } },
				{ errorCode: "E_TWO \ufffd", messages: 1, newest: { group: odd } },
			]);
			await store.close();
			const client = new MongoClient(url);
			cleanups.push(() => client.close());
			const counters = client.db().collection<{ _id: string }>("lottor_counters");
			const counted = { count: { $exists: true } };
			const soon = async () => {
				const next = await opened({ url });
				await until(async () => {
					return JSON.stringify(await next.failures()) === JSON.stringify(failures);
				});
				await next.close();
			};

			await counters.updateMany(counted, { $inc: { count: 3 } });
			await counters.updateOne({ _id: "standing" }, { $set: { "open.dead": 1 } });
			await soon();
			await counters.deleteMany(counted);
			await counters.updateOne({ _id: "standing" }, { $unset: { failures: "" } });
			await soon();
			expect(await counters.countDocuments({ failures: 1 })).toBe(1);
			await counters.deleteMany({});
			const again = await opened({ url });
			expect(await again.failures()).toEqual(failures);
		});

		test("claims, lists, wakes and purges are ranges of an index", async () => {
			const url = await database();
			await threeSteps(await opened({ url }));
			const client = new MongoClient(url);
			cleanups.push(() => client.close());
			const plans = [
				planOf(wantedGroups({})),
				planOf(wantedGroups({ states: ["completed"], source: "user" })),
				planOf(wantedGroups({ terms: ["ada"], type: "grant" }), "oldest"),
				planOf(wantedGroups({ since: 4, until: 6, source: "user" }), "oldest", -1),
				planOf(wantedGroups({ idPrefix: "01k" })),
				planOf(wantedMessages({ states: ["failed"], errorCode: "E" })),
			];
			const firsts = plans.map((plan) => queryOf(plan, plan.ranges[0], undefined, true));
			const lists = [
				...firsts,
				...plans.map((plan) =>
					queryOf(plan, plan.ranges[0], { createdAt: 5, id: "a" }, true),
				),
			];
			const share = { slots: [1, 2], after: 2_000 };
			const request = { kind: "deliver", owner: "x", lease: 1, limit: 5, share } as const;
			const queries: readonly [string, object][] = [
				...lists.map((query): [string, object] => [
					"facets" in query.hint
						? "facets"
						: "createdAt" in query.hint
							? "created"
							: "_id_",
					query,
				]),
				[
					"due",
					{ filter: dueFilter(request, 5), sort: { "due.at": 1 }, hint: INDEXES.due.key },
				],
				["wakes", { filter: { wakes: "target auth" }, hint: INDEXES.wakes.key }],
				[
					"purge",
					{
						filter: { "purge.state": "completed", "purge.since": { $lte: 5 } },
						hint: INDEXES.purge.key,
					},
				],
			];
			for (const [index, query] of queries) {
				const explain = { find: "lottor_groups", ...query, limit: 5 };
				const plan = JSON.stringify(await client.db().command({ explain }));
				expect({ query, seen: plan.includes(`"${index}"`) }).toEqual({ query, seen: true });
				expect(plan).not.toContain("Seq Scan");
				// First pages are read in the order of the index.
				const sorted = plan.includes('"Sort"') && firsts.some((first) => first === query);
				expect({ query, sorted }).toEqual({ query, sorted: false });
			}
		});
	});

	describe("coordinator store mongo on DocumentDB: outages", () => {
		let server: PrivateServer;
		let proxy: FaultProxy;
		let url: string;

		beforeAll(async () => {
			server = await PrivateServer.start(mongodb, SECRET);
			proxy = await FaultProxy.start({ host: "127.0.0.1", port: server.port });
			url = `mongodb://lottor:${SECRET}@127.0.0.1:${proxy.port}/outages`;
		}, PATIENCE_MS);
		afterAll(async () => {
			await proxy.close();
			await server.dispose();
		});

		/** Callers that go through the three steps again and again. */
		function load(store: CoordinatorStore) {
			const acknowledged: string[] = [];
			const refused: { type?: string; retryable?: boolean }[] = [];
			let stopped = false;
			const caller = async () => {
				while (!stopped) {
					try {
						acknowledged.push(await threeSteps(store));
					} catch (error) {
						refused.push(error as { type?: string });
						await new Promise((again) => setTimeout(again, 20));
					}
				}
			};
			const callers = Array.from({ length: 8 }, caller);
			const stop = () => {
				stopped = true;
				return Promise.all(callers);
			};
			return { acknowledged, refused, stop };
		}

		async function ride(fault: () => Promise<unknown>, mend: () => Promise<unknown>) {
			const store = await opened({ url, timeout: "1s" });
			const { acknowledged, refused, stop } = load(store);
			await until(() => acknowledged.length >= 30);
			await fault();
			await until(() => refused.length >= 8);
			const before = acknowledged.length;
			await mend();
			await within(BACK_WITHIN_MS, "work goes on", () => acknowledged.length > before);
			await until(() => acknowledged.length > before + 20);
			await stop();
			for (const error of refused) {
				expect(error).toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE", retryable: true });
			}
			const groups = await store.get(acknowledged);
			expect(groups.filter((group) => group?.state !== "completed")).toEqual([]);
			for (const id of acknowledged.slice(-5)) {
				expect(await store.timeline(id)).toHaveLength(5);
			}
		}

		test(
			"killed in the middle: LOTTOR_STORE_UNAVAILABLE, then on by itself, nothing lost",
			() =>
				ride(
					() => server.kill(),
					() => server.start(),
				),
			PATIENCE_MS,
		);

		test(
			"a connection that swallows everything: told in time, then on by itself, nothing lost",
			() =>
				ride(
					async () => proxy.blackhole(),
					async () => proxy.mend(),
				),
			PATIENCE_MS,
		);

		test(
			"no primary (NotWritablePrimary, as in an election): on by itself, nothing lost",
			async () => {
				const client = new MongoClient(server.url);
				cleanups.push(() => client.close());
				const step = (seconds: number) =>
					client.db("admin").command({ replSetStepDown: seconds });
				await ride(
					() => step(600),
					() => step(0),
				);
			},
			PATIENCE_MS,
		);

		test("a wrong password is LOTTOR_STORE_UNUSABLE, and is not shown", async () => {
			const wrong = url.replace(SECRET, "wr0ng-word");
			const error = await mongoCoordinatorStore({ url: wrong })
				.open()
				.catch((thrown: unknown) => thrown);
			expect(error).toMatchObject({ type: "LOTTOR_STORE_UNUSABLE" });
			expect(JSON.stringify(error) + String(error)).not.toContain("wr0ng-word");
		});

		test(
			"down at start: the coordinator waits, says so and is not ready; then it is",
			async () => {
				await proxy.close();
				const admin = new ServiceBroker({ nodeID: "admin", logger: false });
				admin.createService(LottorAdmin({ port: 0 }));
				const service = admin.createService(Coordinator({ store: url }));
				const said: string[] = [];
				service.logger.warn = (text: string) => said.push(text);
				let started = false;
				const starting = admin.start().then(() => (started = true));
				cleanups.push(async () => {
					await starting;
					await admin.stop();
				});
				await until(() => said.length >= 2);
				expect(said[0]).toContain(
					"Waiting for the coordinator store MongoDB mongodb://127.0.0.1",
				);
				expect(said.join()).not.toContain(SECRET);
				const ready = () =>
					http(portOf(admin, "lottor-admin"), "GET /readyz").then(
						({ status }) => status,
						() => 0,
					);
				expect(await ready()).not.toBe(200);
				await proxy.open();
				await within(BACK_WITHIN_MS, "it starts", () => started);
				await starting;
				await until(async () => (await ready()) === 200);
			},
			PATIENCE_MS,
		);
	});
});
