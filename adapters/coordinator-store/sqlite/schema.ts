import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { DatabaseSync } from "node:sqlite";

import { LottorError, messageOf, newStoreId, type Random } from "../../../protocol/index.ts";
import { isBusy, unusable } from "./faults.ts";

/** Milliseconds that SQLite itself may wait for a lock, which blocks the loop (R12). */
const BUSY_TIMEOUT_MS = 10;

/** Files up to this size are checked as a whole at open; the check reads every page. */
const CHECKED_BYTES = 64 * 1024 * 1024;

const KEY_BYTES = 32;

/** 16 MiB of page cache, and a checkpoint each 16 MiB of log. */
const CACHE_KIB = 16 * 1024;
const CHECKPOINT_PAGES = 4_096;

/**
 * `seq` is the order of insertion and stands for the group id in every other table: it is a
 * fifth of the size, and `created_at` never falls along it, so that one number is a keyset.
 */
const VERSION_1 = `
CREATE TABLE lottor_groups (
	seq INTEGER PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	version INTEGER NOT NULL,
	epoch INTEGER NOT NULL,
	state TEXT NOT NULL,
	source TEXT NOT NULL,
	store_id TEXT NOT NULL,
	guarantee TEXT NOT NULL,
	owner_node TEXT NOT NULL,
	owner_instance TEXT NOT NULL,
	hash TEXT NOT NULL,
	idempotency_key TEXT,
	created_at INTEGER NOT NULL,
	state_at INTEGER NOT NULL,
	check_at INTEGER,
	checks INTEGER NOT NULL,
	unknowns INTEGER NOT NULL,
	waiting TEXT,
	conflict TEXT,
	lease_owner TEXT,
	lease_until INTEGER NOT NULL,
	due_kind TEXT,
	due_at INTEGER,
	slot INTEGER NOT NULL
);
CREATE INDEX lottor_groups_due ON lottor_groups (due_kind, due_at, slot) WHERE due_at IS NOT NULL;
CREATE INDEX lottor_groups_created ON lottor_groups (created_at);
CREATE INDEX lottor_groups_state ON lottor_groups (state);
CREATE INDEX lottor_groups_source ON lottor_groups (source);
CREATE INDEX lottor_groups_conflict ON lottor_groups (seq) WHERE conflict IS NOT NULL;
CREATE INDEX lottor_groups_waiting ON lottor_groups (store_id, check_at)
	WHERE check_at IS NOT NULL AND (state = 'inDoubt' OR waiting IS NOT NULL);
CREATE INDEX lottor_groups_purge ON lottor_groups (state, state_at)
	WHERE state IN ('completed', 'rolledBack') AND conflict IS NULL;
CREATE UNIQUE INDEX lottor_groups_key ON lottor_groups (source, idempotency_key)
	WHERE idempotency_key IS NOT NULL;

CREATE TABLE lottor_messages (
	seq INTEGER NOT NULL,
	idx INTEGER NOT NULL,
	state TEXT NOT NULL,
	target TEXT NOT NULL,
	type TEXT NOT NULL,
	version INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	bytes INTEGER NOT NULL,
	delay INTEGER NOT NULL,
	max_attempts INTEGER,
	ordering_key TEXT,
	plain INTEGER NOT NULL,
	next_at INTEGER,
	parked INTEGER NOT NULL,
	waiting TEXT,
	sends INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	budget_from INTEGER NOT NULL,
	store_id TEXT,
	instance_node TEXT,
	instance_id TEXT,
	asks INTEGER NOT NULL,
	vanished INTEGER NOT NULL,
	fenced INTEGER NOT NULL,
	consumed_revision INTEGER,
	consumed_after_discard INTEGER NOT NULL,
	error TEXT,
	error_code TEXT,
	entries INTEGER NOT NULL,
	state_at INTEGER NOT NULL,
	PRIMARY KEY (seq, idx)
) WITHOUT ROWID;
CREATE INDEX lottor_messages_state ON lottor_messages (state);
CREATE INDEX lottor_messages_target ON lottor_messages (target);
CREATE INDEX lottor_messages_type ON lottor_messages (type);
CREATE INDEX lottor_messages_error ON lottor_messages (error_code) WHERE error_code IS NOT NULL;
CREATE INDEX lottor_messages_parked ON lottor_messages (target) WHERE parked = 1;
CREATE INDEX lottor_messages_backlog ON lottor_messages (target, state_at)
	WHERE state IN ('pending', 'delivering');

CREATE TABLE lottor_contexts (seq INTEGER PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE lottor_payloads (
	seq INTEGER NOT NULL,
	idx INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	content TEXT NOT NULL
);
CREATE UNIQUE INDEX lottor_payloads_key ON lottor_payloads (seq, idx, revision);

CREATE TABLE lottor_timeline (
	seq INTEGER NOT NULL,
	version INTEGER NOT NULL,
	place INTEGER NOT NULL,
	idx INTEGER,
	at INTEGER NOT NULL,
	event TEXT NOT NULL,
	from_state TEXT,
	to_state TEXT,
	by_whom TEXT NOT NULL,
	why TEXT,
	data TEXT,
	PRIMARY KEY (seq, version, place)
) WITHOUT ROWID;

CREATE TABLE lottor_counters (
	name TEXT NOT NULL,
	part TEXT NOT NULL,
	value INTEGER NOT NULL,
	PRIMARY KEY (name, part)
) WITHOUT ROWID;
`;

