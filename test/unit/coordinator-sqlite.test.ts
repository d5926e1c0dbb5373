import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, closeSync, openSync, statSync, writeSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";

import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";

import {
	type CoordinatorStore,
	resolveCoordinatorStore,
	type SqliteCoordinatorStore,
	sqliteCoordinatorStore,
	type SqliteCoordinatorStoreOptions,
} from "../../adapters/coordinator-store/index.ts";
import {
	CLAIM_SQL,
	PURGE_SQL,
	WAKE_STORE_SQL,
	WAKE_TARGET_SQL,
} from "../../adapters/coordinator-store/sqlite/calls.ts";
import {
	FIRST_SINCE_SQL,
	type Plan,
	planGroups,
	planMessages,
	queryOf,
} from "../../adapters/coordinator-store/sqlite/lists.ts";
import { migrate, MIGRATIONS } from "../../adapters/coordinator-store/sqlite/schema.ts";
import { Tables } from "../../adapters/coordinator-store/sqlite/tables.ts";
import { newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";
import { decision, dispatchTo, newGroup, newMessage } from "../support/groups.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";

const PEER = fileURLToPath(new URL("coordinator-sqlite.peer.ts", import.meta.url));

let folder: string;
let file: string;
let stores: CoordinatorStore[];
let children: ChildProcess[];

beforeEach(async () => {
	folder = await mkdtemp(join(tmpdir(), "lottor-coordinator-sqlite-"));
	file = join(folder, "lottor.db");
	stores = [];
	children = [];
});

afterEach(async () => {
	for (const child of children) child.kill("SIGKILL");
	await Promise.all(stores.map((store) => store.close()));
	await rm(folder, { recursive: true, force: true });
});

function make(options: Partial<SqliteCoordinatorStoreOptions> = {}): SqliteCoordinatorStore {
	const store = sqliteCoordinatorStore({ file, ...options });
	stores.push(store);
	return store;
}

async function opened(
	options: Partial<SqliteCoordinatorStoreOptions> = {},
): Promise<SqliteCoordinatorStore> {
	const store = make(options);
	await store.open();
	return store;
}

function fresh(fields: Parameters<typeof newGroup>[0] = {}) {
	return newGroup({ id: newGroupId(systemClock, systemRandom), ...fields });
}

function peer(mode: string): { child: ChildProcess; lines: AsyncIterator<string> } {
	const child = spawn(
		process.execPath,
		["--disable-warning=ExperimentalWarning", PEER, mode, file],
		{
			stdio: ["pipe", "pipe", "inherit"],
		},
	);
	children.push(child);
	if (!child.stdout) throw new Error("no output");
	return { child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() };
}

function ended(child: ChildProcess): Promise<void> {
	return new Promise((resolve) => child.once("close", () => resolve()));
}

describe("R30, R19: every query that runs often is an index range", () => {
	const AFTER_SEQ = { key: 9, index: 1 };
	const AFTER_ID = { key: "01kc", index: 1 };

	function detailsOf(db: DatabaseSync, sql: string, values: readonly unknown[]): string[] {
		return db
			.prepare(`EXPLAIN QUERY PLAN ${sql}`)
			.all(...(values as (string | number)[]))
			.map((row) => String(row["detail"]))
			.filter((detail) => !detail.includes("json_each"));
	}

	/** A walk down the primary key, cut by LIMIT, is the one scan that is meant. */
	function expectRanges(details: string[], name: string): void {
		const bad = details.filter((detail) => /TEMP B-TREE|AUTOMATIC|^SCAN/.test(detail));
		expect({ name, bad }).toEqual({ name, bad: [] });
	}

	it("claim, wake, purge and spans of time", async () => {
		await opened();
		const db = new DatabaseSync(file);
		const queries: [string, unknown[]][] = [
			[CLAIM_SQL, ["check", 1, "1", 1, 10]],
			[WAKE_TARGET_SQL, ["auth", 10]],
			[WAKE_STORE_SQL, ["a", 1, 10]],
			[PURGE_SQL, ["completed", 1, 10]],
			[FIRST_SINCE_SQL, [1]],
		];
		for (const [sql, values] of queries) expectRanges(detailsOf(db, sql, values), sql);
		expect(detailsOf(db, CLAIM_SQL, ["check", 1, "1", 1, 10])).toEqual([
			"SEARCH lottor_groups USING INDEX lottor_groups_due (due_kind=? AND due_at<?)",
		]);
		db.close();
	});

	it("lists of groups and messages, first page and later ones, by every filter", async () => {
		await opened();
		const db = new DatabaseSync(file);
		const tables = new Tables(db);
		const check = (name: string, plan: Plan) => {
			const after = plan.key === "id" ? AFTER_ID : AFTER_SEQ;
			for (const source of plan.sources) {
				for (const position of [undefined, after]) {
					const { sql, values } = queryOf(plan, source, position, 10);
					const details = detailsOf(db, sql, values);
					const unbounded =
						source.start === undefined &&
						source.end === undefined &&
						(source.where.length === 0 || source.from.includes("_conflict"));
					if (position === undefined && unbounded) {
						expect(details).toEqual([
							expect.stringMatching(
								/^SCAN \w( USING INDEX lottor_groups_conflict)?$/,
							),
						]);
					} else expectRanges(details, `${name} ${sql}`);
				}
			}
		};
		for (const filter of [
			{},
			{ states: ["prepared", "completed"] },
			{ source: "user" },
			{ target: "auth" },
			{ type: "grant" },
			{ idPrefix: "01" },
			{ conflict: true },
			{ since: 1, until: 2, states: ["completed"] },
			{ source: "user", states: ["completed"], conflict: false, until: 5 },
			{ target: "auth", type: "grant", states: ["committed"], source: "user" },
			{ states: ["inDoubt"], target: "auth", source: "user" },
			{ errorCode: "E" },
			{ terms: ["ada", "auth"], since: 1 },
			{ terms: ["ada"], errorCode: "E", states: ["committed"] },
		] as const) {
			check(JSON.stringify(filter), planGroups(tables, filter));
			check(`${JSON.stringify(filter)} oldest`, planGroups(tables, filter, "oldest"));
		}
		for (const filter of [
			{},
			{ states: ["failed", "consumed"] },
			{ source: "user" },
			{ target: "auth" },
			{ type: "grant" },
			{ errorCode: "E" },
			{ groupPrefix: "01" },
			{ groupPrefix: "01", index: 3 },
			{ since: 1, until: 2, states: ["consumed"] },
			{ source: "user", states: ["consumed"], target: "auth", type: "grant" },
			{ source: "user", states: ["consumed"] },
			{ terms: ["ada", "auth"], since: 1 },
			{ terms: ["ada"], errorCode: "E", states: ["failed"] },
		] as const) {
			check(JSON.stringify(filter), planMessages(tables, filter));
			check(`${JSON.stringify(filter)} oldest`, planMessages(tables, filter, "oldest"));
		}
		db.close();
	});
});

describe("schema", () => {
	it("makes a missing folder, and is durable: WAL and synchronous FULL", async () => {
		file = join(folder, "a", "b", "lottor.db");
		let db: DatabaseSync | undefined;
		await opened({
			connect: (path, timeout) => (db = new DatabaseSync(path, { timeout })),
		});
		expect(db?.prepare("PRAGMA journal_mode").get()?.["journal_mode"]).toBe("wal");
		expect(db?.prepare("PRAGMA synchronous").get()?.["synchronous"]).toBe(2);
		expect(Number(db?.prepare("PRAGMA busy_timeout").get()?.["timeout"])).toBeLessThanOrEqual(
			50,
		);
	});

	it("refuses what can't be durable: LOTTOR_STORE_UNUSABLE", async () => {
		const store = make({ connect: (_, timeout) => new DatabaseSync(":memory:", { timeout }) });
		await expect(store.open()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("would not be durable"),
		});
	});

	it("migrates step by step in one transaction and keeps every group", async () => {
		const store = await opened();
		const group = fresh();
		await store.insert([group]);
		const { storeId, key } = await store.open();
		await store.close();

		const db = new DatabaseSync(file);
		const steps = [
			...MIGRATIONS,
			"ALTER TABLE lottor_groups ADD COLUMN note TEXT NOT NULL DEFAULT 'old'",
			"CREATE TABLE lottor_extra (n INTEGER); INSERT INTO lottor_extra VALUES (3)",
		];
		expect(() => migrate(db, file, systemRandom, [...steps, "CREATE NONSENSE"])).toThrow(
			expect.objectContaining({ type: "LOTTOR_STORE_UNUSABLE" }),
		);
		expect(db.prepare("SELECT * FROM lottor_groups").get()).not.toHaveProperty("note");
		expect(migrate(db, file, systemRandom, steps)).toEqual({
			storeId,
			key,
			schema: MIGRATIONS.length + 2,
		});
		expect(db.prepare("SELECT id, note FROM lottor_groups").get()).toEqual(
			expect.objectContaining({ id: group.id, note: "old" }),
		);
		migrate(db, file, systemRandom, steps);
		expect(db.prepare("SELECT count(*) AS n FROM lottor_extra").get()?.["n"]).toBe(1);
		db.close();
	});

	it("refuses a newer schema with LOTTOR_STORE_UNUSABLE and leaves the file alone", async () => {
		await (await opened()).close();
		const db = new DatabaseSync(file);
		migrate(db, file, systemRandom, [...MIGRATIONS, "CREATE TABLE lottor_new (n)"]);
		db.close();
		await expect(make().open()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringMatching(/has schema 3, this version of Lottor knows 2: install/),
		});
	});
});

