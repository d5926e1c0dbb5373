import { SHORT_WAIT_MS } from "../rules.ts";
import { type Dialect, INBOX_COLUMNS, type Row } from "./dialect.ts";
import { PARTICIPANT } from "./statements.ts";
import type { Session } from "./session.ts";

const SCHEMA_LOCK = "lottor_participant";
const SCHEMA_LOCK_S = 10;
const SHORT_WAIT_S = SHORT_WAIT_MS / 1_000;

const LOCK_WAIT = 1205;
const DEADLOCK = 1213;
const DUPLICATE = 1062;
const NO_TABLE = 1146;
/** Too many connections, shutting down, killed, no quorum, and the kinds of read-only. */
const GONE = new Set([1040, 1047, 1053, 1077, 1079, 1290, 1792, 1836, 1927, 3169]);
const LOGIN = new Set([1044, 1045, 1049, 1698]);
const DENIED = new Set([1142, 1227]);
/** The flag in each answer that says that a transaction is open. */
const IN_TRANSACTION = 1;

const INSERT_INBOX = `INSERT INTO lottor_inbox (${INBOX_COLUMNS.join(", ")})
	VALUES (${INBOX_COLUMNS.map(() => "?").join(", ")})`;
const SET_WAIT = "SET SESSION innodb_lock_wait_timeout =";

