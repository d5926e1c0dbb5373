import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, describe, expect, it, jest } from "@jest/globals";
import { ServiceBroker, type ServiceSchema } from "moleculer";
import DbService from "moleculer-db";

import { SqliteParticipantStore } from "../../adapters/participant-store/index.ts";
import { systemClock, systemRandom } from "../../protocol/index.ts";
import { type SqliteAdapter, sqliteAdapter } from "../../samples/support/sqlite-adapter.ts";

interface User {
	_id: string;
	name: string;
	age?: number;
	address?: { city?: string; zip?: string };
}

let folder: string;
let path: string;
let broker: ServiceBroker;
let adapter: SqliteAdapter<User>;

beforeEach(async () => {
	folder = mkdtempSync(join(tmpdir(), "lottor-adapter-"));
	path = join(folder, "a.db");
	adapter = sqliteAdapter<User>({ file: path, table: "users", indexes: ["name"] });
	broker = new ServiceBroker({ logger: false });
	const schema = {
		name: "users",
		mixins: [DbService as Partial<ServiceSchema>],
		adapter,
		settings: { useDotNotation: true },
	};
	broker.createService(schema as ServiceSchema);
	await broker.start();
});

afterEach(async () => {
	await broker.stop();
	rmSync(folder, { recursive: true, force: true });
});

function call<T>(action: string, params: object): Promise<T> {
	return broker.call<T, object>(`users.${action}`, params);
}

describe("the SQLite adapter of the samples", () => {
	it("serves the actions of moleculer-db", async () => {
		const ada = await call<User>("create", { name: "Ada", age: 36 });
		await call("insert", {
			entities: [
				{ _id: "b", name: "Bob", age: 20, address: { city: "Rome" } },
				{ _id: "c", name: "Cleo", age: 50 },
			],
		});

		expect(ada).toEqual({ _id: expect.any(String), name: "Ada", age: 36 });
		expect(await call("get", { id: "b" })).toMatchObject({ name: "Bob" });
		expect(await call("get", { id: ["c", "b"] })).toMatchObject([{ _id: "c" }, { _id: "b" }]);
		expect(await call("find", { sort: "-age", limit: 2 })).toMatchObject([
			{ name: "Cleo" },
			{ name: "Ada" },
		]);
		expect(await call("find", { query: { "address.city": "Rome" } })).toHaveLength(1);
		expect(await call("find", { query: { _id: { $in: ["b", "c"] } } })).toHaveLength(2);
		expect(await call("count", { search: "O", searchFields: "name" })).toBe(2);
		expect(await call("count", { search: "rome" })).toBe(1);
		expect(await call("list", { page: 2, pageSize: 2 })).toMatchObject({
			total: 3,
			rows: [{ _id: "c" }],
		});
		expect(await call("update", { id: "b", "address.zip": "1" })).toMatchObject({
			address: { city: "Rome", zip: "1" },
		});
		expect(await call("remove", { id: "b" })).toMatchObject({ _id: "b" });
		await expect(call("get", { id: "b" })).rejects.toMatchObject({ code: 404 });
		expect(await adapter.updateMany({ name: "Ada" }, { $set: { age: 37 } })).toBe(1);
		expect(await adapter.removeMany({ age: 37 })).toBe(1);
		expect(await adapter.clear()).toBe(1);
	});

	it("refuses a second row of an _id, and names that would become part of the statement", async () => {
		await adapter.insert({ _id: "a", name: "Ada" });
		await expect(adapter.insert({ _id: "a", name: "Eve" })).rejects.toMatchObject({
			type: "DUPLICATE_ID",
		});
		for (const bad of ["x') OR 1=1 --", "a.__proto__.b", ""]) {
			await expect(adapter.find({ query: { [bad]: 1 } })).rejects.toMatchObject({
				type: "BAD_QUERY",
			});
			await expect(adapter.updateById("a", { $set: { [bad]: 1 } })).rejects.toMatchObject({
				type: "BAD_QUERY",
			});
		}
	});

	it("R12 writes inside a transaction go with it, others stay", async () => {
		const store = new SqliteParticipantStore(path, {
			clock: systemClock,
			random: systemRandom,
		});
		await store.open();
		const owner = { nodeID: "n", instanceID: "i" };
		const request = { id: "g", owner, coordinator: "c", timeout: 1_000 };
		const work = store.run(request, async (tx) => {
			await adapter.withTx(tx).insert({ _id: "inside", name: "I" });
			expect(await adapter.withTx(tx).findById("inside")).toMatchObject({ name: "I" });
			expect(await adapter.findById("inside")).toBeNull();
			throw new Error("business says no");
		});
		const plain = adapter.insert({ _id: "plain", name: "P" });
		const result = await work;
		await plain;
		await store.close();

		expect(result.state).toBe("rolledBack");
		expect(await adapter.find()).toMatchObject([{ _id: "plain" }]);
	});

	it("writes plainly with the handle of a recorded store, and refuses one of another file", async () => {
		await adapter.withTx({ group: "g" }).insert({ _id: "a", name: "A" });
		expect(await adapter.count()).toBe(1);

		const other = new SqliteParticipantStore(join(folder, "other.db"), {
			clock: systemClock,
			random: systemRandom,
		});
		await other.open();
		const owner = { nodeID: "n", instanceID: "i" };
		const request = { id: "g", owner, coordinator: "c", timeout: 1_000 };
		const result = await other.run(request, async (tx) => adapter.withTx(tx).insert({}));
		await other.close();
		expect(result).toMatchObject({ state: "rolledBack", error: { type: "BAD_QUERY" } });
	});

	it("ends the process on a file that can't be used, where moleculer-db would try for ever", async () => {
		mkdirSync(join(folder, "dir.db"));
		const bad = sqliteAdapter({ file: join(folder, "dir.db"), table: "users" });
		const fatal = jest.spyOn(broker, "fatal").mockImplementation(() => undefined);
		bad.init(broker, undefined as never);

		await expect(bad.connect()).rejects.toMatchObject({ type: "LOTTOR_STORE_UNUSABLE" });
		expect(fatal).toHaveBeenCalledWith(
			expect.stringContaining("Table users"),
			expect.objectContaining({ type: "LOTTOR_STORE_UNUSABLE" }),
		);
	});
});