describe("group commit", () => {
	/** Stands still, so that no batch ends because its time is up. */
	const clock = new ManualClock();

	it("R21: calls of one turn share one transaction, in order, and each is answered for itself", async () => {
		const commits: number[] = [];
		const store = await opened({ clock, onCommit: (calls) => commits.push(calls) });
		const groups = Array.from({ length: 100 }, () => fresh());
		const answers = await Promise.all(groups.map((group) => store.insert([group])));
		expect(answers.flat()).toEqual(groups.map(() => ({ result: "created" })));
		expect(commits).toEqual([100]);
		const [group] = groups;
		if (!group) throw new Error("no group");
		const both = await Promise.all([
			store.decide([decision({ id: group.id, dispatch: dispatchTo("auth") })]),
			store.apply([
				{ id: group.id, index: 0, event: { type: "consumed", revision: 0, who: "auth" } },
			]),
		]);
		expect(both.flat().map(({ result }) => result)).toEqual(["done", "done"]);
		expect(commits).toEqual([100, 2]);
	});

	it("nothing is answered before its COMMIT, and nobody else sees it before", async () => {
		const seen: number[] = [];
		const reader = (): number => {
			const db = new DatabaseSync(file, { readOnly: true });
			const row = db.prepare("SELECT count(*) AS n FROM lottor_groups").get();
			db.close();
			return Number(row?.["n"]);
		};
		const store = await opened({ onCommit: () => seen.push(reader()) });
		let answered = false;
		const answer = store.insert([fresh()]).then(() => (answered = true));
		expect(reader()).toBe(0);
		expect(answered).toBe(false);
		await answer;
		expect(seen).toEqual([1]);
	});

	it("while many come, a batch waits up to two turns to be as full as the last one", async () => {
		const commits: number[] = [];
		const store = await opened({ clock, onCommit: (calls) => commits.push(calls) });
		const some = (count: number) =>
			Promise.all(Array.from({ length: count }, () => store.insert([fresh()])));
		await some(3);
		const late = [some(1)];
		for (let turn = 0; turn < 2; turn++) {
			await settle(1);
			late.push(some(1));
		}
		await Promise.all(late);
		expect(commits).toEqual([3, 3]);
		const alone = some(1);
		await settle(3);
		expect(commits).toEqual([3, 3, 1]);
		await alone;
		const next = some(1);
		await settle(1);
		expect(commits).toEqual([3, 3, 1, 1]);
		await next;
		await some(100);
		const enough = some(16);
		await settle(1);
		expect(commits.slice(-2)).toEqual([100, 16]);
		await enough;
	});

	it("a batch is bounded: more calls than one holds take several", async () => {
		const commits: number[] = [];
		const store = await opened({ clock, onCommit: (calls) => commits.push(calls) });
		await Promise.all(Array.from({ length: 2_500 }, () => store.insert([fresh()])));
		expect(commits).toEqual([1_000, 1_000, 500]);
		commits.length = 0;
		await store.insert(Array.from({ length: 5_000 }, () => fresh()));
		expect(commits).toEqual([25]);
	});

	it("a call with a value that can't be stored fails alone", async () => {
		const commits: number[] = [];
		const store = await opened({ clock, onCommit: (calls) => commits.push(calls) });
		const [a, b, c] = [fresh(), fresh({ source: {} as string }), fresh()];
		const [first, second, third] = await Promise.allSettled(
			[a, b, c].map((group) => store.insert([group])),
		);
		expect(first).toEqual({ status: "fulfilled", value: [{ result: "created" }] });
		expect(second).toMatchObject({ status: "rejected" });
		expect(third).toEqual({ status: "fulfilled", value: [{ result: "created" }] });
		expect(commits).toEqual([2]);
		const stored = await store.get([a.id, b.id, c.id]);
		expect(stored.map((group) => group?.id)).toEqual([a.id, undefined, c.id]);
		expect((await store.stats()).groups.prepared).toBe(2);
	});

	it("R19: a clock that is set back never makes a later group older", async () => {
		const clock = new ManualClock();
		const store = await opened({ clock });
		const [a, b] = [fresh(), fresh()];
		await store.insert([a]);
		const start = store.now();
		await clock.advance(-3_600_000);
		await store.insert([b]);
		const stored = await store.get([b.id]);
		expect(stored).toMatchObject([{ createdAt: start, checkAt: store.now() + 10_000 }]);
		const { items } = await store.list({ since: start }, { limit: 10 });
		expect(items.map(({ id }) => id)).toEqual([b.id, a.id]);
	});
});

