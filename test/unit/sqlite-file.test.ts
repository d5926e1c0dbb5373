import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";

import { isUnclear, openSqliteFile, type SqliteFile } from "../../adapters/sqlite/index.ts";
import type { SqliteFileOptions, SqliteTx } from "../../adapters/sqlite/index.ts";
import { LottorError, systemClock } from "../../protocol/index.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";

let folder: string;
let cleanups: (() => unknown)[];

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "lottor-file-"));
	cleanups = [];
});

afterEach(async () => {
	for (const cleanup of cleanups.reverse()) await cleanup();
	rmSync(folder, { recursive: true, force: true });
});

async function open(options: SqliteFileOptions = {}, name = "a.db"): Promise<SqliteFile> {
	const file = await openSqliteFile(join(folder, name), options);
	cleanups.push(() => file.close());
	await file.write((tx) => {
		tx.run("CREATE TABLE IF NOT EXISTS t (id TEXT PRIMARY KEY, body TEXT)");
	});
	return file;
}

function insert(tx: SqliteTx, id: string): void {
	tx.run("INSERT INTO t (id, body) VALUES (?, '')", id);
}

async function ids(file: SqliteFile): Promise<unknown[]> {
	const rows = await file.read((reader) => reader.all("SELECT id FROM t ORDER BY id"));
	return rows.map((row) => row["id"]);
}

/** A promise and its ends, to hold a work where a test wants it. */
function gate() {
	let resolve!: () => void;
	let reject!: (error: Error) => void;
	const promise = new Promise<void>((yes, no) => {
		resolve = yes;
		reject = no;
	});
	return { promise, resolve, reject };
}

/** A clock that moves by this much each time it is asked: every work takes that long. */
function steppingClock(step: number) {
	let now = 0;
	return { ...systemClock, now: () => (now += step) };
}

/** Counts statements, and fails those that `fail` picks, as SQLite would. */
class SpyDatabase extends DatabaseSync {
	static executed: string[] = [];
	static onExec: ((sql: string, run: () => void) => void) | undefined;

	override exec(sql: string): void {
		SpyDatabase.executed.push(sql);
		const run = () => super.exec(sql);
		if (SpyDatabase.onExec) SpyDatabase.onExec(sql, run);
		else run();
	}
}

function spied() {
	SpyDatabase.executed = [];
	SpyDatabase.onExec = undefined;
	return { connect: (path: string) => new SpyDatabase(path, { timeout: 10 }) };
}

function sqliteError(errcode: number, message: string): Error {
	return Object.assign(new Error(message), { code: "ERR_SQLITE_ERROR", errcode });
}

