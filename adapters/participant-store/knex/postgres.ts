import { type Dialect, type FirstRow, INBOX_COLUMNS, type Value } from "./dialect.ts";
import { PARTICIPANT } from "./statements.ts";
import { SHORT_WAIT_MS } from "../rules.ts";

/** Any number that nobody else uses as a key of advisory locks. */
const SCHEMA_LOCK = 5_277_140_217;

/** Classes of SQLSTATE in which the server, not the statement, is to blame. */
const GONE = /^(?:08|57P|58|53|XX|25006)/;
const LOCKED = new Set(["55P03", "40P01", "40001"]);
const LOGIN = /^(?:28|3D)/;

/** Printable ASCII without the backslash. */
const PLAIN_TEXT = /^[ -[\]-~]*$/;

const TYPES: Readonly<Record<string, string>> = {
	attempt: "integer",
	revision: "bigint",
	fence: "bigint",
	renewed: "bigint",
	at: "bigint",
	settled: "smallint",
};

const INSERT_INBOX = `WITH prior AS MATERIALIZED (
		SELECT current_setting('lock_timeout') AS value
	), brief AS MATERIALIZED (
		SELECT set_config('lock_timeout', '${SHORT_WAIT_MS}', true) AS value FROM prior
	), inserted AS (
		INSERT INTO lottor_inbox (${INBOX_COLUMNS.join(", ")})
		SELECT ${INBOX_COLUMNS.map((name) => `?::${TYPES[name] ?? "text"}`).join(", ")} FROM brief
		ON CONFLICT (id) DO NOTHING RETURNING id
	)
	SELECT count(*) AS count, (SELECT set_config('lock_timeout', value, true) FROM prior) AS back
	FROM inserted`;

const INSERT_OUTCOME = `INSERT INTO lottor_outcome
	(id, state, node, instance, coordinator, at, confirmed)`;

/** What a first row is sent with: the statements of one simple query, and which of them inserts. */
const FIRST: Readonly<
	Record<FirstRow["table"], { before: string; insert: string; after: string; place: number }>
> = {
	outcome: {
		before: "BEGIN",
		insert: INSERT_OUTCOME,
		after: "",
		place: 1,
	},
	inbox: {
		before: `BEGIN;
			SELECT set_config('lottor.lock_timeout', current_setting('lock_timeout'), true);
			SET LOCAL lock_timeout = ${SHORT_WAIT_MS}`,
		insert: `INSERT INTO lottor_inbox (${INBOX_COLUMNS.join(", ")})`,
		after: `;
			SELECT set_config('lock_timeout', current_setting('lottor.lock_timeout'), true)`,
		place: 3,
	},
};