describe("a full disk", () => {
	it("R6: prepare is refused with LOTTOR_STORE_UNAVAILABLE, nothing acknowledged is lost, and it recovers", async () => {
		let db: DatabaseSync | undefined;
		const store = await opened({
			connect: (path, timeout) => (db = new DatabaseSync(path, { timeout })),
		});
		if (!db) throw new Error("no connection");
		const acknowledged: string[] = [];
		const pages = Number(db.prepare("PRAGMA page_count").get()?.["page_count"]);
		db.exec(`PRAGMA max_page_count = ${pages + 20}`);

		let error: unknown;
		while (error === undefined) {
			const group = fresh({ messages: [newMessage({ content: "x".repeat(5_000) })] });
			try {
				await store.insert([group]);
				acknowledged.push(group.id);
			} catch (thrown) {
				error = thrown;
			}
		}
		expect(acknowledged.length).toBeGreaterThan(0);
		expect(error).toMatchObject({
			type: "LOTTOR_STORE_UNAVAILABLE",
			retryable: true,
			message: expect.stringContaining("free space"),
		});
		// The condition is real: a plain write on the same connection fails, too.
		const plain = () =>
			db?.exec("CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(100000))");
		expect(plain).toThrow("database or disk is full");

		const late = Array.from({ length: 10 }, () =>
			fresh({ messages: [newMessage({ content: "x".repeat(50_000) })] }),
		);
		const answers = await Promise.allSettled(late.map((group) => store.insert([group])));
		expect(answers.every(({ status }) => status === "rejected")).toBe(true);
		const reader = await opened();
		expect(await reader.get(acknowledged)).not.toContain(undefined);
		expect((await reader.list({}, { limit: 1_000 })).items).toHaveLength(acknowledged.length);

		db.exec("PRAGMA max_page_count = 1000000");
		expect((await store.insert(late)).map(({ result }) => result)).toEqual(
			late.map(() => "created"),
		);
	});
});