describe("R12 the write lock of a SQLite file", () => {
	it("R12 without the lock a plain write vanishes with another work's rollback", () => {
		const db = new DatabaseSync(join(folder, "bare.db"));
		db.exec("CREATE TABLE t (id TEXT PRIMARY KEY)");

		db.exec("BEGIN");
		db.exec("INSERT INTO t VALUES ('of the work')");
		db.exec("INSERT INTO t VALUES ('plain, acknowledged')");
		db.exec("ROLLBACK");

		expect(db.prepare("SELECT count(*) AS n FROM t").get()).toEqual({ n: 0 });
		db.close();
	});

	it("R12 with the lock it waits for its turn and stays", async () => {
		const file = await open();
		const failing = gate();
		const work = file.write(async (tx) => {
			insert(tx, "of the work");
			await failing.promise;
		});
		const outcome = expect(work).rejects.toThrow("business says no");
		await settle();
		const plain = file.write((tx) => insert(tx, "plain"));
		failing.reject(new Error("business says no"));

		await outcome;
		await plain;
		expect(await ids(file)).toEqual(["plain"]);
	});

	it("R12 shares one object among the holders of a file, whatever path they name", async () => {
		const file = await open();
		symlinkSync(folder, join(folder, "link"));
		const same = await openSqliteFile(join(folder, "link", "a.db"));

		expect(same).toBe(file);
		await same.close();
		await file.write((tx) => insert(tx, "still open"));
		expect(await ids(file)).toEqual(["still open"]);
	});

	it("R12 a write inside a work of the same file gets LOTTOR_STORE_BUSY at once", async () => {
		const file = await open();
		const inner = file.write(async (tx) => {
			insert(tx, "outer");
			await file.write((other) => insert(other, "inner"));
		});

		await expect(inner).rejects.toMatchObject({ type: "LOTTOR_STORE_BUSY" });
		expect(await ids(file)).toEqual([]);
	});

	it("R12 sees through another file that a work would wait for itself", async () => {
		const a = await open({}, "a.db");
		const b = await open({}, "b.db");
		const work = a.write(() => b.write(() => a.write((tx) => insert(tx, "x"))));

		await expect(work).rejects.toMatchObject({ type: "LOTTOR_STORE_BUSY" });
	});

	it("R12 what a work started may write once that work has ended", async () => {
		const file = await open();
		const ended = gate();
		let later: Promise<void> | undefined;
		await file.write(() => {
			later = ended.promise.then(() => file.write((tx) => insert(tx, "later")));
		});
		ended.resolve();

		await later;
		expect(await ids(file)).toEqual(["later"]);
	});

	it("R12 a wait over the limit ends in LOTTOR_STORE_BUSY and the lock is freed later", async () => {
		const clock = new ManualClock();
		const file = await open({ clock, lockTimeout: 300 });
		const held = gate();
		const holder = file.write(() => held.promise);
		await settle();
		const waiting = file.write((tx) => insert(tx, "too late"));
		const patient = file.write((tx) => insert(tx, "patient"), { lockTimeout: 1_000 });
		const outcome = expect(waiting).rejects.toMatchObject({ type: "LOTTOR_STORE_BUSY" });

		await clock.advance(300);
		await outcome;
		held.resolve();
		await Promise.all([holder, patient]);
		expect(await ids(file)).toEqual(["patient"]);
	});

	it("R12 retries while another process holds the file, without blocking the loop", async () => {
		const file = await open();
		const other = new DatabaseSync(join(folder, "a.db"));
		other.exec("BEGIN IMMEDIATE");
		let turns = 0;
		const ticking = setInterval(() => turns++, 1);
		const waiting = file.write((tx) => insert(tx, "in the end"));
		while (turns < 5) await new Promise((resolve) => setTimeout(resolve, 5));
		other.exec("COMMIT");

		await waiting;
		clearInterval(ticking);
		other.close();
		expect(await ids(file)).toEqual(["in the end"]);
	});

	it("R12 LOTTOR_STORE_BUSY when another process holds the file for too long", async () => {
		const file = await open({ lockTimeout: 500 });
		const other = new DatabaseSync(join(folder, "a.db"));
		other.exec("BEGIN IMMEDIATE");

		await expect(file.write((tx) => insert(tx, "never"))).rejects.toMatchObject({
			type: "LOTTOR_STORE_BUSY",
		});
		other.close();
		await file.write((tx) => insert(tx, "now"));
		expect(await ids(file)).toEqual(["now"]);
	});

	it("reads what is committed while a work is open", async () => {
		const file = await open();
		const held = gate();
		const work = file.write(async (tx) => {
			insert(tx, "x");
			await held.promise;
		});
		await settle();

		expect(await ids(file)).toEqual([]);
		held.resolve();
		await work;
		expect(await ids(file)).toEqual(["x"]);
	});

	it("close waits for what is queued, then calls get LOTTOR_STORE_UNAVAILABLE", async () => {
		const file = await openSqliteFile(join(folder, "c.db"));
		const write = file.write((tx) => {
			tx.run("CREATE TABLE t (id TEXT)");
		});
		await file.close();

		await write;
		await expect(file.write(() => 1)).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNAVAILABLE",
		});
		await expect(file.read(() => 1)).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNAVAILABLE",
		});
	});
});

