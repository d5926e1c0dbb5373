import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

import { describe, expect, it } from "@jest/globals";

import {
	memoryParticipantStore,
	type ParticipantStore,
	recordedSqliteStore,
	resolveParticipantStore,
	SqliteParticipantStore,
} from "../../adapters/participant-store/index.ts";
import { SQL } from "../../adapters/participant-store/sqlite-schema.ts";
import { openSqliteFile } from "../../adapters/sqlite/index.ts";
import { type Clock, systemClock, systemRandom as random } from "../../protocol/index.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { type ParticipantBench, participantStoreSuite } from "./participant-store.ts";

participantStoreSuite("memory", {
	guarantee: "memory",
	shared: false,
	faults: false,
	races: 50,
	make: async () => {
		const rows: string[] = [];
		return {
			store: (clock) => memoryParticipantStore({ clock, random }),
			write: async (_tx, key) => void rows.push(key),
			rows: async () => [...rows],
			failCommit: () => undefined,
			close: async () => undefined,
		};
	},
});

participantStoreSuite("sqlite", {
	guarantee: "transactional",
	shared: true,
	faults: true,
	races: 1_000,
	make: () => sqliteBench((path, options) => new SqliteParticipantStore(path, options)),
});

participantStoreSuite("sqlite, recorded", {
	guarantee: "recorded",
	shared: true,
	faults: true,
	races: 1_000,
	make: () => sqliteBench(recordedSqliteStore),
});

type MakeStore = (
	path: string,
	options: { clock: Clock; random: typeof random; connect: (path: string) => DatabaseSync },
) => ReturnType<ParticipantBench["store"]>;

async function sqliteBench(makeStore: MakeStore): Promise<ParticipantBench> {
	const folder = mkdtempSync(join(tmpdir(), "lottor-participant-"));
	const path = join(folder, "a.db");
	let fault: { readonly when: "before" | "after"; skip: number } | undefined;

	class FaultyDatabase extends DatabaseSync {
		override exec(sql: string): void {
			if (sql !== "COMMIT" || !fault || fault.skip-- > 0) {
				super.exec(sql);
				return;
			}
			if (fault.when === "after") super.exec(sql);
			fault = undefined;
			throw Object.assign(new Error("COMMIT did not return"), { errcode: 5 });
		}
	}

	const setup = new DatabaseSync(path);
	setup.exec("PRAGMA journal_mode = WAL; CREATE TABLE business (key TEXT)");
	setup.close();
	const plain = new DatabaseSync(path, { timeout: 1_000 });
	const connect = (name: string) => new FaultyDatabase(name, { timeout: 10 });
	const recorded = makeStore === recordedSqliteStore;

	return {
		store: (clock) => makeStore(path, { clock, random, connect }),
		write: async (tx, key) => {
			const sql = "INSERT INTO business VALUES (?)";
			if ("run" in tx && typeof tx.run === "function") {
				(tx as { run: (sql: string, key: string) => unknown }).run(sql, key);
			} else plain.prepare(sql).run(key);
		},
		rows: async () =>
			plain
				.prepare("SELECT key FROM business ORDER BY rowid")
				.all()
				.map((row) => String(row["key"])),
		// A recorded work's first COMMIT stores `started`, its second the outcome.
		failCommit: (when) => void (fault = { when, skip: recorded ? 1 : 0 }),
		close: async () => {
			plain.close();
			rmSync(folder, { recursive: true, force: true });
		},
	};
}