describe("LOTTOR_STORE_UNUSABLE at open", () => {
	function overwrite(at: number, bytes: number): void {
		const handle = openSync(file, "r+");
		writeSync(handle, Buffer.alloc(bytes, 0xa5), 0, bytes, at);
		closeSync(handle);
	}

	async function filled(options: Partial<SqliteCoordinatorStoreOptions> = {}) {
		const store = await opened(options);
		await store.insert(Array.from({ length: 500 }, () => fresh()));
		return store;
	}

	it("refuses a file that is no database", async () => {
		await writeFile(file, "this is a text file, ".repeat(500));
		await expect(make().open()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("not an SQLite database"),
		});
	});

	it("refuses a damaged file and says what to do", async () => {
		await (await filled()).close();
		overwrite(4_096 * 8, 4_096 * 4);
		await expect(make().open()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("restore it from a backup"),
		});
	});

	it("closes a store that meets damage while it works: LOTTOR_STORE_UNAVAILABLE until it is opened again", async () => {
		let db: DatabaseSync | undefined;
		const store = await filled({
			connect: (path, timeout) => (db = new DatabaseSync(path, { timeout })),
		});
		const { items } = await store.list({}, { limit: 1_000 });
		db?.exec("PRAGMA wal_checkpoint(TRUNCATE)");
		overwrite(4_096, statSync(file).size - 4_096);
		db?.exec("PRAGMA shrink_memory");
		const damage = {
			type: "LOTTOR_STORE_UNAVAILABLE",
			message: expect.stringContaining("damaged"),
		};
		const queued = [store.insert([fresh()]), store.get(items.map(({ id }) => id))];
		for (const call of queued) await expect(call).rejects.toMatchObject(damage);
		await expect(store.insert([fresh()])).rejects.toMatchObject(damage);
		await expect(store.open()).rejects.toMatchObject({ type: "LOTTOR_STORE_UNUSABLE" });
	});

	/** Runs as a user whom permissions bind: for root they mean nothing. */
	async function unprivileged(run: () => Promise<void>): Promise<void> {
		const root = process.geteuid?.() === 0;
		if (root) process.seteuid?.(65_534);
		try {
			await run();
		} finally {
			if (root) process.seteuid?.(0);
		}
	}

	it("refuses a read-only file", async () => {
		await (await filled()).close();
		chmodSync(folder, 0o777);
		chmodSync(file, 0o444);
		await unprivileged(async () => {
			await expect(make().open()).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("writable"),
			});
		});
	});

	it("refuses a read-only folder, be the file there or not", async () => {
		await (await filled()).close();
		chmodSync(file, 0o666);
		chmodSync(dirname(file), 0o555);
		await unprivileged(async () => {
			for (const name of [file, join(folder, "new.db"), join(folder, "new", "new.db")]) {
				await expect(make({ file: name }).open()).rejects.toMatchObject({
					type: "LOTTOR_STORE_UNUSABLE",
				});
			}
		});
		chmodSync(dirname(file), 0o777);
	});
});