/** PostgreSQL 12 and newer, and what speaks its language. */
export const postgres: Dialect = {
	name: "postgres",
	driver: "pg",
	...PARTICIPANT,
	forUpdate: " FOR UPDATE",

	hasTables: "SELECT 1 WHERE to_regclass('lottor_participant') IS NOT NULL",
	tables: [
		`CREATE TABLE lottor_outcome (
			id text COLLATE "C" PRIMARY KEY,
			state text NOT NULL CHECK (state IN ('started', 'committed', 'rolledBack')),
			node text,
			instance text,
			coordinator text NOT NULL,
			at bigint NOT NULL,
			confirmed smallint NOT NULL
		)`,
		`CREATE INDEX lottor_outcome_at ON lottor_outcome (confirmed, at)`,
		`CREATE TABLE lottor_inbox (
			id text COLLATE "C" PRIMARY KEY,
			state text NOT NULL CHECK (state IN ('consumed', 'failed', 'running', 'fenced')),
			attempt integer NOT NULL,
			revision bigint NOT NULL,
			fence bigint NOT NULL,
			receipt text NOT NULL,
			coordinator text NOT NULL,
			error text,
			node text,
			instance text,
			renewed bigint NOT NULL,
			at bigint NOT NULL,
			settled smallint NOT NULL
		)`,
		`CREATE INDEX lottor_inbox_at ON lottor_inbox (settled, at)`,
		`CREATE TABLE lottor_participant (
			one smallint PRIMARY KEY CHECK (one = 1),
			version integer NOT NULL,
			store text NOT NULL
		)`,
	],

	insertOutcome: `${INSERT_OUTCOME} VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
	purgeOutcomes: `DELETE FROM lottor_outcome WHERE id IN (SELECT id FROM lottor_outcome
		WHERE confirmed = 1 AND at < ? ORDER BY confirmed, at LIMIT ? FOR UPDATE SKIP LOCKED)`,
	purgeInbox: `DELETE FROM lottor_inbox WHERE id IN (SELECT id FROM lottor_inbox
		WHERE settled = 1 AND at < ? ORDER BY settled, at LIMIT ? FOR UPDATE SKIP LOCKED)`,
	time: "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000) AS now",

	answer(raw) {
		const { rows, rowCount } = (raw ?? {}) as { rows?: never[]; rowCount?: number | null };
		return { rows: rows ?? [], count: rowCount ?? 0 };
	},

	trouble(error) {
		const code = postgres.code(error);
		if (code === undefined || GONE.test(code)) return "gone";
		if (LOGIN.test(code)) return "login";
		if (LOCKED.has(code)) return "locked";
		if (code === "23505" || code === "42P07") return "duplicate";
		if (code === "42P01") return "noTable";
		return code === "42501" ? "denied" : "statement";
	},

	code(error) {
		const code: unknown = (error as { code?: unknown } | null)?.code;
		return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
	},

	async unsafe(session) {
		const { rows } = await session.query(
			"SELECT current_setting('synchronous_commit') AS wait, current_setting('fsync') AS fsync",
		);
		if (rows[0]?.["wait"] === "off") {
			return "synchronous_commit is off, so a crash loses commits that were acknowledged: set it to on";
		}
		return rows[0]?.["fsync"] === "off"
			? "fsync is off, so a crash loses or corrupts what was committed: set it to on"
			: undefined;
	},

	async readOnly(session) {
		const { rows } = await session.query(
			"SELECT pg_is_in_recovery() AS replica, current_setting('transaction_read_only') AS ro",
		);
		if (rows[0]?.["replica"] === true) return "is a replica: connect to the primary";
		return rows[0]?.["ro"] === "on" ? "is read-only" : undefined;
	},

	async alone(session, fn) {
		await session.query(`BEGIN; SELECT pg_advisory_xact_lock(${SCHEMA_LOCK})`);
		try {
			const value = await fn();
			await session.query("COMMIT");
			return value;
		} catch (error) {
			await session.query("ROLLBACK");
			throw error;
		}
	},

	async beginShort(session) {
		await session.query(
			`BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = ${SHORT_WAIT_MS}`,
		);
	},

	async endShort() {
		// SET LOCAL ends with its transaction.
	},

	async insertInbox(session, values) {
		const { rows } = await session.query(INSERT_INBOX, values);
		return Number(rows[0]?.["count"]) === 1;
	},

	beginWith(connection, { table, values }) {
		const literals = values.map(literal);
		if (!literals.every((one) => one !== undefined)) return undefined;
		const { before, insert, after, place } = FIRST[table];
		const row = `${insert} VALUES (${literals.join(", ")}) ON CONFLICT (id) DO NOTHING`;
		return new Promise((resolve, reject) => {
			(connection as Driver).query(`${before};${row}${after}`, (error, answers) => {
				const answer = Array.isArray(answers) ? (answers[place] as Answered) : undefined;
				if (error) reject(error);
				else if (answer?.command === "INSERT") resolve(answer.rowCount === 1);
				else reject(new Error("the driver does not tell what each statement came to"));
			});
		});
	},

	async briefly(session, fn) {
		const { rows } = await session.query("SELECT current_setting('lock_timeout') AS value");
		const set = (value: string) =>
			session.query("SELECT set_config('lock_timeout', ?, true)", [value]);
		await set(String(SHORT_WAIT_MS));
		const value = await fn();
		await set(String(rows[0]?.["value"]));
		return value;
	},

	committed(answer) {
		// PostgreSQL answers the COMMIT of a transaction in which a statement failed by ROLLBACK.
		const { response } = (answer ?? {}) as { response?: { command?: string } };
		return response?.command === "COMMIT";
	},

	endedBy: () => undefined,

	destroy(connection) {
		const { connection: wire } = connection as { connection?: { stream?: Destroyable } };
		wire?.stream?.destroy();
	},
};

interface Destroyable {
	destroy(): void;
}

/** What is used of a connection of package "pg". */
interface Driver {
	query(text: string, done: (error: Error | null, answers: unknown) => void): void;
}

interface Answered {
	readonly command: string;
	readonly rowCount: number | null;
}

/**
 * Writes a value into a statement, as it can't be bound where several come at once.
 * @returns undefined for a text that means the same in every encoding and setting of the server
 *   only when it is bound
 */
function literal(value: Value): string | undefined {
	if (value === null) return "NULL";
	if (typeof value === "number") return Number.isSafeInteger(value) ? String(value) : undefined;
	return PLAIN_TEXT.test(value) ? `'${value.replaceAll("'", "''")}'` : undefined;
}