describe("R12 group commit", () => {
	const commits = () => SpyDatabase.executed.filter((sql) => sql === "COMMIT").length;

	it("R12 works of one moment share one COMMIT and each is rolled back alone", async () => {
		const file = await open({ ...spied(), clock: new ManualClock() });
		SpyDatabase.executed = [];
		const works = Array.from({ length: 20 }, (_, i) =>
			file.write(async (tx) => {
				insert(tx, `row ${String(i).padStart(2, "0")}`);
				await Promise.resolve();
				if (i % 3 === 0) throw new Error(`bad ${i}`);
				return i;
			}),
		);
		const results = await Promise.allSettled(works);

		expect(commits()).toBe(1);
		results.forEach((result, i) => {
			if (i % 3 === 0) expect(result).toMatchObject({ reason: new Error(`bad ${i}`) });
			else expect(result).toMatchObject({ status: "fulfilled", value: i });
		});
		expect(await ids(file)).toHaveLength(13);
	});

	it("R12 a work resolves only after its COMMIT", async () => {
		const file = await open(spied());
		let resolved = false;
		let before: boolean | undefined;
		SpyDatabase.onExec = (sql, run) => {
			if (sql === "COMMIT") before = resolved;
			run();
		};
		await file.write((tx) => insert(tx, "x")).then(() => (resolved = true));

		expect(before).toBe(false);
	});

	it("R12 a slow work closes the batch", async () => {
		const file = await open({ ...spied(), clock: steppingClock(6) });
		SpyDatabase.executed = [];
		await Promise.all(["a", "b", "c"].map((id) => file.write((tx) => insert(tx, id))));

		expect(commits()).toBe(3);
	});

	it("R8 a COMMIT that fails gives every work of the batch an unclear LOTTOR_STORE_UNAVAILABLE", async () => {
		const file = await open(spied());
		SpyDatabase.onExec = (sql, run) => {
			if (sql === "COMMIT") throw sqliteError(5, "database is locked");
			run();
		};
		const results = await Promise.allSettled(
			["a", "b"].map((id) => file.write((tx) => insert(tx, id))),
		);
		SpyDatabase.onExec = undefined;

		for (const result of results) {
			if (result.status === "fulfilled") throw new Error("resolved without a COMMIT");
			expect(result.reason).toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
			expect(isUnclear(result.reason)).toBe(true);
		}
		expect(await ids(file)).toEqual([]);
		await file.write((tx) => insert(tx, "goes on"));
		expect(await ids(file)).toEqual(["goes on"]);
	});

	it("R8 a failed fsync closes the file until it is opened again", async () => {
		const file = await open(spied());
		SpyDatabase.onExec = (sql, run) => {
			if (sql === "COMMIT") throw sqliteError(1034, "disk I/O error");
			run();
		};
		const write = file.write((tx) => insert(tx, "a"));
		const outcome = await write.catch((error: unknown) => error);
		SpyDatabase.onExec = undefined;

		expect(isUnclear(outcome)).toBe(true);
		await expect(file.write((tx) => insert(tx, "b"))).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNAVAILABLE",
			message: expect.stringContaining("opened again"),
		});
		await file.reopen();
		await file.write((tx) => insert(tx, "c"));
		expect(await ids(file)).toEqual(["c"]);
	});

	it("R8 a file that a failure closed is opened again by the calls that need it", async () => {
		const clock = new ManualClock();
		const file = await open({ ...spied(), clock });
		SpyDatabase.onExec = (sql, run) => {
			if (sql === "COMMIT") throw sqliteError(1034, "disk I/O error");
			run();
		};
		const write = () => file.write((tx) => insert(tx, "a")).catch((error: unknown) => error);
		expect(isUnclear(await write())).toBe(true);
		expect(isUnclear(await write())).toBe(false);
		expect(isUnclear(await write())).toBe(true);
		SpyDatabase.onExec = undefined;

		expect(await write()).toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
		expect(await write()).toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
		await clock.advance(1_000);
		await expect(ids(file)).rejects.toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
		await settle();
		expect(await ids(file)).toEqual([]);
		await file.write((tx) => insert(tx, "c"));
		expect(await ids(file)).toEqual(["c"]);
	});

	it("R8 the handle of a work that met the failure never reaches the file opened again", async () => {
		const file = await open();
		const slow = gate();
		const work = file.write(async (tx) => {
			insert(tx, "lost");
			await slow.promise;
			insert(tx, "phantom");
		});
		const outcome = expect(work).rejects.toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
		await settle();
		const broken = file.read(() => {
			throw sqliteError(10, "disk I/O error");
		});
		await expect(broken).rejects.toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
		const again = file.reopen();
		await settle();
		slow.resolve();
		await outcome;
		await again;

		expect(await ids(file)).toEqual([]);
		await file.write((tx) => insert(tx, "next"));
		expect(await ids(file)).toEqual(["next"]);
	});

	it("a work that makes SQLite roll back everything takes nothing down silently", async () => {
		const file = await open({ clock: new ManualClock() });
		const results = await Promise.allSettled([
			file.write((tx) => insert(tx, "same")),
			file.write((tx) => {
				tx.run("INSERT OR ROLLBACK INTO t (id) VALUES ('same')");
			}),
		]);

		expect(results[0]).toMatchObject({ reason: { type: "LOTTOR_STORE_UNAVAILABLE" } });
		expect(results[1].status).toBe("rejected");
		expect(await ids(file)).toEqual([]);
		await file.write((tx) => insert(tx, "next"));
		expect(await ids(file)).toEqual(["next"]);
	});
});