describe("R31: several processes on one file", () => {
	it("a stopped one that holds the lock: LOTTOR_STORE_UNAVAILABLE, reads go on, and it recovers", async () => {
		const store = await opened({ lockTimeout: "1s" });
		const patient = await opened({ lockTimeout: "60s" });
		const before = fresh();
		await store.insert([before]);
		const { child, lines } = peer("hold");
		expect((await lines.next()).value).toBe("held");
		child.kill("SIGSTOP");

		// A wait that blocks would let nothing run between the call and its answer.
		let turns = 0;
		let waits = true;
		const turn = (): void => {
			turns++;
			if (waits) setImmediate(turn);
		};
		turn();
		const group = fresh();
		const calls = await Promise.allSettled([
			store.insert([group]),
			store.claim({ kind: "check", owner: "x", lease: 1, limit: 1 }),
		]);
		waits = false;
		for (const call of calls) {
			expect(call).toMatchObject({
				status: "rejected",
				reason: {
					type: "LOTTOR_STORE_UNAVAILABLE",
					message: expect.stringContaining("another process holds its write lock"),
				},
			});
		}
		expect(turns).toBeGreaterThan(2);
		expect(await store.get([before.id, group.id])).toMatchObject([
			{ id: before.id },
			undefined,
		]);

		await expect(make({ lockTimeout: 50 }).open()).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNAVAILABLE",
		});
		const waiting = patient.insert([group]);
		child.kill("SIGCONT");
		child.stdin?.write("go\n");
		expect(await waiting).toEqual([{ result: "created" }]);
		expect(await store.insert([group])).toMatchObject([{ result: "exists" }]);
	});

	it("two that write at once lose nothing and share one store", async () => {
		const store = await opened({ lockTimeout: "60s" });
		const { child, lines } = peer("some");
		const theirs: string[] = [];
		const own: string[] = [];
		const closed = ended(child);
		const reading = (async () => {
			for (let line = await lines.next(); !line.done; line = await lines.next()) {
				theirs.push(line.value);
			}
		})();
		await Promise.all(
			Array.from({ length: 16 }, async () => {
				for (let round = 0; round < 20; round++) {
					const group = fresh();
					await store.insert([group]);
					own.push(group.id);
				}
			}),
		);
		await Promise.all([closed, reading]);
		expect(theirs).toHaveLength(640);
		expect(own).toHaveLength(320);
		expect(await store.get([...theirs, ...own])).not.toContain(undefined);
		expect((await store.stats()).groups).toMatchObject({ committed: 640, prepared: 320 });
	});

	it("SIGKILL loses nothing that was acknowledged, and another goes on with it", async () => {
		const { child, lines } = peer("endless");
		const acknowledged: string[] = [];
		while (acknowledged.length < 500) acknowledged.push(String((await lines.next()).value));
		const closed = ended(child);
		child.kill("SIGKILL");
		for (let line = await lines.next(); !line.done; line = await lines.next()) {
			// The last line may be cut.
			if (line.value.length === 26) acknowledged.push(line.value);
		}
		await closed;
		const clock = new ManualClock(Date.now());
		const store = await opened({ clock });
		const groups = await store.get(acknowledged);
		expect(groups.every((group) => group?.state === "committed")).toBe(true);
		expect(new Set(acknowledged).size).toBe(acknowledged.length);
		await clock.advance(60_000);
		const due = await store.claim({
			kind: "ask",
			owner: "lottor@node-2",
			lease: 5_000,
			limit: 100_000,
		});
		const ids = new Set(due.map(({ group }) => group.id));
		expect(acknowledged.every((id) => ids.has(id))).toBe(true);
		const stats = await store.stats();
		expect(stats.groups.committed).toBe(due.length);
	});
});

