import { randomBytes } from "node:crypto";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { Redis } from "ioredis";
import makeKnex from "knex";
import type { Service, ServiceBroker } from "moleculer";
import { MongoClient } from "mongodb";

import type { KnexTx } from "../../adapters/participant-store/knex.ts";
import type { MongoTx } from "../../adapters/participant-store/mongo.ts";
import { resolveParticipantStore, type TxBase } from "../../adapters/participant-store/index.ts";
import { defineMessages, reliableOf } from "../../mixins/reliable-message/index.ts";
import { type Guarantee, newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";
import type { ServerKind } from "../../scripts/servers/kind.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { mysql } from "../../scripts/servers/mysql.ts";
import { postgres } from "../../scripts/servers/postgres.ts";
import { redis } from "../../scripts/servers/redis.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { within } from "../support/live-clock.ts";
import { TestCluster } from "../support/lottor.ts";
import { PrivateServer } from "../support/private-server.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

/** The bar: work goes on by itself this long after the server's return. */
const BACK_WITHIN_MS = 5_000;
const PATIENCE_MS = 120_000;
const CALLERS = 4;
const ELECTION_S = 2;
const MONGO_DATABASE = "outages";
/** What each refused work holds, and how many there are: 19 MB in all. */
const REFUSED_BYTES = 100_000;
const REFUSED_AT_ONCE = 32;
const REFUSED_ROUNDS = 6;

interface Sends {
	auth: { "grant-role": { user: string } };
}

/** The service's own data, in the same database as the store's. */
interface Business {
	/** Inside `tx` where the store is transactional. */
	write(tx: TxBase, list: "users" | "effects", name: string): Promise<void>;
	read(list: "users" | "effects"): Promise<string[]>;
	close(): Promise<void>;
}

async function sqlBusiness(client: string, url: string): Promise<Business> {
	const knex = makeKnex({
		client,
		connection: client === "pg" ? { connectionString: url } : url,
		pool: { min: 0, max: 2 },
		log: { warn: () => undefined },
	});
	for (const list of ["users", "effects"]) {
		await knex.schema.createTable(list, (table) => table.string("name"));
	}
	return {
		write: async (tx, list, name) => void (await (tx as KnexTx).trx(list).insert({ name })),
		read: (list) => knex(list).pluck<string[]>("name"),
		close: () => knex.destroy(),
	};
}

async function redisBusiness(url: string): Promise<Business> {
	const client = new Redis(url, { maxRetriesPerRequest: 0, enableOfflineQueue: true });
	client.on("error", () => undefined);
	return {
		write: async (_tx, list, name) => void (await client.rpush(list, name)),
		read: (list) => client.lrange(list, 0, -1),
		close: async () => client.disconnect(),
	};
}

async function mongoBusiness(url: string): Promise<Business> {
	const client = new MongoClient(url);
	const db = client.db(MONGO_DATABASE);
	for (const list of ["users", "effects"]) await db.createCollection(list);
	return {
		write: async (tx, list, name) => {
			const { db: inside, session } = tx as MongoTx;
			await inside.collection(list).insertOne({ name }, { session });
		},
		read: async (list) => {
			const rows = await db.collection<{ name: string }>(list).find().toArray();
			return rows.map(({ name }) => name);
		},
		close: () => client.close(),
	};
}

/** For so many seconds the server is no primary, as while a replica set elects another one. */
async function stepDown(url: string, seconds: number): Promise<void> {
	const client = new MongoClient(url);
	await client.db("admin").command({ replSetStepDown: seconds });
	await client.close();
}

/** As an administrator does who makes another server the primary: reads only, and ends who is there. */
async function postgresStepsDown(url: string, seconds: number): Promise<void> {
	const knex = makeKnex({ client: "pg", connection: url, pool: { min: 0, max: 1 } });
	const readOnly = async (value: "on" | "off") => {
		await knex.raw(`ALTER SYSTEM SET default_transaction_read_only = ${value}`);
		await knex.raw("SELECT pg_reload_conf()");
		await knex.raw(
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
		);
	};
	await readOnly("on");
	setTimeout(() => void readOnly("off").then(() => knex.destroy()), seconds * 1_000);
}

async function mysqlStepsDown(url: string, seconds: number): Promise<void> {
	const root = new URL(url);
	const { username } = root;
	root.username = "root";
	const knex = makeKnex({ client: "mysql2", connection: root.href, pool: { min: 0, max: 1 } });
	// Who may set it is not bound by it; the right is looked at when a connection begins.
	await knex.raw(`REVOKE SUPER, READ_ONLY ADMIN ON *.* FROM '${username}'@'127.0.0.1'`);
	await knex.raw("SET GLOBAL read_only = 1");
	await knex.raw(`KILL USER '${username}'@'127.0.0.1'`);
	const back = async () => {
		await knex.raw("SET GLOBAL read_only = 0");
		await knex.destroy();
	};
	setTimeout(() => void back(), seconds * 1_000);
}

/** What the process keeps, once all that can be thrown away is. Bytes. */
function heap(): number {
	setFlagsFromString("--expose-gc");
	(runInNewContext("gc") as () => void)();
	return process.memoryUsage().heapUsed;
}

const SUBJECTS: readonly {
	readonly kind: ServerKind;
	readonly guarantee: Guarantee;
	readonly business: (url: string) => Promise<Business>;
	/** Where the URL of the server names no database. */
	readonly database?: string;
	/** Takes the server's place away for so many seconds, if it has one. */
	readonly stepDown?: (url: string, seconds: number) => Promise<void>;
}[] = [
	{
		kind: postgres,
		guarantee: "transactional",
		business: (url) => sqlBusiness("pg", url),
		stepDown: postgresStepsDown,
	},
	{
		kind: mysql,
		guarantee: "transactional",
		business: (url) => sqlBusiness("mysql2", url),
		stepDown: mysqlStepsDown,
	},
	{ kind: redis, guarantee: "recorded", business: redisBusiness },
	{
		kind: mongodb,
		guarantee: "transactional",
		business: mongoBusiness,
		database: MONGO_DATABASE,
		stepDown,
	},
];

for (const { kind, guarantee, business: makeBusiness, ...subject } of SUBJECTS) {
	withServer(kind, `participant store on ${kind.name}: outages`, () => {
		describe(`participant store on ${kind.name}: outages`, () => {
			let server: PrivateServer;
			let proxy: FaultProxy;
			let lottor: TestCluster;
			let broker: ServiceBroker;
			let business: Business;
			let services: Service[];
			let url: string;

			beforeEach(async () => {
				server = await PrivateServer.start(kind);
				proxy = await FaultProxy.start({ host: "127.0.0.1", port: server.port });
				business = await makeBusiness(server.url);
				const through = new URL(server.url);
				through.port = String(proxy.port);
				if (subject.database !== undefined) through.pathname = `/${subject.database}`;
				url = through.href;
				lottor = new TestCluster();
				broker = lottor.broker("node");
				lottor.coordinator(broker, { retryPolicy: { delay: 100, retries: 100 } });
				services = [
					lottor.participant(broker, "user", {}, { store: url }),
					lottor.participant(broker, "auth", handlers(), { store: url }),
				];
			}, PATIENCE_MS);

			afterEach(async () => {
				await lottor.stop();
				await business.close();
				await proxy.close();
				await server.dispose();
			}, PATIENCE_MS);

			const handlers = () =>
				defineMessages<Sends["auth"]>({
					"grant-role": {
						params: { user: "string" },
						handler: (ctx, tx) => business.write(tx, "effects", ctx.params.user),
					},
				});

			function create(name: string): Promise<string> {
				const payload = { user: name };
				const message = { target: "auth", type: "grant-role", payload } as const;
				return reliableOf<Sends>(services[0] as Service).transaction(
					null,
					[message],
					async (tx) => {
						await business.write(tx, "users", name);
						return name;
					},
				);
			}

			/** Callers without a pause. @returns a way to stop them, and what they were told */
			function load() {
				const acknowledged: string[] = [];
				const refused: { readonly type: unknown; readonly retryable: unknown }[] = [];
				let stopped = false;
				const caller = async (number: number) => {
					for (let i = 0; !stopped; i++) {
						try {
							acknowledged.push(await create(`${number}-${i}`));
						} catch (error) {
							refused.push(error as { type: unknown; retryable: unknown });
							await new Promise((resolve) => setTimeout(resolve, 20));
						}
					}
				};
				const callers = Array.from({ length: CALLERS }, (_, number) => caller(number));
				const stop = () => {
					stopped = true;
					return Promise.all(callers);
				};
				return { acknowledged, refused, stop };
			}

			/** Everything that was acknowledged took effect, and nothing else did. */
			async function account(acknowledged: readonly string[]): Promise<void> {
				await until(async () => {
					const effects = new Set(await business.read("effects"));
					return acknowledged.every((name) => effects.has(name));
				});
				const [users, effects] = [
					await business.read("users"),
					await business.read("effects"),
				];
				expect(acknowledged.filter((name) => !users.includes(name))).toEqual([]);
				expect(effects.filter((name) => !users.includes(name))).toEqual([]);
				if (guarantee === "transactional") {
					expect(effects.filter((name, at) => effects.indexOf(name) !== at)).toEqual([]);
				}
			}

			test(
				"down at start: the service waits, says so, and is there when the server is",
				async () => {
					await server.kill();
					const said: string[] = [];
					for (const { logger } of services)
						logger.warn = (text: string) => said.push(text);
					let started = false;
					const starting = broker.start().then(() => (started = true));
					await until(() => said.length >= 2);
					expect(said[0]).toContain("Lottor: waiting for the participant store");
					expect(said[0]).toContain(`127.0.0.1:${proxy.port}`);
					expect(broker.registry.hasService("user", "node")).toBe(false);

					await server.start();
					await within(BACK_WITHIN_MS, "it starts", () => started);
					await starting;
					await create("first");
					await account(["first"]);
				},
				PATIENCE_MS,
			);

			test(
				"down at start: a service that waits can be stopped",
				async () => {
					await server.kill();
					let waits = false;
					for (const { logger } of services) logger.warn = () => (waits = true);
					const starting = broker.start().catch(() => undefined);
					await until(() => waits);
					await broker.stop();
					await starting;
				},
				PATIENCE_MS,
			);

			test(
				"killed in the middle: LOTTOR_STORE_UNAVAILABLE, then on by itself, nothing lost",
				async () => {
					await broker.start();
					const { acknowledged, refused, stop } = load();
					await until(() => acknowledged.length >= 50);
					await server.kill();
					await until(() => refused.length >= 4 * CALLERS);
					const before = acknowledged.length;
					await server.start();
					await within(
						BACK_WITHIN_MS,
						"work goes on",
						() => acknowledged.length > before,
					);
					await until(() => acknowledged.length > before + 20);
					await stop();

					const types = refused.map(({ type }) => type);
					expect(types).toContain("LOTTOR_STORE_UNAVAILABLE");
					expect(
						refused.filter(
							({ type, retryable }) =>
								!(type === "LOTTOR_STORE_UNAVAILABLE" && retryable === true) &&
								type !== "LOTTOR_OUTCOME_UNKNOWN" &&
								// What the work itself threw, which is not the store's to name.
								!(guarantee === "recorded" && type === undefined),
						),
					).toEqual([]);
					await account(acknowledged);
				},
				PATIENCE_MS,
			);

			test(
				"down for long: what is refused leaves nothing behind in memory",
				async () => {
					const machine = { clock: systemClock, random: systemRandom };
					const store = resolveParticipantStore(url, "store", machine);
					await store.open();
					await server.kill();
					const owner = { nodeID: "node", instanceID: "start" };
					const refused = async () => {
						const id = newGroupId(systemClock, systemRandom);
						const payload = randomBytes(REFUSED_BYTES / 2).toString("hex");
						const work = async () => payload.length;
						const request = { id, owner, coordinator: "c", timeout: 60_000 };
						expect((await store.run(request, work)).state).not.toBe("committed");
					};
					const rounds = async (count: number) => {
						for (let round = 0; round < count; round++) {
							await Promise.all(Array.from({ length: REFUSED_AT_ONCE }, refused));
						}
					};
					await rounds(2);
					const before = heap();
					await rounds(REFUSED_ROUNDS);
					const kept = heap() - before;
					const passed = REFUSED_BYTES * REFUSED_AT_ONCE * REFUSED_ROUNDS;
					expect(kept).toBeLessThan(passed / 4);
					await server.start();
					await store.close();
				},
				PATIENCE_MS,
			);

			const elects = subject.stepDown;
			(elects ? test : () => undefined)(
				"a primary that steps down: LOTTOR_STORE_UNAVAILABLE, then on by itself, nothing lost",
				async () => {
					await broker.start();
					const { acknowledged, refused, stop } = load();
					await until(() => acknowledged.length >= 20);
					await elects?.(server.url, ELECTION_S);
					await until(() => refused.length >= CALLERS);
					const before = acknowledged.length;
					const limit = ELECTION_S * 1_000 + BACK_WITHIN_MS;
					await within(limit, "a primary again", () => acknowledged.length > before);
					await until(() => acknowledged.length > before + 20);
					await stop();

					for (const { type, retryable } of refused) {
						if (type === "LOTTOR_OUTCOME_UNKNOWN") continue;
						expect({ type, retryable }).toEqual({
							type: "LOTTOR_STORE_UNAVAILABLE",
							retryable: true,
						});
					}
					await account(acknowledged);
				},
				PATIENCE_MS,
			);

			test(
				"a connection that swallows everything: told in time, then on by itself, nothing lost",
				async () => {
					await broker.start();
					const { acknowledged, refused, stop } = load();
					await until(() => acknowledged.length >= 20);
					proxy.blackhole();
					await until(() => refused.length >= CALLERS);
					const before = acknowledged.length;
					proxy.mend();
					await within(
						BACK_WITHIN_MS,
						"work goes on",
						() => acknowledged.length > before,
					);
					await stop();
					await account(acknowledged);
				},
				PATIENCE_MS,
			);
		});
	});
}