describe("the transaction's handle", () => {
	it("throws LOTTOR_TX_CLOSED after commit and after rollback", async () => {
		const file = await open();
		const kept: SqliteTx[] = [];
		await file.write((tx) => void kept.push(tx));
		await file
			.write((tx) => {
				kept.push(tx);
				throw new Error("no");
			})
			.catch(() => undefined);

		expect(kept).toHaveLength(2);
		for (const tx of kept) {
			for (const use of [
				() => tx.run("DELETE FROM t"),
				() => tx.get("SELECT 1"),
				() => tx.all("SELECT 1"),
			])
				expect(use).toThrow(expect.objectContaining({ type: "LOTTOR_TX_CLOSED" }));
		}
	});

	it("R10 is rolled back at its time limit, even when the work never settles, and refuses use", async () => {
		const clock = new ManualClock();
		const file = await open({ clock });
		let handle: SqliteTx | undefined;
		const work = file.write(
			async (tx) => {
				handle = tx;
				insert(tx, "half");
				await new Promise(() => undefined);
			},
			{ timeout: 1_000, group: "g" },
		);
		const outcome = expect(work).rejects.toMatchObject({
			type: "LOTTOR_WORK_TIMEOUT",
			data: { group: "g" },
		});
		await settle();
		await clock.advance(1_000);

		await outcome;
		expect(() => handle?.run("DELETE FROM t")).toThrow(
			expect.objectContaining({ type: "LOTTOR_TX_CLOSED" }),
		);
		await file.write((tx) => insert(tx, "next"));
		expect(await ids(file)).toEqual(["next"]);
	});

	it.each([
		"COMMIT",
		" rollback",
		"-- x\nBEGIN",
		"/* x */ SAVEPOINT a",
		";END",
		"PRAGMA synchronous = OFF",
	])("refuses %j", async (sql) => {
		const file = await open();
		await expect(file.write((tx) => tx.run(sql))).rejects.toMatchObject({
			type: "LOTTOR_INVALID_REQUEST",
		});
	});

	it("keeps a statement's own error and lets the work go on after it", async () => {
		const file = await open();
		await file.write((tx) => {
			insert(tx, "a");
			expect(() => insert(tx, "a")).toThrow("UNIQUE constraint failed");
			insert(tx, "b");
		});
		expect(await ids(file)).toEqual(["a", "b"]);
	});
});

describe("R11 nested transactions", () => {
	const limit = { group: "inner", timeout: 1_000, timeoutError: () => new Error("late") };

	it("R11 are rolled back alone, and tell what the outermost came to", async () => {
		const file = await open();
		let good: Awaited<ReturnType<SqliteFile["nest"]>> | undefined;
		await file.write(async (tx) => {
			insert(tx, "outer");
			const bad = file.nest(
				tx,
				(inner) => {
					insert(inner, "bad");
					throw new Error("no");
				},
				limit,
			);
			await expect(bad).rejects.toThrow("no");
			good = await file.nest(tx, (inner) => insert(inner, "good"), limit);
		});

		expect(await good?.ended).toEqual({ state: "committed" });
		expect(await ids(file)).toEqual(["good", "outer"]);
	});

	it("R11 vanish with the outer one", async () => {
		const file = await open();
		let inner: Awaited<ReturnType<SqliteFile["nest"]>> | undefined;
		const work = file.write(async (tx) => {
			inner = await file.nest(tx, (nested) => insert(nested, "x"), limit);
			throw new Error("outer fails");
		});

		await expect(work).rejects.toThrow("outer fails");
		expect(await inner?.ended).toMatchObject({ state: "rolledBack" });
		expect(await ids(file)).toEqual([]);
	});

	it("R11 two at once run one after the other", async () => {
		const file = await open();
		await file.write(async (tx) => {
			const held = gate();
			const first = file.nest(
				tx,
				async (inner) => {
					insert(inner, "first");
					await held.promise;
					throw new Error("first fails");
				},
				limit,
			);
			const second = file.nest(tx, (inner) => insert(inner, "second"), limit);
			held.resolve();
			await expect(first).rejects.toThrow("first fails");
			await second;
		});
		expect(await ids(file)).toEqual(["second"]);
	});

	it("R11 the outer one waits for a nested one that nobody awaits", async () => {
		const file = await open();
		await file.write((tx) => {
			void file.nest(
				tx,
				async (inner) => {
					insert(inner, "one");
					await new Promise((resolve) => setImmediate(resolve));
					insert(inner, "two");
				},
				limit,
			);
		});
		expect(await ids(file)).toEqual(["one", "two"]);
	});

	it("R11 one that would wait for itself gets LOTTOR_STORE_BUSY, a closed handle LOTTOR_TX_CLOSED", async () => {
		const file = await open();
		let kept: SqliteTx | undefined;
		await file.write(async (tx) => {
			kept = tx;
			const work = file.nest(tx, () => file.nest(tx, () => 1, limit), limit);
			await expect(work).rejects.toMatchObject({ type: "LOTTOR_STORE_BUSY" });
		});
		if (!kept) throw new Error("the work did not run");
		await expect(file.nest(kept, () => 1, limit)).rejects.toMatchObject({
			type: "LOTTOR_TX_CLOSED",
		});
	});

	it("R11 a time limit of its own leaves the outer one whole", async () => {
		const clock = new ManualClock();
		const file = await open({ clock });
		const work = file.write(async (tx) => {
			insert(tx, "outer");
			const nested = file.nest(
				tx,
				async (inner) => {
					insert(inner, "inner");
					await new Promise(() => undefined);
				},
				limit,
			);
			await expect(nested).rejects.toThrow("late");
		});
		await settle();
		await clock.advance(1_000);

		await work;
		expect(await ids(file)).toEqual(["outer"]);
	});
});

