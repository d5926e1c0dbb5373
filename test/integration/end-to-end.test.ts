import { writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import type { Service, ServiceBroker } from "moleculer";
import { sqliteCoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import type { SqliteTx } from "../../adapters/sqlite/index.ts";
import { defineMessages, type MessagesSchema } from "../../mixins/reliable-message/index.ts";
import { TestCluster } from "../support/lottor.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { until } from "../support/until.ts";

interface Sends {
	auth: { "grant-role": { user: string } };
	mail: { welcome: { user: string } };
}

let lottor: TestCluster;
let broker: ServiceBroker;

type Action = (ctx: unknown) => Promise<unknown>;
/** What a test does around the consume action of `auth`. */
let around: (next: Action, ctx: unknown) => Promise<unknown>;

beforeEach(() => {
	lottor = new TestCluster();
	around = (next, ctx) => next(ctx);
	broker = lottor.broker("node", {
		middlewares: [
			{
				name: "of the test",
				localAction(next: Action, action: { name: string }) {
					return (ctx: unknown) =>
						action.name === "auth.reliable.consume" ? around(next, ctx) : next(ctx);
				},
			} as never,
		],
	});
});

afterEach(() => lottor.stop());

const EFFECTS = "CREATE TABLE effects (message TEXT, user TEXT)";
const USERS = "CREATE TABLE users (name TEXT PRIMARY KEY)";

function grantRole(before: () => void | Promise<void> = () => undefined): MessagesSchema {
	return defineMessages<Sends["auth"], SqliteTx>({
		"grant-role": {
			params: { user: "string" },
			retryPolicy: { retries: 3, delay: 20 },
			async handler(ctx, tx) {
				const { id } = ctx.locals["message"] as { id: string };
				tx.run("INSERT INTO effects VALUES (?, ?)", id, ctx.params.user);
				await before();
			},
		},
	});
}

async function producer(): Promise<{
	user: Service;
	create: (name: string, fail?: boolean) => Promise<string>;
}> {
	const user = lottor.participant(broker, "user");
	await lottor.database("user", USERS);
	const reliable = lottor.reliable<Sends>(user);
	return {
		user,
		create: (name, fail) =>
			reliable.transaction(
				null,
				[{ target: "auth", type: "grant-role", payload: { user: name } }],
				(tx) => {
					tx.run("INSERT INTO users VALUES (?)", name);
					if (fail) throw new Error("work failed");
					return tx.group;
				},
			),
	};
}

describe("end to end on the embedded default", () => {
	test("a commit takes effect at the consumer once; a rollback leaves nothing anywhere", async () => {
		lottor.coordinator(broker);
		await lottor.database("auth", EFFECTS);
		lottor.participant(broker, "auth", grantRole());
		const { create } = await producer();
		await broker.start();
		const id = await create("ann");
		await lottor.reached(id, "completed");
		await expect(create("bob", true)).rejects.toThrow("work failed");
		const { items } = await broker.call<{ items: { id: string; state: string }[] }, object>(
			"lottor.groups.list",
			{},
		);
		await until(
			async () => (await lottor.view(items[0]?.id ?? "")).group.state === "rolledBack",
		);
		expect(await lottor.rows("user", "SELECT name FROM users")).toEqual([{ name: "ann" }]);
		expect(await lottor.rows("auth", "SELECT * FROM effects")).toEqual([
			{ message: `${id}.0`, user: "ann" },
		]);
	});

	test("defect 8: services and message types are plain names, known nowhere but where they are used", async () => {
		lottor.coordinator(broker);
		await lottor.database("v3.ünï-côdé service", EFFECTS);
		lottor.participant(
			broker,
			"ünï-côdé service",
			{
				"any type at all": (_ctx, tx) => {
					(tx as SqliteTx).run("INSERT INTO effects VALUES ('m', 'x')");
				},
			},
			{ store: `sqlite:${lottor.folder}/v3.ünï-côdé service.db`, schema: { version: 3 } },
		);
		const user = lottor.participant(broker, "user");
		await broker.start();
		const reliable = lottor.reliable<Record<string, Record<string, object>>>(user);
		const id = await reliable.transaction(
			null,
			[{ target: "v3.ünï-côdé service", type: "any type at all", payload: {} }],
			(tx) => tx.group,
		);
		await lottor.reached(id, "completed");
		expect(await lottor.rows("v3.ünï-côdé service", "SELECT user FROM effects")).toEqual([
			{ user: "x" },
		]);
	});

	test("defect 5: the producer's record is in its database with the business row, not in a queue", async () => {
		lottor.coordinator(broker);
		const { create } = await producer();
		await broker.start();
		const id = await create("ann");
		expect(await lottor.rows("user", "SELECT id, state FROM lottor_outcome")).toEqual([
			{ id, state: "committed" },
		]);
	});

	test("R33 the report leaves only after the inbox row is durable, in the handler's own transaction", async () => {
		lottor.coordinator(broker);
		await lottor.database("auth", EFFECTS);
		let failures = 2;
		lottor.participant(
			broker,
			"auth",
			grantRole(() => {
				if (failures-- > 0) throw new Error("not yet");
			}),
			// However long an attempt takes, its report comes with the answer.
			{ clock: new ManualClock(Date.now()) },
		);
		const { create } = await producer();
		const atReport: unknown[] = [];
		const store = lottor.database("auth");
		around = async (next, ctx) => {
			const answer = await next(ctx);
			const rows = await (
				await store
			).read((reader) => reader.all("SELECT state, attempt FROM lottor_inbox"));
			atReport.push(...rows.map((row) => ({ ...row })));
			return answer;
		};
		await broker.start();
		await lottor.reached(await create("ann"), "completed");
		expect(atReport).toEqual([
			{ state: "failed", attempt: 1 },
			{ state: "failed", attempt: 2 },
			{ state: "consumed", attempt: 3 },
		]);
		expect(await lottor.rows("auth", "SELECT count(*) AS n FROM effects")).toEqual([{ n: 1 }]);
	});

	test("R11 a nested transaction lives and dies with the handler's", async () => {
		lottor.coordinator(broker);
		await lottor.database("auth", EFFECTS);
		await lottor.database("mail", EFFECTS);
		lottor.participant(broker, "mail", {
			welcome: (ctx, tx) => {
				const { user } = ctx.params as { user: string };
				(tx as SqliteTx).run("INSERT INTO effects VALUES ('m', ?)", user);
			},
		});
		let failures = 1;
		const auth: Service = lottor.participant(
			broker,
			"auth",
			defineMessages<Sends["auth"], SqliteTx>({
				"grant-role": {
					retryPolicy: { retries: 3, delay: 20 },
					async handler(ctx, tx) {
						const { user } = ctx.params;
						tx.run("INSERT INTO effects VALUES ('a', ?)", user);
						await lottor
							.reliable<Sends>(auth)
							.transaction(
								ctx,
								[{ target: "mail", type: "welcome", payload: { user } }],
								() => undefined,
							);
						if (failures-- > 0) throw new Error("after the nested one");
					},
				},
			}),
		);
		const { create } = await producer();
		await broker.start();
		await lottor.reached(await create("ann"), "completed");
		await until(async () => (await lottor.rows("mail", "SELECT * FROM effects")).length > 0);
		const states = async () => {
			const { items } = await broker.call<{ items: { state: string }[] }, object>(
				"lottor.groups.list",
				{},
			);
			return items.map((one) => one.state).sort();
		};
		await until(async () => !(await states()).includes("prepared"));
		await until(
			async () => (await states()).filter((state) => state === "completed").length === 2,
		);
		expect(await states()).toEqual(["completed", "completed", "rolledBack"]);
		expect(await lottor.rows("auth", "SELECT count(*) AS n FROM effects")).toEqual([{ n: 1 }]);
		expect(await lottor.rows("mail", "SELECT count(*) AS n FROM effects")).toEqual([{ n: 1 }]);
	});

	test("100 transactions at once, their messages sent twice: every effect is there once", async () => {
		lottor.coordinator(broker, { ackTimeout: 20, askMaxDelay: 20 });
		await lottor.database("auth", EFFECTS);
		lottor.participant(broker, "auth", grantRole());
		const { create } = await producer();
		around = async (next, ctx) => {
			const [first] = await Promise.all([next(ctx), next(ctx)]);
			await next(ctx);
			return first;
		};
		await broker.start();
		const ids = await Promise.all(Array.from({ length: 100 }, (_, i) => create(`user ${i}`)));
		for (const id of ids) await lottor.reached(id, "completed");
		expect(
			await lottor.rows(
				"auth",
				"SELECT count(*) AS n, count(DISTINCT message) AS ids FROM effects",
			),
		).toEqual([{ n: 100, ids: 100 }]);
	});

	test("a full disk at the coordinator refuses prepare, loses nothing, and heals by itself", async () => {
		const file = `${lottor.folder}/lottor.db`;
		let db: DatabaseSync | undefined;
		const connect = (name: string, timeout: number) =>
			(db = new DatabaseSync(name, { timeout }));
		const store = sqliteCoordinatorStore({ file, connect });
		lottor.coordinator(broker, { store });
		await lottor.database("auth", EFFECTS);
		lottor.participant(broker, "auth", grantRole());
		const { create } = await producer();
		await broker.start();
		await lottor.reached(await create("before"), "completed");
		const pages = Number(db?.prepare("PRAGMA page_count").get()?.["page_count"]);
		db?.exec(`PRAGMA max_page_count = ${pages + 10}`);
		let refused: unknown;
		for (let i = 0; i < 500 && !refused; i++) {
			await create(`filler ${i} ${"x".repeat(5_000)}`).catch(
				(error: unknown) => (refused = error),
			);
		}
		expect(refused).toMatchObject({ type: "LOTTOR_PREPARE_FAILED", retryable: true });
		expect(String((refused as { data: { cause: string } }).data.cause)).toContain("disk");
		db?.exec("PRAGMA max_page_count = 1000000");
		await lottor.reached(await create("after"), "completed");
		const users = await lottor.rows("user", "SELECT count(*) AS n FROM users");
		await until(
			async () =>
				JSON.stringify(await lottor.rows("auth", "SELECT count(*) AS n FROM effects")) ===
				JSON.stringify(users),
		);
	});

	test("a coordinator whose store is locked at start waits for it, then works", async () => {
		const file = `${lottor.folder}/lottor.db`;
		const first = sqliteCoordinatorStore({ file });
		await first.open();
		await first.close();
		const other = new DatabaseSync(file);
		other.exec("BEGIN EXCLUSIVE");
		const store = sqliteCoordinatorStore({ file, lockTimeout: 20 });
		const open = store.open.bind(store);
		let tries = 0;
		store.open = () => {
			tries++;
			return open();
		};
		lottor.coordinator(broker, { store });
		const started = broker.start();
		let ready = false;
		void started.then(() => (ready = true));
		await until(() => tries > 1);
		expect(ready).toBe(false);
		other.exec("COMMIT");
		await started;
		expect(await broker.call("lottor.health")).toMatchObject({ ready: true });
		other.close();
	});

	test("a store that Lottor must not use stops the start: LOTTOR_STORE_UNUSABLE", async () => {
		writeFileSync(`${lottor.folder}/lottor.db`, "this is no database ".repeat(500));
		lottor.coordinator(broker);
		await expect(broker.start()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			retryable: false,
		});
	});

	test("the coordinator stops and comes back in mid-flight: every committed effect arrives", async () => {
		let coordinator = lottor.coordinator(broker);
		await lottor.database("auth", EFFECTS);
		lottor.participant(broker, "auth", grantRole(), { prepareTimeout: "10s" });
		const { create } = await producer();
		await broker.start();
		const made = Promise.all(Array.from({ length: 50 }, (_, i) => create(`user ${i}`)));
		await broker.destroyService(coordinator);
		coordinator = lottor.coordinator(broker);
		const ids = (await Promise.allSettled([made])).flatMap((one) =>
			one.status === "fulfilled" ? one.value : [],
		);
		await until(async () => {
			const [users] = await lottor.rows("user", "SELECT count(*) AS n FROM users");
			const [effects] = await lottor.rows("auth", "SELECT count(*) AS n FROM effects");
			return users?.["n"] === effects?.["n"];
		});
		for (const id of ids) await lottor.reached(id, "completed");
		expect(coordinator.name).toBe("lottor");
	});
});