/** What people look for and at: failures, activity, search terms, the audit log. */
const VERSION_2 = `
CREATE INDEX lottor_messages_failed ON lottor_messages (target, type, error_code, seq)
	WHERE state = 'failed';

CREATE TABLE lottor_terms (
	term TEXT NOT NULL,
	seq INTEGER NOT NULL,
	idx INTEGER NOT NULL,
	PRIMARY KEY (term, seq, idx)
) WITHOUT ROWID;
CREATE INDEX lottor_terms_message ON lottor_terms (seq, idx);

CREATE TABLE lottor_activity (
	step TEXT NOT NULL,
	at INTEGER NOT NULL,
	what TEXT NOT NULL,
	part TEXT NOT NULL,
	count INTEGER NOT NULL,
	PRIMARY KEY (step, at, what, part)
) WITHOUT ROWID;

CREATE TABLE lottor_audit (
	id INTEGER PRIMARY KEY,
	at INTEGER NOT NULL,
	who TEXT NOT NULL,
	action TEXT NOT NULL,
	result TEXT NOT NULL,
	why TEXT,
	subject TEXT,
	data TEXT
);
CREATE INDEX lottor_audit_who ON lottor_audit (who);
CREATE INDEX lottor_audit_action ON lottor_audit (action);
`;

/** What brings a file from schema n to n + 1, at place n. A step that was released never changes. */
export const MIGRATIONS: readonly string[] = [VERSION_1, VERSION_2];

/** What the store keeps about itself. */
export interface Identity {
	readonly storeId: string;
	readonly schema: number;
	readonly key: Uint8Array;
}

/**
 * Opens the file as the store needs it: WAL, every commit fsync'd, makes its folder.
 *
 * @throws LOTTOR_STORE_UNUSABLE when it is damaged, read-only or not durable
 * @throws SQLite's own error when another process holds the lock right now
 */
export function connect(
	file: string,
	make: (file: string, timeout: number) => DatabaseSync,
): DatabaseSync {
	let db: DatabaseSync | undefined;
	try {
		mkdirSync(dirname(file), { recursive: true });
		db = make(file, BUSY_TIMEOUT_MS);
		// Reading first tells a damaged file from one that can't be put into WAL mode.
		db.prepare("SELECT count(*) FROM sqlite_schema").get();
		demand(db, file, "journal_mode", "WAL", "wal");
		demand(db, file, "synchronous", "FULL", 2);
		// On macOS only these make an fsync reach the disk; elsewhere they do nothing.
		db.exec("PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON");
		db.exec(
			`PRAGMA cache_size = -${CACHE_KIB}; PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`,
		);
		if (statSync(file).size <= CHECKED_BYTES) check(db, file);
		return db;
	} catch (error) {
		db?.close();
		if (isBusy(error) || error instanceof LottorError) throw error;
		throw unusable(file, error);
	}
}

/**
 * Makes or migrates the schema and the store's identity, in one transaction.
 *
 * @throws LOTTOR_STORE_UNUSABLE when a newer version of Lottor has written the file
 * @throws SQLite's own error when another process holds the lock right now
 */
export function migrate(
	db: DatabaseSync,
	file: string,
	random: Random,
	migrations: readonly string[] = MIGRATIONS,
): Identity {
	try {
		db.exec("BEGIN IMMEDIATE");
		db.exec(
			"CREATE TABLE IF NOT EXISTS lottor_coordinator (name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID",
		);
		const found = Number(metaOf(db, "schema") ?? 0);
		if (found > migrations.length) {
			throw new LottorError(
				"LOTTOR_STORE_UNUSABLE",
				`Coordinator store ${file} has schema ${found}, this version of Lottor knows ${migrations.length}: ` +
					"install the version that wrote it, or a newer one",
				{ file },
			);
		}
		for (const step of migrations.slice(found)) db.exec(step);
		const write = db.prepare(
			"INSERT INTO lottor_coordinator (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
		);
		if (metaOf(db, "storeId") === undefined) {
			write.run("storeId", newStoreId(random));
			write.run("key", random.bytes(KEY_BYTES));
		}
		// Written even when it stands: this is what finds a file that can be read but not written.
		write.run("schema", migrations.length);
		const identity = {
			storeId: String(metaOf(db, "storeId")),
			schema: migrations.length,
			key: Uint8Array.from(metaOf(db, "key") as Uint8Array),
		};
		db.exec("COMMIT");
		return identity;
	} catch (error) {
		if (db.isTransaction) db.exec("ROLLBACK");
		if (isBusy(error) || error instanceof LottorError) throw error;
		throw unusable(file, error);
	}
}

function metaOf(db: DatabaseSync, name: string): unknown {
	return db.prepare("SELECT value FROM lottor_coordinator WHERE name = ?").get(name)?.["value"];
}

function demand(
	db: DatabaseSync,
	file: string,
	pragma: string,
	value: string,
	expected: unknown,
): void {
	db.exec(`PRAGMA ${pragma} = ${value}`);
	const got = db.prepare(`PRAGMA ${pragma}`).get()?.[pragma];
	if (got === expected) return;
	throw new LottorError(
		"LOTTOR_STORE_UNUSABLE",
		`Coordinator store ${file}: PRAGMA ${pragma} = ${value} did not take, it is ${String(got)}; ` +
			"a commit would not be durable: use a file on a local disk",
		{ file },
	);
}

function check(db: DatabaseSync, file: string): void {
	const result = db.prepare("PRAGMA quick_check(1)").get()?.["quick_check"];
	if (result === "ok") return;
	throw new LottorError(
		"LOTTOR_STORE_UNUSABLE",
		`Coordinator store ${file}: the file is damaged; restore it from a backup or move it away to begin anew`,
		{ file, cause: messageOf({ message: result }) },
	);
}
