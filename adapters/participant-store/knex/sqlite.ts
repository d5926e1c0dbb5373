import { SQL, TABLES } from "../sqlite-schema.ts";
import type { Dialect, OneWriterDialect, Row } from "./dialect.ts";

const SYNCHRONOUS_FULL = 2;
/** Codes that say that the file, not the statement, is to blame. */
const FILE = /^SQLITE_(?:CANTOPEN|CORRUPT|NOTADB|READONLY)/;
const GONE = /^SQLITE_(?:FULL|IOERR|NOMEM|PROTOCOL)/;
const LOCKED = /^SQLITE_(?:BUSY|LOCKED)/;
const DUPLICATE = /^SQLITE_CONSTRAINT_(?:PRIMARYKEY|ROWID|UNIQUE)/;

const SETTINGS =
	'set it for each connection in the pool\'s `afterCreate`: `(db, done) => { db.pragma("journal_mode = WAL"); db.pragma("synchronous = FULL"); done(null, db); }`';

/** What is used of a connection of better-sqlite3. */
interface Database {
	readonly inTransaction: boolean;
	readonly open: boolean;
	readonly readonly: boolean;
	exec(sql: string): unknown;
	pragma(sql: string, options: { readonly simple: true }): unknown;
	prepare(sql: string): { all(): Row[] };
	close(): void;
}

const oneWriter: OneWriterDialect = {
	file(connection) {
		const databases = (connection as Database).prepare("PRAGMA database_list").all();
		const file = databases.find(({ name }) => name === "main")?.["file"];
		return typeof file === "string" && file !== "" ? file : undefined;
	},

	unsafe(connection) {
		const db = connection as Database;
		const pragma = (name: string) => db.pragma(name, { simple: true });
		if (oneWriter.file(db) === undefined) {
			return "it is in memory, or a temporary file, and lost with the process: name a file";
		}
		if (db.readonly) return "it is opened with the option `readonly`";
		const journal = pragma("journal_mode");
		if (journal !== "wal") {
			return `its journal_mode is ${String(journal)}, in which reading and writing wait for each other, or commits are lost: ${SETTINGS}`;
		}
		if (Number(pragma("synchronous")) < SYNCHRONOUS_FULL) {
			return `PRAGMA synchronous is not FULL, so a crash of the machine loses commits that were acknowledged: ${SETTINGS}`;
		}
		return pragma("locking_mode") === "exclusive"
			? "its locking_mode is exclusive, which keeps a second connection from reading: set it to normal"
			: undefined;
	},

	impatient(connection) {
		const db = connection as Database;
		const before = Number(db.pragma("busy_timeout", { simple: true }));
		db.exec("PRAGMA busy_timeout = 0");
		return () => {
			if (db.open) db.exec(`PRAGMA busy_timeout = ${before}`);
		};
	},

	readOnly(connection) {
		(connection as Database).exec("PRAGMA query_only = 1");
	},

	// BEGIN, as Knex says it, makes no transaction a writer; a first write does.
	lock(connection) {
		(connection as Database).exec("DELETE FROM lottor_participant WHERE 0");
	},

	isInTransaction(connection) {
		const db = connection as Database;
		return db.open && db.inTransaction;
	},
};

/** SQLite 3.37 and newer through better-sqlite3, on the tables of the store that needs no Knex. */
export const sqlite: Dialect = {
	name: "sqlite",
	driver: "better-sqlite3",
	forUpdate: "",
	participant: "SELECT schema AS version, store_id AS store FROM lottor_participant",
	newParticipant: "INSERT INTO lottor_participant (one, schema, store_id) VALUES (1, ?, ?)",
	oneWriter,

	hasTables: "SELECT 1 FROM sqlite_schema WHERE name = 'lottor_participant'",
	tables: TABLES,
	insertOutcome: SQL.insertOutcome,
	purgeOutcomes: SQL.purgeOutcomes,
	purgeInbox: SQL.purgeInbox,
	time: "SELECT round((julianday('now') - 2440587.5) * 86400000) AS now",

	answer(raw) {
		if (Array.isArray(raw)) return { rows: raw as Row[], count: 0 };
		return { rows: [], count: Number((raw as { changes?: number } | undefined)?.changes ?? 0) };
	},

	trouble(error) {
		const code = sqlite.code(error);
		// Knex's own: the connection of its pool was not free in time.
		if ((error as Error | null)?.name === "KnexTimeoutError") return "locked";
		// What better-sqlite3 says itself has no code.
		const { message = "" } = (error ?? {}) as { message?: string };
		if (/directory does not exist/.test(message)) return "file";
		if (code === undefined || GONE.test(code)) return "gone";
		if (FILE.test(code)) return "file";
		if (LOCKED.test(code)) return "locked";
		if (DUPLICATE.test(code)) return "duplicate";
		return /no such table/.test(message) ? "noTable" : "statement";
	},

	code(error) {
		const code: unknown = (error as { code?: unknown } | null)?.code;
		return typeof code === "string" && code.startsWith("SQLITE_") ? code : undefined;
	},

	// Each connection is looked at when it is first taken.
	unsafe: async () => undefined,
	readOnly: async () => undefined,

	async alone(session, fn) {
		await session.query("BEGIN IMMEDIATE");
		try {
			const value = await fn();
			await session.query("COMMIT");
			return value;
		} catch (error) {
			if (oneWriter.isInTransaction(session.connection)) await session.query("ROLLBACK");
			throw error;
		}
	},

	async beginShort(session) {
		await session.query("BEGIN IMMEDIATE");
	},

	async endShort() {
		// Nothing was set for it.
	},

	async insertInbox(session, values) {
		return (await session.query(SQL.insertInbox, values)).count === 1;
	},

	briefly: (_session, fn) => fn(),

	committed: () => undefined,

	endedBy(event, connection) {
		if (oneWriter.isInTransaction(connection)) return undefined;
		return "error" in event ? "rolledBack" : "committed";
	},

	destroy(connection) {
		(connection as Database).close();
	},
};