describe("claims of the recorded SQLite store", () => {
	const owner = { nodeID: "n", instanceID: "i" };
	const other = { nodeID: "m", instanceID: "j" };
	const message = {
		id: "g.0",
		group: "g",
		attempt: 1,
		revision: 0,
		receipt: "r",
		coordinator: "c",
		timeout: 1_000,
	};
	const error = { code: "NO", message: "no", retryable: true };

	/** Two instances on one file; the next COMMIT of the first can be made to fail. */
	async function withTwo(
		test: (
			one: ParticipantStore,
			two: ParticipantStore,
			fail: (when: "before" | "after" | "no longer") => void,
			clock: ManualClock,
		) => Promise<void>,
	): Promise<void> {
		let failing: "before" | "after" | "no longer" = "no longer";
		class Failing extends DatabaseSync {
			override exec(sql: string): void {
				const when = sql === "COMMIT" ? failing : "no longer";
				if (when !== "before") super.exec(sql);
				if (when !== "no longer")
					throw Object.assign(new Error("disk I/O error"), { errcode: 5 });
			}
		}
		const clock = new ManualClock();
		const bench = await sqliteBench((path, options) => {
			const connect = (name: string) => new Failing(name, { timeout: 10 });
			return recordedSqliteStore(path, { ...options, connect });
		});
		const [one, two] = [bench.store(clock), bench.store(clock)];
		await one.open();
		await two.open();
		await test(one, two, (when) => (failing = when), clock);
		await one.close();
		await two.close();
		await bench.close();
	}

	it.each(["before", "after"] as const)(
		"R32 one whose write was unclear (failed %s it stood) is given up, for others to take",
		(when) =>
			withTwo(async (one, two, fail, clock) => {
				fail(when);
				const claimed = await one.consume(
					{ ...message, owner, isAlive: () => false },
					async () => undefined,
				);
				expect(claimed.result).toBe("unknown");
				fail("no longer");
				await clock.advance(1_000);

				const taken = { ...message, owner: other, isAlive: () => true };
				expect(await two.look(["g.0"])).toEqual([{ result: "unseen" }]);
				expect(await two.consume(taken, async () => undefined)).toEqual({
					result: "consumed",
				});
			}),
	);

	it("R32 one whose handler is done runs no copy, however long its end can't be stored", () =>
		withTwo(async (one, _two, fail, clock) => {
			let runs = 0;
			const handler = async () => {
				runs++;
				fail("before");
			};
			const copy = { ...message, owner, isAlive: () => false };
			const first = one.consume(copy, handler);
			await clock.advance(45_000);
			expect((await first).result).toBe("unknown");
			fail("no longer");

			expect(await one.consume(copy, handler)).toEqual({ result: "busy" });
			await clock.advance(30_000);
			expect(await one.consume(copy, handler)).toMatchObject({ result: "duplicate" });
			expect(runs).toBe(1);
		}));

	it("R32 one whose failure could not be noted is ended by noting it later", () =>
		withTwo(async (one, two, fail, clock) => {
			const result = await one.consume({ ...message, owner, isAlive: () => false }, () =>
				Promise.reject(new Error("no")),
			);
			expect(result.result).toBe("failed");
			fail("before");
			await expect(one.fail({ ...message, error })).rejects.toThrow();
			fail("no longer");
			await clock.advance(1_000);

			expect(await two.look(["g.0"])).toMatchObject([{ result: "failed", attempt: 1 }]);
			const next = { ...message, attempt: 2, owner: other, isAlive: () => true };
			expect(await two.consume(next, async () => undefined)).toEqual({ result: "consumed" });
		}));
});