/** MariaDB 10.4, MySQL 8 and newer, on InnoDB. */
export const mysql: Dialect = {
	name: "mysql",
	driver: "mysql2",
	...PARTICIPANT,
	forUpdate: " FOR UPDATE",

	hasTables: `SELECT 1 FROM information_schema.tables
		WHERE table_schema = DATABASE() AND table_name = 'lottor_participant'`,
	tables: [
		`CREATE TABLE IF NOT EXISTS lottor_outcome (
			id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
			state VARCHAR(10) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
			node VARCHAR(255),
			instance VARCHAR(255),
			coordinator VARCHAR(64) NOT NULL,
			at BIGINT NOT NULL,
			confirmed TINYINT NOT NULL,
			INDEX lottor_outcome_at (confirmed, at)
		) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4`,
		`CREATE TABLE IF NOT EXISTS lottor_inbox (
			id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
			state VARCHAR(10) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
			attempt INT NOT NULL,
			revision BIGINT NOT NULL,
			fence BIGINT NOT NULL,
			receipt VARCHAR(255) NOT NULL,
			coordinator VARCHAR(64) NOT NULL,
			error MEDIUMTEXT,
			node VARCHAR(255),
			instance VARCHAR(255),
			renewed BIGINT NOT NULL,
			at BIGINT NOT NULL,
			settled TINYINT NOT NULL,
			INDEX lottor_inbox_at (settled, at)
		) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4`,
		`CREATE TABLE IF NOT EXISTS lottor_participant (
			one TINYINT PRIMARY KEY,
			version INT NOT NULL,
			store VARCHAR(64) NOT NULL
		) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4`,
	],

	// No IGNORE, which would also hide values that don't fit; no ON DUPLICATE KEY, whose count
	// depends on a flag of the connection. The duplicate is told by its error.
	insertOutcome: `INSERT INTO lottor_outcome (id, state, node, instance, coordinator, at, confirmed)
		VALUES (?, ?, ?, ?, ?, ?, ?)`,
	purgeOutcomes:
		"DELETE FROM lottor_outcome WHERE confirmed = 1 AND at < ? ORDER BY confirmed, at LIMIT ?",
	purgeInbox:
		"DELETE FROM lottor_inbox WHERE settled = 1 AND at < ? ORDER BY settled, at LIMIT ?",
	time: "SELECT FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000) AS now",

	answer(raw) {
		const result: unknown = Array.isArray(raw) ? raw[0] : undefined;
		if (Array.isArray(result)) return { rows: result as Row[], count: 0 };
		const { affectedRows = 0 } = (result ?? {}) as { affectedRows?: number };
		return { rows: [], count: affectedRows };
	},

	trouble(error) {
		const code = Number(mysql.code(error) ?? Number.NaN);
		if (Number.isNaN(code) || GONE.has(code)) return "gone";
		if (LOGIN.has(code)) return "login";
		if (code === LOCK_WAIT || code === DEADLOCK) return "locked";
		if (code === DUPLICATE) return "duplicate";
		if (code === NO_TABLE) return "noTable";
		return DENIED.has(code) ? "denied" : "statement";
	},

	code(error) {
		const { errno, sqlState } = (error ?? {}) as { errno?: unknown; sqlState?: unknown };
		const told = typeof errno === "number" && typeof sqlState === "string";
		return told ? String(errno) : undefined;
	},

	async unsafe(session) {
		const { rows } = await session.query(
			"SELECT @@innodb_flush_log_at_trx_commit AS flush, @@log_bin AS log, @@sync_binlog AS sync",
		);
		const [row] = rows;
		if (Number(row?.["flush"]) !== 1) {
			return "innodb_flush_log_at_trx_commit is not 1, so a crash loses commits that were acknowledged: set it to 1";
		}
		// With a binary log, recovery keeps only those commits that the log has.
		return Number(row?.["log"]) === 1 && Number(row?.["sync"]) !== 1
			? "sync_binlog is not 1 while the binary log is on, so a crash loses commits that were acknowledged: set it to 1"
			: undefined;
	},

	async readOnly(session) {
		const { rows } = await session.query("SELECT @@GLOBAL.read_only AS ro");
		return Number(rows[0]?.["ro"]) === 1 ? "is read-only: connect to the primary" : undefined;
	},

	async alone(session, fn) {
		await session.query(`SELECT GET_LOCK('${SCHEMA_LOCK}', ${SCHEMA_LOCK_S})`);
		try {
			return await fn();
		} finally {
			await session.query(`SELECT RELEASE_LOCK('${SCHEMA_LOCK}')`);
		}
	},

	async beginShort(session) {
		await session.query(
			`SET @lottor_wait = @@SESSION.innodb_lock_wait_timeout, SESSION innodb_lock_wait_timeout = ${SHORT_WAIT_S}`,
		);
		await session.query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED");
		await session.query("START TRANSACTION");
	},

	async endShort(session) {
		await session.query(`${SET_WAIT} @lottor_wait`);
	},

	async insertInbox(session, values) {
		try {
			await mysql.briefly(session, () => session.query(INSERT_INBOX, values));
			return true;
		} catch (error) {
			if (mysql.trouble(error) === "duplicate") return false;
			throw error;
		}
	},

	async briefly(session, fn) {
		const { rows } = await session.query("SELECT @@SESSION.innodb_lock_wait_timeout AS value");
		await session.query(`${SET_WAIT} ${SHORT_WAIT_S}`);
		try {
			return await fn();
		} finally {
			await restoreWait(session, Number(rows[0]?.["value"]));
		}
	},

	committed: () => undefined,

	endedBy(event) {
		if ("error" in event) {
			const code = mysql.code(event.error);
			const over = code === String(DEADLOCK) || code === String(LOCK_WAIT);
			return over ? "rolledBack" : undefined;
		}
		const header: unknown = Array.isArray(event.response) ? event.response[0] : undefined;
		const { serverStatus } = (header ?? {}) as { serverStatus?: unknown };
		const over = typeof serverStatus === "number" && (serverStatus & IN_TRANSACTION) === 0;
		return over ? "committed" : undefined;
	},

	destroy(connection) {
		(connection as { destroy?: () => void }).destroy?.();
	},
};

/** A connection that can't be put back as it was must not be used again. */
async function restoreWait(session: Session, seconds: number): Promise<void> {
	try {
		await session.query(`${SET_WAIT} ${seconds}`);
	} catch {
		session.destroy();
	}
}
