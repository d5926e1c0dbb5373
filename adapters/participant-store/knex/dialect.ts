import type { Session } from "./session.ts";

/** One row, by column name. */
export type Row = Readonly<Record<string, unknown>>;

/** What a value of a statement may be. */
export type Value = string | number | null;

/** What a statement came to, the same for every driver. */
export interface Answer {
	readonly rows: readonly Row[];
	/** Rows that it changed. */
	readonly count: number;
}

/**
 * Why a statement failed. `gone`: the server or the way to it; `locked`: somebody holds a lock, and
 * the transaction is over; `login`: the server is there and refuses us; `file`: the database's file
 * can't be used.
 */
export type Trouble =
	"gone" | "locked" | "duplicate" | "noTable" | "denied" | "login" | "file" | "statement";

/** The row that comes first in a transaction (R7, R32). */
export interface FirstRow {
	readonly table: "outcome" | "inbox";
	/** In the order of the statement that inserts it. */
	readonly values: readonly Value[];
}

/** What differs between the databases. */
export interface Dialect {
	readonly name: "postgres" | "mysql" | "sqlite";
	/** npm package of the driver. */
	readonly driver: string;
	/** Finds a row where the tables are there. */
	readonly hasTables: string;
	/** Makes the tables. */
	readonly tables: readonly string[];
	/** Inserts an outcome or changes nothing. */
	readonly insertOutcome: string;
	/** What a SELECT ends with, so that others can't change its row meanwhile. */
	readonly forUpdate: string;
	/** The version and the store's id, as `version` and `store`. */
	readonly participant: string;
	/** Inserts these two. */
	readonly newParticipant: string;
	/** Deletes at most so many rows: before, limit. */
	readonly purgeOutcomes: string;
	readonly purgeInbox: string;
	/** What the server says of its clock, in milliseconds since 1970. */
	readonly time: string;
	/** Reads the driver's own result. */
	answer(raw: unknown): Answer;
	trouble(error: unknown): Trouble;
	/** Says of the driver's error which class of error or which state it has. */
	code(error: unknown): string | undefined;
	/** @returns why the server's settings lose what was committed; undefined when they do not */
	unsafe(session: Session): Promise<string | undefined>;
	/** @returns why nothing can be written here now, as on a replica; undefined when it can */
	readOnly(session: Session): Promise<string | undefined>;
	/** Lets one instance at a time make the tables. */
	alone<T>(session: Session, fn: () => Promise<T>): Promise<T>;
	/** Begins a transaction, READ COMMITTED, whose waits for locks are short (R14). */
	beginShort(session: Session): Promise<void>;
	/** Puts back what {@link beginShort} set, if it outlives the transaction. */
	endShort(session: Session): Promise<void>;
	/**
	 * Inserts an inbox row, waiting shortly for a copy that another transaction has.
	 * @returns whether there was none yet
	 */
	insertInbox(session: Session, values: readonly Value[]): Promise<boolean>;
	/**
	 * Begins a transaction and inserts its first row in one round trip, else as
	 * {@link insertOutcome} and {@link insertInbox} do. Where it fails, the transaction may have
	 * begun all the same, and must be rolled back.
	 * @returns whether there was none yet; undefined, with nothing sent, where that can't be done
	 */
	beginWith?(connection: unknown, row: FirstRow): Promise<boolean> | undefined;
	/** Runs `fn`, whose waits for locks are short; what comes after it waits as it did before. */
	briefly<T>(session: Session, fn: () => Promise<T>): Promise<T>;
	/** @returns whether the answer to COMMIT says that it committed; undefined where none comes */
	committed(answer: unknown): boolean | undefined;
	/**
	 * @returns how the server has ended the transaction by itself, so that what follows would not be
	 *   part of it; undefined when it has not
	 */
	endedBy(
		event: { readonly error: unknown } | { readonly response: unknown },
		connection: unknown,
	): "rolledBack" | "committed" | undefined;
	/** Of a database that has one writer: what Lottor does about that. */
	readonly oneWriter?: OneWriterDialect;
	/** Drops the connection without a word. */
	destroy(connection: unknown): void;
}

/** What differs in a database that has one writer at a time, and whose pool has one connection. */
export interface OneWriterDialect {
	/** The file of the connection; none for one in memory. */
	file(connection: unknown): string | undefined;
	/** @returns why what is committed on this connection could be lost; undefined when it could not */
	unsafe(connection: unknown): string | undefined;
	/**
	 * Lets statements on the connection fail at once where they would wait for a lock, and with that
	 * keep the whole process waiting.
	 * @returns what puts it back as it was
	 */
	impatient(connection: unknown): () => void;
	/** Lets the connection read only. */
	readOnly(connection: unknown): void;
	/** Makes the transaction that is open on the connection the writer. */
	lock(connection: unknown): void;
	/** @returns whether a transaction is open on the connection */
	isInTransaction(connection: unknown): boolean;
}

/** Columns of the inbox, in the order of its values. */
export const INBOX_COLUMNS = [
	"id",
	"state",
	"attempt",
	"revision",
	"fence",
	"receipt",
	"coordinator",
	"error",
	"node",
	"instance",
	"renewed",
	"at",
	"settled",
] as const;