describe("the SQLite tables", () => {
	const options = { clock: systemClock, random };

	async function withFolder(use: (path: string) => Promise<void>): Promise<void> {
		const folder = mkdtempSync(join(tmpdir(), "lottor-tables-"));
		try {
			await use(join(folder, "a.db"));
		} finally {
			rmSync(folder, { recursive: true, force: true });
		}
	}

	it("answer each question by a search of an index, without sorting", () =>
		withFolder(async (path) => {
			const store = new SqliteParticipantStore(path, options);
			await store.open();
			const db = new DatabaseSync(path);
			const plan = (sql: string) =>
				db
					.prepare(`EXPLAIN QUERY PLAN ${sql}`)
					.all(...(sql.match(/\?/g) ?? []).map(() => 1))
					.map((row) => String(row["detail"]));
			for (const [name, sql] of Object.entries(SQL)) {
				if (name.startsWith("insert") || name.startsWith("replace")) continue;
				const steps = plan(sql);
				expect([name, steps.filter((step) => step.startsWith("SEARCH"))]).not.toEqual([
					name,
					[],
				]);
				expect([name, steps.filter((step) => /SCAN|TEMP B-TREE/.test(step))]).toEqual([
					name,
					[],
				]);
			}
			expect(plan(SQL.unconfirmed)[0]).toContain("lottor_outcome_open (at<?)");
			expect(plan(SQL.unsettled)[0]).toContain("lottor_inbox_open (at<?)");
			expect(plan(SQL.purgeOutcomes).join()).toContain("lottor_outcome_done (at<?)");
			expect(plan(SQL.purgeInbox).join()).toContain("lottor_inbox_done (at<?)");
			db.close();
			await store.close();
		}));

	it("LOTTOR_STORE_UNUSABLE for a schema that is newer than known", () =>
		withFolder(async (path) => {
			const store = new SqliteParticipantStore(path, options);
			await store.open();
			await store.close();
			const db = new DatabaseSync(path);
			db.exec("UPDATE lottor_participant SET schema = 99");
			db.close();

			await expect(store.open()).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("schema 99"),
			});
		}));

	it("a store whose file broke says LOTTOR_STORE_UNAVAILABLE until it is opened again", () =>
		withFolder(async (path) => {
			let failing = false;
			class Broken extends DatabaseSync {
				override exec(sql: string): void {
					if (failing && sql === "COMMIT")
						throw Object.assign(new Error("disk I/O error"), { errcode: 1034 });
					super.exec(sql);
				}
			}
			const connect = (name: string) => new Broken(name, { timeout: 10 });
			const store = new SqliteParticipantStore(path, { ...options, connect });
			await store.open();
			failing = true;
			const request = {
				id: "g",
				owner: { nodeID: "n", instanceID: "i" },
				coordinator: "c",
				timeout: 1_000,
			};
			const result = await store.run(request, async () => 1);

			expect(result).toMatchObject({
				state: "unknown",
				error: { type: "LOTTOR_STORE_UNAVAILABLE" },
			});
			await expect(store.resolve(["g"])).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNAVAILABLE",
			});
			failing = false;
			await store.open();
			expect(await store.resolve(["g"])).toEqual([{ result: "rolledBack" }]);
			await store.close();
		}));

	it("share the file with plain writes of the same process", () =>
		withFolder(async (path) => {
			const store = new SqliteParticipantStore(path, options);
			await store.open();
			const file = await openSqliteFile(path);
			await store.close();
			await file.write((tx) => {
				tx.run("CREATE TABLE still_open (id TEXT)");
			});
			await file.close();
		}));
});

describe("resolveParticipantStore", () => {
	const options = { clock: systemClock, random };
	const resolve = (spec: unknown) => resolveParticipantStore(spec, "Service.store", options);

	it("makes a store from a URL and takes an instance as it is", () => {
		expect(resolve("memory:").description).toContain("memory");
		expect(resolve("sqlite:./a.db").description).toBe("sqlite:./a.db (transactional)");
		expect(resolve("sqlite:///var/a%20b.db").description).toBe(
			"sqlite:/var/a b.db (transactional)",
		);
		expect(resolve("sqlite:a.db?guarantee=recorded").description).toBe(
			"sqlite:a.db (recorded)",
		);
		const store = memoryParticipantStore(options);
		expect(resolve(store)).toBe(store);
	});

	it.each([
		undefined,
		7,
		{},
		"",
		"nonsense:",
		"sqlite:",
		"sqlite::memory:",
		"sqlite:a.db?guarantee=perfect",
		"sqlite:a.db?mode=ro",
	])("LOTTOR_INVALID_OPTIONS that names the field for %p", (spec) => {
		expect(() => resolve(spec)).toThrow(
			expect.objectContaining({
				type: "LOTTOR_INVALID_OPTIONS",
				data: { field: "Service.store" },
			}),
		);
	});
});
