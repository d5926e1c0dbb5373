import { randomBytes } from "node:crypto";

import { afterEach, beforeEach, expect, it, jest } from "@jest/globals";
import makeKnex, { type Knex } from "knex";

import type { ConsumeRequest, ParticipantStore } from "../../adapters/participant-store/index.ts";
import { knexParticipantStore, type KnexTx } from "../../adapters/participant-store/knex.ts";
import { newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";
import { postgres } from "../../scripts/servers/postgres.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { withServer } from "../support/servers.ts";

const OWNER = { nodeID: "node-1", instanceID: "start-1" };

/** What a connection of package "pg" is asked. */
interface Connection {
	query(what: string | { readonly text: string }, ...more: unknown[]): unknown;
}

withServer(postgres, "BEGIN and the first row on PostgreSQL", (server) => {
	let knex: Knex;
	let store: ParticipantStore<KnexTx>;
	let proxy: FaultProxy;
	let schema: string;
	/** The first words of each statement since the store was opened. */
	let sent: string[];

	beforeEach(async () => {
		schema = `test_${randomBytes(8).toString("hex")}`;
		const url = new URL(server);
		proxy = await FaultProxy.start({ host: url.hostname, port: Number(url.port) });
		url.port = String(proxy.port);
		// A single connection: whatever one transaction leaves open, the next one meets.
		knex = makeKnex({
			client: "pg",
			connection: url.href,
			log: { warn: () => undefined },
			pool: {
				min: 0,
				max: 1,
				afterCreate(connection: Connection, done: (error?: unknown) => void) {
					const query = connection.query.bind(connection);
					connection.query = (what, ...more) => {
						const text = typeof what === "string" ? what : what.text;
						sent.push(text.trim().split(/\s+/, 3).join(" "));
						return query(what, ...more);
					};
					query(`SET search_path = ${schema}; SET lock_timeout = '7s'`, done);
				},
			},
		});
		sent = [];
		await knex.raw("CREATE SCHEMA ??", [schema]);
		await knex.schema.createTable("business", (table) => void table.string("name"));
		store = knexParticipantStore(knex) as ParticipantStore<KnexTx>;
		await store.open();
		sent = [];
	});

	afterEach(async () => {
		await store.close();
		await knex.raw("DROP SCHEMA ?? CASCADE", [schema]);
		await knex.destroy();
		await proxy.close();
	});

	const newId = () => newGroupId(systemClock, systemRandom);
	const work = ({ trx }: KnexTx) => trx("business").insert({ name: "row" });
	const produce = (id: string, fn: (tx: KnexTx) => Promise<unknown> = work) =>
		store.run({ id, owner: OWNER, coordinator: "co", timeout: 10_000 }, fn);
	const consume = (
		more: Partial<ConsumeRequest> = {},
		handler: (tx: KnexTx) => Promise<void> = async (tx) => void (await work(tx)),
	) => {
		const group = newId();
		const message = { id: `${group}.0`, group, attempt: 1, revision: 0, receipt: "receipt" };
		const here = { coordinator: "co", owner: OWNER, isAlive: () => false, timeout: 10_000 };
		return store.consume({ ...message, ...here, ...more }, handler);
	};
	const count = async (table: string) => Number((await knex(table).count())[0]?.["count"]);

	it("R7 R32 leave together, and nothing else is asked besides work and COMMIT", async () => {
		expect(await produce(newId())).toMatchObject({ state: "committed" });
		expect(sent).toEqual([
			"BEGIN;INSERT INTO lottor_outcome",
			'insert into "business"',
			"COMMIT;",
		]);
		sent = [];
		expect(await consume()).toEqual({ result: "consumed" });
		expect(sent).toEqual([
			"BEGIN; SELECT set_config('lottor.lock_timeout',",
			'insert into "business"',
			"COMMIT;",
		]);
		expect(
			await Promise.all(["lottor_outcome", "lottor_inbox", "business"].map(count)),
		).toEqual([1, 1, 2]);
	});

	it("are rolled back with the work", async () => {
		const id = newId();
		const failing = async (tx: KnexTx) => {
			await work(tx);
			throw new Error("no");
		};
		expect(await produce(id, failing)).toMatchObject({ state: "rolledBack" });
		expect(await consume({}, failing)).toMatchObject({ result: "failed" });
		expect(
			await Promise.all(["lottor_outcome", "lottor_inbox", "business"].map(count)),
		).toEqual([0, 0, 0]);
	});

	it.each([
		["quotes", `'); DROP TABLE business; --`, true],
		["two quotes and a question mark", `''?''`, true],
		["a backslash before a quote", `\\'); DROP TABLE business; --`, false],
		["other letters", `收据'`, false],
	])("keep a text with %s as it is", async (_, text, together) => {
		expect(await consume({ receipt: text, coordinator: text })).toEqual({ result: "consumed" });
		expect(sent[0]?.startsWith("BEGIN; SELECT")).toBe(together);
		const rows: unknown = await knex("lottor_inbox").select("receipt", "coordinator");
		expect(rows).toEqual([{ receipt: text, coordinator: text }]);
		expect(await count("business")).toBe(1);
	});

	it("keep an id with quotes as it is, and refuse none", async () => {
		const id = `a'b"c;--`;
		expect(await produce(id)).toMatchObject({ state: "committed" });
		expect(await store.resolve([id])).toEqual([{ result: "committed" }]);
	});

	it("R14 meet a fence: the work does not run, and the connection is free again", async () => {
		const id = newId();
		expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
		const never = jest.fn(work);
		expect(await produce(id, never)).toEqual({ state: "fenced" });
		expect(never).not.toHaveBeenCalled();
		expect(await produce(newId())).toMatchObject({ state: "committed" });
	});

	it("R32 meet a row that stands: the handler does not run", async () => {
		const again = { id: "group.0" };
		expect(await consume(again)).toEqual({ result: "consumed" });
		expect(await consume(again)).toMatchObject({ result: "duplicate" });
		expect(await count("business")).toBe(1);
	});

	it.each(["before", "after"] as const)(
		"are cut off %s the server has them: neither work nor handler runs, nothing stands",
		async (when) => {
			const never = jest.fn(work);
			const id = newId();
			void proxy.cutAt("INSERT INTO lottor_outcome", when);
			expect(await produce(id, never)).toMatchObject({
				state: "rolledBack",
				error: { type: "LOTTOR_STORE_UNAVAILABLE" },
			});
			void proxy.cutAt("INSERT INTO lottor_inbox", when);
			const handler = jest.fn(async () => undefined);
			expect(await consume({}, handler)).toMatchObject({
				result: "unknown",
				error: { type: "LOTTOR_STORE_UNAVAILABLE" },
			});
			expect(never).not.toHaveBeenCalled();
			expect(handler).not.toHaveBeenCalled();
			expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
			expect(await count("lottor_inbox")).toBe(0);
			expect(await produce(newId())).toMatchObject({ state: "committed" });
		},
	);

	it("fail: the transaction that has begun is rolled back", async () => {
		await knex.schema.renameTable("lottor_outcome", "away");
		await knex.schema.renameTable("lottor_inbox", "gone");
		expect(await produce(newId())).toMatchObject({ state: "rolledBack" });
		expect(await consume()).toMatchObject({ result: "unknown" });
		// In a transaction that has failed, every statement would be refused.
		expect(await count("business")).toBe(0);
	});

	it("R32 leave the handler the time to wait for locks that it had", async () => {
		const seen: unknown[] = [];
		const show = async ({ trx }: KnexTx) => {
			const { rows } = await trx.raw<{ rows: unknown[] }>("SHOW lock_timeout");
			seen.push(...rows);
		};
		await consume({}, show);
		await knex.raw("SET lock_timeout = 0");
		await consume({}, show);
		expect(seen).toEqual([{ lock_timeout: "7s" }, { lock_timeout: "0" }]);
	});
});
