import { writeFileSync } from "node:fs";

import { afterEach, beforeEach, describe, expect, it, test } from "@jest/globals";
import type { Knex } from "knex";

import { knexParticipantStore, type KnexTx } from "../../adapters/participant-store/knex.ts";
import {
	type ParticipantStore,
	resolveParticipantStore,
	SqliteParticipantStore,
	type TxBase,
} from "../../adapters/participant-store/index.ts";
import { SQL } from "../../adapters/participant-store/knex/statements.ts";
import { sqlite } from "../../adapters/participant-store/knex/sqlite.ts";
import { reliableOf } from "../../mixins/reliable-message/index.ts";
import { newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";
import {
	clientOf,
	newSqlitePlace,
	safePool,
	type Sqlite,
	type SqlitePlace,
} from "../support/knex-sqlite.ts";
import { TestCluster } from "../support/lottor.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";
import { until } from "../support/until.ts";

const OWNER = { nodeID: "n", instanceID: "i" };

let place: SqlitePlace;
let knex: Knex;
let store: ParticipantStore<KnexTx>;
let stores: ParticipantStore[];

const options = { clock: systemClock, random: systemRandom };
const groupId = () => newGroupId(systemClock, systemRandom);
const names = () => knex("business").orderBy("name").pluck<string[]>("name");

/** A store that is closed after the test. */
async function open(on: unknown, clock = systemClock): Promise<ParticipantStore<KnexTx>> {
	const made = knexParticipantStore(on, { clock }) as ParticipantStore<KnexTx>;
	await made.open();
	stores.push(made);
	return made;
}

function run<T>(id: string, work: (tx: KnexTx) => Promise<T>, on = store, timeout = 60_000) {
	return on.run({ id, owner: OWNER, coordinator: "c", timeout }, work);
}

/** Waits in a work until it is let go on. */
function gate() {
	let reach = () => undefined as void;
	let go = () => undefined as void;
	const reached = new Promise<void>((resolve) => (reach = resolve));
	const opened = new Promise<void>((resolve) => (go = resolve));
	const pass = () => {
		reach();
		return opened;
	};
	return { reached, pass, open: go };
}

beforeEach(async () => {
	place = newSqlitePlace();
	knex = place.knex();
	stores = [];
	store = await open(knex);
	await knex.schema.createTable("business", (table) => table.string("name").primary());
});

afterEach(async () => {
	await Promise.all(stores.map((one) => one.close()));
	await place.remove();
});

describe("the participant store on a Knex instance on SQLite", () => {
	it("is what resolveParticipantStore makes of one", () => {
		const made = resolveParticipantStore(knex, "Service.store", options);
		expect(made.description).toBe(`sqlite:${place.path} (transactional)`);
	});

	it("R12 a work that asks its own Knex, not tx.trx, gets LOTTOR_STORE_BUSY at once", async () => {
		const id = groupId();
		const errors: unknown[] = [];
		const result = await run(id, async (tx) => {
			await tx.trx("business").insert({ name: "inside" });
			const ways = [
				() => knex("business").insert({ name: "outside" }),
				() => knex.raw("SELECT 1"),
				() => knex.transaction(async (trx) => trx("business").insert({ name: "own" })),
				async () => {
					const nested = await run(groupId(), async () => undefined);
					if (nested.state === "rolledBack") throw nested.error;
				},
			];
			for (const way of ways) await way().catch((error: unknown) => errors.push(error));
		});

		expect(result).toEqual({ state: "committed", value: undefined });
		expect(errors).toHaveLength(4);
		for (const error of errors) expect(error).toMatchObject({ type: "LOTTOR_STORE_BUSY" });
		expect(await names()).toEqual(["inside"]);
	});

	it("R12 a handler that asks its own Knex gets LOTTOR_STORE_BUSY at once, and fails", async () => {
		const group = groupId();
		const copy = { id: `${group}.0`, group, attempt: 1, revision: 0, receipt: "r" };
		const result = await store.consume(
			{ ...copy, coordinator: "c", owner: OWNER, isAlive: () => true, timeout: 60_000 },
			async () => void (await knex("business").insert({ name: "outside" })),
		);
		expect(result).toMatchObject({ result: "failed", error: { type: "LOTTOR_STORE_BUSY" } });
	});

	it("R12 the service's own writes wait for a work, and no rollback takes them along", async () => {
		const held = gate();
		const work = run(groupId(), async (tx) => {
			await tx.trx("business").insert({ name: "rolled back" });
			await held.pass();
			throw new Error("no");
		});
		await held.reached;
		let written = false;
		const writing = knex("business")
			.insert({ name: "kept" })
			.then(() => (written = true));
		await settle();
		expect(written).toBe(false);
		held.open();
		await Promise.all([work, writing]);

		expect(await names()).toEqual(["kept"]);
	});

	it("R12 a Knex is as it was once its last store is closed", async () => {
		const second = await open(knex);
		await second.close();
		await run(groupId(), async () => {
			await expect(knex.raw("SELECT 1")).rejects.toMatchObject({ type: "LOTTOR_STORE_BUSY" });
		});
		await store.close();

		expect(Object.hasOwn(knex.client as object, "acquireConnection")).toBe(false);
		expect(await knex.raw("PRAGMA busy_timeout")).toEqual([{ timeout: 5_000 }]);
	});

	it("R14 a fence waits a second for the work that has the only connection: running", async () => {
		const clock = new ManualClock();
		const other = await open(knex, clock);
		const held = gate();
		const [id, decided] = [groupId(), groupId()];
		await run(decided, async () => undefined);
		const work = run(id, held.pass);
		await held.reached;
		// What is decided is read beside the work.
		expect(await other.resolve([decided])).toEqual([{ result: "committed" }]);
		const fencing = other.resolve([id]);
		await settle();
		await clock.advance(1_000);

		expect(await fencing).toEqual([{ result: "running" }]);
		held.open();
		expect((await work).state).toBe("committed");
		expect(await other.resolve([id])).toEqual([{ result: "committed" }]);
	});

	it("R32 a failure is noted however long the work takes that has the only connection", async () => {
		const clock = new ManualClock();
		const other = await open(knex, clock);
		const held = gate();
		const work = run(groupId(), held.pass);
		await held.reached;
		const id = `${groupId()}.0`;
		const error = { code: "NO", message: "no", retryable: true };
		const attempt = { id, attempt: 1, revision: 0, receipt: "r", coordinator: "c", error };
		const failing = other.fail(attempt);
		await settle();
		await clock.advance(5_000);
		held.open();
		await Promise.all([work, failing]);

		expect(await other.look([id])).toMatchObject([{ result: "failed", attempt: 1 }]);
	});

	it("waits without holding up the process while another process has the file locked", async () => {
		const other = await place.connection();
		other.exec("BEGIN IMMEDIATE");
		const working = run(groupId(), (tx) => tx.trx("business").insert({ name: "waited" }));
		let turns = 0;
		const start = performance.now();
		// A statement that waits inside SQLite would leave none, and fail before it gets the lock.
		while (performance.now() - start < 100 || turns <= 10) {
			await settle(1);
			turns++;
		}
		other.exec("COMMIT");

		expect((await working).state).toBe("committed");
		expect(await names()).toEqual(["waited"]);
	});

	it("LOTTOR_STORE_BUSY when another process keeps the file locked, and nothing stands", async () => {
		const clock = new ManualClock();
		const patient = await open(knex, clock);
		const other = await place.connection();
		other.exec("BEGIN IMMEDIATE");
		const working = run(groupId(), async () => undefined, patient);
		let over = false;
		void working.then(() => (over = true));
		while (!over) await clock.advance(5);

		expect(await working).toMatchObject({
			state: "rolledBack",
			error: { type: "LOTTOR_STORE_BUSY" },
		});
		expect(clock.now()).toBeGreaterThanOrEqual(new ManualClock().now() + 10_000);
		other.exec("ROLLBACK");
		expect((await run(groupId(), async () => undefined, patient)).state).toBe("committed");
	}, 60_000);

	it("a full disk rolls the work back, and work goes on once there is room", async () => {
		const pages = Number(
			(await knex.raw<{ page_count: number }[]>("PRAGMA page_count"))[0]?.page_count,
		);
		await knex.raw(`PRAGMA max_page_count = ${pages}`);
		const id = groupId();
		const result = await run(id, async (tx) => {
			await tx.trx("business").insert({ name: "small" });
			await tx.trx("business").insert({ name: "x".repeat(100_000) });
		});
		expect(result).toMatchObject({ state: "rolledBack" });
		expect(await names()).toEqual([]);
		await knex.raw("PRAGMA max_page_count = 1000000");

		expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
		const again = await run(groupId(), async (tx) =>
			tx.trx("business").insert({ name: "room" }),
		);
		expect(again.state).toBe("committed");
	});

	it("a COMMIT that is refused rolls back, and leaves nothing open on the connection", async () => {
		await knex.raw("PRAGMA foreign_keys = 1");
		await knex.raw(
			"CREATE TABLE child (name TEXT REFERENCES business (name) DEFERRABLE INITIALLY DEFERRED)",
		);
		const id = groupId();
		const result = await run(id, async (tx) => tx.trx("child").insert({ name: "nobody" }));

		expect(result.state).toBe("rolledBack");
		await knex("business").insert({ name: "kept" });
		const reader = place.knex();
		expect(await reader("business").pluck("name")).toEqual(["kept"]);
		expect(await reader("child")).toEqual([]);
	});

	it("a work that ends the transaction by a statement of its own is answered by what stands", async () => {
		const [kept, undone] = [groupId(), groupId()];
		const results = [];
		for (const [id, sql] of [
			[kept, "COMMIT"],
			[undone, "ROLLBACK"],
		] as const) {
			const result = await run(id, async (tx) => {
				await tx.trx("business").insert({ name: id });
				await tx.trx.raw(sql);
				expect(() => tx.trx).toThrow(expect.objectContaining({ type: "LOTTOR_TX_CLOSED" }));
			});
			results.push(result.state);
		}
		expect(results).toEqual(["committed", "rolledBack"]);
		expect(await names()).toEqual([kept]);
	});

	it("has the tables of the store that needs no Knex: either can go on where the other was", async () => {
		const id = groupId();
		const { storeId } = await store.open();
		await run(id, async () => undefined);
		const plain = new SqliteParticipantStore(place.path, options);
		await expect(plain.open()).rejects.toMatchObject({ type: "LOTTOR_STORE_UNUSABLE" });
		await store.close();
		await knex.destroy();
		expect(await plain.open()).toEqual({ storeId, guarantee: "transactional" });
		expect(await plain.resolve([id])).toEqual([{ result: "committed" }]);
		const fenced = groupId();
		await plain.resolve([fenced]);
		const another = place.knex();
		await expect(open(another)).rejects.toMatchObject({ type: "LOTTOR_STORE_UNUSABLE" });
		await another.destroy();
		await plain.close();

		const on = await open(place.knex());
		expect((await run(fenced, async () => undefined, on)).state).toBe("fenced");
	});

	it("answers each periodic question by a search of an index, without sorting", async () => {
		const plans = {
			unconfirmed: SQL.unconfirmed,
			unsettled: SQL.unsettled,
			purgeOutcomes: sqlite.purgeOutcomes,
			purgeInbox: sqlite.purgeInbox,
			outcomes: SQL.outcomes(2),
			confirm: SQL.confirm(2),
			settle: SQL.settle(2),
		};
		for (const [name, sql] of Object.entries(plans)) {
			const values = (sql.match(/\?/g) ?? []).map(() => 1);
			const rows = await knex.raw<{ detail: string }[]>(`EXPLAIN QUERY PLAN ${sql}`, values);
			const steps = rows.map(({ detail }) => detail);
			expect([name, steps.some((step) => step.startsWith("SEARCH"))]).toEqual([name, true]);
			expect([name, steps.filter((step) => /SCAN|TEMP B-TREE/.test(step))]).toEqual([
				name,
				[],
			]);
		}
	});
});

test("producer and consumer with one Knex instance: each message takes effect once", async () => {
	await knex.schema.createTable("effect", (table) => table.string("name"));
	const lottor = new TestCluster();
	const broker = lottor.broker("node");
	lottor.coordinator(broker);
	const user = lottor.participant(broker, "user", {}, { store: knex });
	const handler = async (ctx: { params: unknown }, tx: TxBase) =>
		void (await (tx as KnexTx).trx("effect").insert(ctx.params));
	lottor.participant(broker, "auth", { grant: { handler } }, { store: knex });
	await broker.start();
	const create = (name: string, on: (tx: KnexTx) => Knex) =>
		reliableOf<{ auth: { grant: { name: string } } }>(user).transaction(
			null,
			[{ target: "auth", type: "grant", payload: { name } }],
			async (tx) => on(tx as KnexTx)("business").insert({ name }),
		);

	const made = Array.from({ length: 10 }, (_, i) => `user-${i}`);
	await Promise.all(made.map((name) => create(name, ({ trx }) => trx)));
	await expect(create("outside", () => knex)).rejects.toMatchObject({
		type: "LOTTOR_STORE_BUSY",
	});
	await until(async () => (await knex("effect")).length >= made.length);
	await lottor.stop();

	expect(await names()).toEqual(made);
	expect((await knex("effect").pluck<string[]>("name")).sort()).toEqual(made);
});

describe("a Knex instance on SQLite is refused at start (LOTTOR_STORE_UNUSABLE)", () => {
	/** Sets these besides what is asked for. */
	const pragmas = (...settings: string[]): Knex.Config => ({
		pool: safePool((db) => settings.forEach((setting) => db.pragma(setting))),
	});
	const refused: readonly (readonly [string, () => Knex.Config, RegExp])[] = [
		[
			"journal_mode delete",
			() => pragmas("journal_mode = DELETE"),
			/journal_mode is delete.*afterCreate/,
		],
		["journal_mode memory", () => pragmas("journal_mode = MEMORY"), /journal_mode is memory/],
		[
			"synchronous off",
			() => pragmas("synchronous = OFF"),
			/synchronous is not FULL.*afterCreate/,
		],
		["synchronous normal", () => pragmas("synchronous = NORMAL"), /synchronous is not FULL/],
		[
			"locking_mode exclusive",
			() => pragmas("locking_mode = EXCLUSIVE"),
			/locking_mode is exclusive/,
		],
		["a file in memory", () => ({ connection: { filename: ":memory:" } }), /in memory/],
		["a temporary file", () => ({ connection: { filename: "" } }), /in memory, or a temporary/],
		[
			"the option readonly",
			() => ({
				connection: {
					filename: place.path,
					options: { readonly: true },
				},
				pool: {
					afterCreate: (db: Sqlite, done: (error: unknown, db: Sqlite) => void) =>
						done(null, db),
				},
			}),
			/`readonly`/,
		],
		["a pool of two", () => ({ pool: { min: 0, max: 2 } }), /pool of more than one connection/],
		[
			"a missing folder",
			() => ({ connection: { filename: "/no/such/folder/a.db" } }),
			/its file can't be used/,
		],
		[
			"a file that is no database",
			() => {
				const filename = `${place.path}.txt`;
				writeFileSync(
					filename,
					"not a database, but long enough to be read as one".repeat(40),
				);
				return { connection: { filename } };
			},
			/its file can't be used.*not a database/,
		],
	];

	it.each(refused)("%s", async (_what, config, message) => {
		// A file of its own, since no other connection may be open when the journal changes.
		const filename = `${place.path}.unsafe`;
		const unsafe = place.knex({ connection: { filename }, ...config() });
		await expect(open(unsafe)).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringMatching(message),
		});
		// Nothing of it is left: the service may use the instance all the same.
		expect(Object.hasOwn(unsafe.client as object, "acquireConnection")).toBe(false);
	});

	it("tables of a newer version", async () => {
		await store.close();
		await knex("lottor_participant").update({ schema: 99 });
		await expect(open(knex)).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("version 99"),
		});
	});

	it("a connection that comes later, in a work's place", async () => {
		let first = true;
		const lax = place.knex({
			pool: {
				afterCreate: (db: Sqlite, done: (error: unknown, db: Sqlite) => void) => {
					db.pragma(`synchronous = ${first ? "FULL" : "OFF"}`);
					first = false;
					done(null, db);
				},
			},
		});
		const on = await open(lax);
		const client = clientOf(lax);
		const connection = await client.acquireConnection();
		Object.assign(connection, { __knex__disposed: "by the test" });
		await client.releaseConnection(connection);

		expect(await run(groupId(), async () => undefined, on)).toMatchObject({
			state: "rolledBack",
			error: { type: "LOTTOR_STORE_UNUSABLE" },
		});
	});

	it("another driver of SQLite is no store at all (LOTTOR_INVALID_OPTIONS)", () => {
		const client = class extends (clientOf(knex).constructor as typeof Knex.Client) {};
		Object.assign(client.prototype, { driverName: "sqlite3" });
		const other = place.knex({ client });
		expect(() => knexParticipantStore(other)).toThrow(
			expect.objectContaining({
				type: "LOTTOR_INVALID_OPTIONS",
				message: expect.stringContaining('"better-sqlite3"'),
			}),
		);
	});
});