describe("a file in trouble", () => {
	it("LOTTOR_STORE_UNAVAILABLE that says to free space when the disk is full, and goes on after", async () => {
		let pages = 0;
		const connect = (path: string) => {
			const db = new DatabaseSync(path, { timeout: 10 });
			if (pages > 0) db.exec(`PRAGMA max_page_count = ${pages}`);
			return db;
		};
		pages = 30;
		const file = await open({ connect });
		const full = file.write((tx) => {
			for (let i = 0; i < 100; i++)
				tx.run("INSERT INTO t VALUES (?, ?)", `big ${i}`, "x".repeat(4_000));
		});

		await expect(full).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNAVAILABLE",
			message: expect.stringContaining("free space"),
		});
		await file.write((tx) => insert(tx, "small"));
		expect(await ids(file)).toEqual(["small"]);
	});

	it("a full disk that the work swallows is still no success", async () => {
		const connect = (path: string) => {
			const db = new DatabaseSync(path, { timeout: 10 });
			db.exec("PRAGMA max_page_count = 30");
			return db;
		};
		const file = await open({ connect });
		const work = file.write((tx) => {
			insert(tx, "before");
			try {
				for (let i = 0; i < 100; i++)
					tx.run("INSERT INTO t VALUES (?, ?)", `big ${i}`, "x".repeat(4_000));
			} catch {
				// A work that goes on as if nothing had happened.
			}
		});

		await expect(work).rejects.toMatchObject({ type: "LOTTOR_STORE_UNAVAILABLE" });
		expect(await ids(file)).toEqual([]);
	});

	it("LOTTOR_STORE_UNUSABLE for a file that is no database", async () => {
		writeFileSync(join(folder, "x.db"), "certainly no database ".repeat(100));
		const opening = openSqliteFile(join(folder, "x.db"));

		await expect(opening).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("not a SQLite database"),
		});
		await expect(opening).rejects.toBeInstanceOf(LottorError);
	});

	it("LOTTOR_STORE_UNUSABLE for a file with broken pages", async () => {
		const path = join(folder, "broken.db");
		const db = new DatabaseSync(path);
		db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)");
		const statement = db.prepare("INSERT INTO t (body) VALUES (?)");
		for (let i = 0; i < 200; i++) statement.run("y".repeat(500));
		db.close();
		const bytes = readFileSync(path);
		bytes.fill(0xff, 4_096 * 5, 4_096 * 9);
		writeFileSync(path, bytes);

		await expect(openSqliteFile(path)).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("corrupt"),
		});
	});

	it("LOTTOR_STORE_UNUSABLE for a read-only file", async () => {
		const path = join(folder, "ro.db");
		const made = new DatabaseSync(path);
		made.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (id TEXT)");
		made.close();
		const connect = (name: string) => new DatabaseSync(name, { readOnly: true });

		await expect(openSqliteFile(path, { connect })).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("read-only"),
		});
	});

	it("LOTTOR_STORE_UNUSABLE where no file can be made", async () => {
		await expect(openSqliteFile("/proc/lottor/a.db")).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
		});
		mkdirSync(join(folder, "dir.db"));
		await expect(openSqliteFile(join(folder, "dir.db"))).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
		});
	});

	it("LOTTOR_STORE_UNUSABLE when a setting does not take", async () => {
		class Deaf extends DatabaseSync {
			override exec(sql: string): void {
				if (!sql.includes("synchronous")) super.exec(sql);
				else super.exec("PRAGMA synchronous = NORMAL");
			}
		}
		const connect = (path: string) => new Deaf(path);
		await expect(openSqliteFile(join(folder, "deaf.db"), { connect })).rejects.toMatchObject({
			type: "LOTTOR_STORE_UNUSABLE",
			message: expect.stringContaining("synchronous"),
		});
	});
});