describe("resolveCoordinatorStore", () => {
	const surroundings = { clock: systemClock, random: systemRandom };

	it("makes a store of a URL, and takes an instance as it is", async () => {
		for (const url of [`sqlite:${file}`, `sqlite://${file}`, ` sqlite:${file} `]) {
			const store = resolveCoordinatorStore(url, "store", surroundings);
			expect(store.description).toBe(`SQLite ${file}`);
		}
		const store = make();
		expect(resolveCoordinatorStore(store, "store", surroundings)).toBe(store);
		const relative = resolveCoordinatorStore("sqlite:./lottor.db", "store", surroundings);
		expect(relative.description).toBe(`SQLite ${join(process.cwd(), "lottor.db")}`);
	});

	it("LOTTOR_INVALID_OPTIONS names the field and the kinds that exist, and no password", () => {
		const bad = ["", "sqlite:", "lottor.db", "toString:x", "http://bob:secret@x/", 7, null, {}];
		for (const spec of bad) {
			const resolve = () =>
				resolveCoordinatorStore(spec as string, "lottor.store", surroundings);
			expect(resolve).toThrow(
				expect.objectContaining({
					type: "LOTTOR_INVALID_OPTIONS",
					data: { field: "lottor.store" },
					message: expect.stringContaining('"sqlite:'),
				}),
			);
			expect(resolve).not.toThrow("secret");
		}
		expect(() => sqliteCoordinatorStore({ file: "" })).toThrow("Option file");
		expect(() => sqliteCoordinatorStore({ file, lockTimeout: "soon" })).toThrow("lockTimeout");
	});
});
