import { AsyncLocalStorage } from "node:async_hooks";
import { existsSync, mkdirSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";

import {
	type Clock,
	LottorError,
	messageOf,
	systemClock,
	type Timer,
} from "../../protocol/index.ts";
import {
	endsTransaction,
	fileError,
	isBusy,
	isFatal,
	openError,
	unclearCommit,
	unusable,
} from "./sqlite-errors.ts";
import {
	type Ending,
	isInside,
	type SqliteReader,
	type SqliteTx,
	Statements,
	Transaction,
	type TxHost,
	type WorkLimit,
} from "./sqlite-tx.ts";

/** How to open a SQLite file. The first holder's options count for all holders of one process. */
export interface SqliteFileOptions {
	/** @default the machine's */
	readonly clock?: Clock;
	/** Milliseconds that a write waits for the lock before LOTTOR_STORE_BUSY. @default 10000 */
	readonly lockTimeout?: number;
	/** Makes a connection. For tests. */
	readonly connect?: (path: string) => DatabaseSync;
}

/** Options of one write. */
export interface WriteOptions {
	/** `tx.group`. @default "" */
	readonly group?: string;
	/** Milliseconds to wait for the lock. @default the file's */
	readonly lockTimeout?: number;
	/** Milliseconds; then the work is rolled back, its handle refuses use. @default 60000 */
	readonly timeout?: number;
	/** What the work is rejected with when its time is over. @default LOTTOR_WORK_TIMEOUT */
	readonly timeoutError?: () => Error;
	/**
	 * The caller promises that no open transaction waits for this write: then it is queued where it
	 * would otherwise be refused as waiting for itself.
	 */
	readonly detached?: boolean;
}

interface Job extends WorkLimit {
	readonly group: string;
	readonly fn: (tx: Transaction) => unknown;
	readonly enter: <T>(fn: () => T) => T;
	/** When the wait for the lock is over, by the file's clock. */
	readonly deadline: number;
	readonly resolve: (value: unknown) => void;
	readonly reject: (error: unknown) => void;
}

interface DoneJob {
	readonly job: Job;
	readonly tx: Transaction;
	readonly value: unknown;
}

const BUSY_TIMEOUT_MS = 10;
const BUSY_RETRY_MS = 10;
const LOCK_TIMEOUT_MS = 10_000;
const WORK_TIMEOUT_MS = 60_000;
/** A batch older than this takes no further work: the works before it wait for its COMMIT. */
const SLOW_MS = 5;
const BATCH_WORKS = 512;
const SYNCHRONOUS_FULL = 2;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** `quick_check` reads the whole file: about a second for this many bytes on a slow disk. */
const CHECKED_BYTES = 256 * 1_024 * 1_024;
const TWO_LIBRARIES =
	"this process has it open through Knex and through `sqlite:`, and two SQLite libraries in one process don't see each other's locks, which corrupts the file: use one of them for all that is in it";
/** Between two tries to open a file again that a failure closed. */
const REOPEN_MS = 1_000;

const files = new Map<string, SqliteFile>();
/** Files that another SQLite library of this process has open, and how often. */
const elsewhere = new Map<string, number>();

/**
 * Notes that another SQLite library has the file open in this process. Two libraries in one process
 * don't see each other's locks, and would corrupt the file.
 *
 * @returns what ends it
 * @throws LOTTOR_STORE_UNUSABLE when the file is open through this one
 */
export function openedElsewhere(path: string): () => void {
	const real = realPath(path);
	if (files.has(real)) throw unusable(real, TWO_LIBRARIES);
	elsewhere.set(real, (elsewhere.get(real) ?? 0) + 1);
	return () => {
		const left = (elsewhere.get(real) ?? 1) - 1;
		if (left > 0) elsewhere.set(real, left);
		else elsewhere.delete(real);
	};
}

/**
 * Opens a SQLite file, or takes a share in it when this process has it open already: there is one
 * writer per file and process (R12). Makes the file where it is missing, and its folder, but no folders above it. Each
 * call must be matched by one `close()`.
 *
 * @throws LOTTOR_STORE_UNUSABLE when the file is corrupt, read-only, no database, its settings do
 *   not take, or this process has it open through Knex
 * @throws LOTTOR_STORE_BUSY when another process keeps it locked for too long
 */
export async function openSqliteFile(
	path: string,
	options: SqliteFileOptions = {},
): Promise<SqliteFile> {
	const real = realPath(path);
	if (elsewhere.has(real)) throw unusable(real, TWO_LIBRARIES);
	let file = files.get(real);
	if (!file) {
		file = new SqliteFile(real, options);
		files.set(real, file);
	}
	await file.share(() => files.delete(real));
	return file;
}

/** One SQLite file, shared by all that use it in this process. */
export class SqliteFile implements TxHost {
	/** The real path. */
	readonly path: string;
	readonly clock: Clock;
	readonly #connect: (path: string) => DatabaseSync;
	readonly #lockTimeout: number;
	readonly #detach = AsyncLocalStorage.snapshot();
	#holders = 0;
	#forget: () => void = () => undefined;
	#opening: Promise<void> | undefined;
	#writer: DatabaseSync | undefined;
	#reader: DatabaseSync | undefined;
	#statements: Statements | undefined;
	#reads: Statements | undefined;
	/** Why the file was closed by a failure. */
	#broken: unknown;
	/** When it may be tried again to open it. */
	#reopenAt = 0;
	#queue: Job[] = [];
	#active: Transaction | undefined;
	/** Why the batch under way can't be committed. */
	#lost: { readonly error: unknown } | undefined;
	#draining: Promise<void> | undefined;
	#expiry: { readonly at: number; readonly timer: Timer } | undefined;

	constructor(path: string, options: SqliteFileOptions) {
		this.path = path;
		this.clock = options.clock ?? systemClock;
		this.#connect =
			options.connect ?? ((file) => new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS }));
		this.#lockTimeout = options.lockTimeout ?? LOCK_TIMEOUT_MS;
	}

	get statements(): Statements {
		if (!this.#statements) throw this.#closedError();
		return this.#statements;
	}

	/** Adds a holder; opens the file for the first one, or again after a failure. */
	async share(forget: () => void): Promise<void> {
		this.#forget = forget;
		this.#holders++;
		try {
			await this.reopen();
		} catch (error) {
			this.#holders--;
			if (this.#holders === 0) forget();
			throw error;
		}
	}

	/** Opens the file again after a failure closed it; does nothing while it is open. */
	async reopen(): Promise<void> {
		if (this.#opening) return this.#opening;
		if (this.#writer) return;
		this.#opening = this.#reopen().finally(() => (this.#opening = undefined));
		return this.#opening;
	}

	/**
	 * Runs `fn` alone in a transaction of its own and resolves with its value once that is durable.
	 * Works that wait at the same time share one COMMIT; each is rolled back alone.
	 *
	 * @throws whatever `fn` threw, rolled back; LOTTOR_STORE_BUSY when the lock was not free in time,
	 *   or at once when the work would wait for itself; LOTTOR_WORK_TIMEOUT; LOTTOR_STORE_UNAVAILABLE
	 *   when the file failed: after an unclear COMMIT (`isUnclear`) it may or may not have happened
	 */
	write<T>(fn: (tx: SqliteTx) => T | Promise<T>, options: WriteOptions = {}): Promise<T> {
		if (!this.#writer) return Promise.reject(this.#refusal());
		if (!options.detached && isInside((tx) => tx.host === this)) {
			return Promise.reject(
				new LottorError(
					"LOTTOR_STORE_BUSY",
					`SQLite file ${this.path}: a write inside an open transaction of the same file would wait for itself; use the transaction's handle`,
				),
			);
		}
		const { group = "", timeout = WORK_TIMEOUT_MS } = options;
		return new Promise<T>((resolve, reject) => {
			const job: Job = {
				group,
				fn,
				timeout,
				timeoutError: options.timeoutError ?? (() => workTimeout(group, timeout)),
				enter: AsyncLocalStorage.snapshot(),
				deadline: this.clock.now() + (options.lockTimeout ?? this.#lockTimeout),
				resolve: resolve as (value: unknown) => void,
				reject,
			};
			this.#queue.push(job);
			this.#watch(job.deadline);
			this.#draining ??= this.#detach(() => this.#drain());
		});
	}

	/** @returns whether the handle is one of this file's transactions */
	owns(tx: object): tx is SqliteTx {
		return tx instanceof Transaction && tx.host === this;
	}

	/**
	 * Runs `fn` inside an open transaction of this file, in a savepoint of its own (R11).
	 *
	 * @returns the value, durable only when `ended` says that the outermost transaction committed
	 * @throws whatever `fn` threw, rolled back alone; LOTTOR_TX_CLOSED when `tx` has ended;
	 *   LOTTOR_INVALID_REQUEST when it is of another file
	 */
	async nest<T>(
		tx: SqliteTx,
		fn: (tx: SqliteTx) => T | Promise<T>,
		options: WorkLimit & { readonly group: string },
	): Promise<{ readonly value: T; readonly ended: Promise<Ending> }> {
		if (!(tx instanceof Transaction) || tx.host !== this) {
			throw new LottorError(
				"LOTTOR_INVALID_REQUEST",
				`The transaction to join is not one of SQLite file ${this.path}`,
				{ group: options.group, field: "join" },
			);
		}
		const value = tx.nest(options.group, fn, options);
		const ended = tx.ended;
		return { value: await value, ended };
	}

	/**
	 * Runs `fn` on the read connection: it sees what is committed, never an open transaction.
	 *
	 * @throws LOTTOR_STORE_UNAVAILABLE when the file failed; LOTTOR_STORE_BUSY when it stays locked
	 */
	async read<T>(fn: (reader: SqliteReader) => T): Promise<T> {
		const deadline = this.clock.now() + this.#lockTimeout;
		for (;;) {
			if (!this.#reads) throw this.#refusal();
			try {
				return fn(this.#reads);
			} catch (error) {
				if (!isBusy(error)) throw this.failed(error, false);
				if (this.clock.now() >= deadline) throw this.#busyError();
			}
			await this.#pause(BUSY_RETRY_MS);
		}
	}

	/** Gives up one share; the last one waits for what runs and is queued, and closes the file. */
	async close(): Promise<void> {
		this.#holders--;
		if (this.#holders > 0) return;
		while (this.#draining) await this.#draining;
		await this.#opening?.catch(() => undefined);
		if (this.#holders > 0) return;
		this.#forget();
		this.#expiry?.timer.cancel();
		this.#closeConnections();
	}

	/** Takes note of a statement's failure. @returns the error to throw */
	failed(error: unknown, inTransaction = true): unknown {
		const reported = fileError(error, this.path);
		if (isFatal(error)) this.#break(reported);
		const over = endsTransaction(error) || this.#writer?.isTransaction === false;
		if (inTransaction && this.#active && over) this.#lost ??= { error: reported };
		return reported;
	}

	async #reopen(): Promise<void> {
		// The handle of a work that met the failure must never reach the new connection.
		while (this.#draining) await this.#draining;
		await this.#open();
	}

	async #open(): Promise<void> {
		const deadline = this.clock.now() + this.#lockTimeout;
		for (;;) {
			try {
				this.#connectBoth();
				this.#broken = undefined;
				return;
			} catch (error) {
				this.#closeConnections();
				if (!isBusy(error)) throw openError(error, this.path);
				if (this.clock.now() >= deadline) throw this.#busyError();
			}
			await this.#pause(BUSY_RETRY_MS);
		}
	}

	#connectBoth(): void {
		const folder = dirname(this.path);
		try {
			// One level only: a deeper path that is missing is rather a wrong path, or not mounted.
			if (!existsSync(folder)) mkdirSync(folder);
		} catch (error) {
			throw unusable(this.path, `its folder is missing and can't be made`, error);
		}
		const writer = this.#connect(this.path);
		this.#writer = writer;
		const statements = new Statements(writer);
		const journal = statements.get("PRAGMA journal_mode = WAL")?.["journal_mode"];
		if (journal !== "wal") {
			throw unusable(
				this.path,
				`it stays in journal mode ${String(journal)} instead of WAL: use a local file system that supports shared memory`,
			);
		}
		writer.exec("PRAGMA synchronous = FULL");
		if (statements.get("PRAGMA synchronous")?.["synchronous"] !== SYNCHRONOUS_FULL) {
			throw unusable(this.path, "PRAGMA synchronous = FULL does not take");
		}
		this.#mustBeWritable(writer, statements);
		if (statSync(this.path).size <= CHECKED_BYTES) {
			const [verdict] = Object.values(statements.get("PRAGMA quick_check(1)") ?? {});
			if (verdict !== "ok") {
				throw unusable(
					this.path,
					`it is corrupt (${String(verdict)}): restore it from a backup or recover it with \`sqlite3 <file> .recover\``,
				);
			}
		}
		const reader = this.#connect(this.path);
		this.#reader = reader;
		reader.exec("PRAGMA query_only = ON");
		this.#statements = statements;
		this.#reads = new Statements(reader);
	}

	/** Writes the header's user_version back as it is, which only a writable file takes. */
	#mustBeWritable(writer: DatabaseSync, statements: Statements): void {
		writer.exec("BEGIN IMMEDIATE");
		try {
			const version = Number(statements.get("PRAGMA user_version")?.["user_version"]);
			writer.exec(`PRAGMA user_version = ${version}`);
		} finally {
			writer.exec("ROLLBACK");
		}
	}

	/** Sees to it that no job waits beyond its deadline. */
	#watch(deadline: number): void {
		if (this.#expiry && this.#expiry.at <= deadline) return;
		this.#expiry?.timer.cancel();
		const timer = this.clock.after(deadline - this.clock.now(), () => {
			this.#expiry = undefined;
			const now = this.clock.now();
			const late = this.#queue.filter((job) => job.deadline <= now);
			if (late.length > 0) this.#queue = this.#queue.filter((job) => job.deadline > now);
			for (const job of late) job.reject(this.#busyError());
			if (this.#queue.length === 0) return;
			this.#watch(Math.min(...this.#queue.map((job) => job.deadline)));
		});
		this.#expiry = { at: deadline, timer };
	}

	async #drain(): Promise<void> {
		while (this.#queue.length > 0) {
			// Lets the works gather that start in this turn of the loop, as after the last COMMIT.
			await new Promise((next) => setImmediate(next));
			if (await this.#begin()) await this.#batch();
		}
		this.#draining = undefined;
	}

	/** Takes the file's lock among processes. @returns false when nobody waits for it any more */
	async #begin(): Promise<boolean> {
		while (this.#queue.length > 0) {
			if (!this.#writer) {
				this.#rejectQueued(this.#closedError());
				return false;
			}
			try {
				this.#writer.exec("BEGIN IMMEDIATE");
				return true;
			} catch (error) {
				if (!isBusy(error)) {
					this.#rejectQueued(this.failed(error));
					return false;
				}
			}
			await this.#pause(BUSY_RETRY_MS);
		}
		return false;
	}

	async #batch(): Promise<void> {
		const done: DoneJob[] = [];
		const start = this.clock.now();
		this.#lost = undefined;
		do {
			const job = this.#queue.shift();
			if (!job) break;
			const pending = this.#perform(job, done);
			if (pending) await pending;
		} while (!this.#isBatchOver(start, done.length));
		const lost = this.#takeLost();
		if (lost) this.#abandon(done, lost.error);
		else this.#commit(done);
	}

	#isBatchOver(start: number, works: number): boolean {
		return (
			this.#lost !== undefined || works >= BATCH_WORKS || this.clock.now() - start > SLOW_MS
		);
	}

	/** Runs one job in its savepoint; adds it to `done`, or rejects it. */
	#perform(job: Job, done: DoneJob[]): Promise<void> | undefined {
		let tx: Transaction;
		try {
			tx = new Transaction(this, job.group);
		} catch (error) {
			this.#lost = { error: this.failed(error) };
			job.reject(this.#lost.error);
			return;
		}
		this.#active = tx;
		let value: unknown;
		try {
			value = job.enter(() => tx.enter(job.fn));
			if (!isPromise(value) && !tx.hasNested) {
				this.#keep(job, tx, value, done);
				return;
			}
		} catch (error) {
			this.#undo(job, tx, error);
			return;
		}
		return tx.complete(value, job).then(
			(result) => {
				try {
					this.#keep(job, tx, result, done);
				} catch (error) {
					this.#undo(job, tx, error);
				}
			},
			(error: unknown) => {
				this.#undo(job, tx, error);
			},
		);
	}

	#keep(job: Job, tx: Transaction, value: unknown, done: DoneJob[]): void {
		if (this.#lost) throw this.#lost.error;
		tx.keep();
		this.#active = undefined;
		done.push({ job, tx, value });
	}

	#undo(job: Job, tx: Transaction, error: unknown): void {
		try {
			if (this.#lost) tx.abandon();
			else tx.undo();
		} catch (failure) {
			// The savepoint is gone: SQLite rolled the whole transaction back.
			this.#lost ??= { error: this.failed(failure) };
		}
		this.#active = undefined;
		tx.conclude({ state: "rolledBack", error });
		job.reject(error);
	}

	/** A method, since the compiler does not see that performing a job may set it. */
	#takeLost(): { readonly error: unknown } | undefined {
		return this.#lost;
	}

	/** Ends a batch that can't be committed: nothing of it stands. */
	#abandon(done: readonly DoneJob[], cause: unknown): void {
		try {
			if (this.#writer?.isTransaction !== false) this.#writer?.exec("ROLLBACK");
		} catch {
			// SQLite has rolled back by itself.
		}
		const error =
			cause instanceof LottorError
				? cause
				: new LottorError(
						"LOTTOR_STORE_UNAVAILABLE",
						`SQLite file ${this.path}: another work's failure rolled back the whole batch; nothing of this one stands`,
						{ path: this.path },
						cause,
					);
		settle(done, { state: "rolledBack", error });
	}

	#commit(done: readonly DoneJob[]): void {
		const writer = this.#writer;
		if (!writer) {
			this.#abandon(done, this.#closedError());
			return;
		}
		try {
			writer.exec("COMMIT");
		} catch (error) {
			const unclear = unclearCommit(error, this.path);
			if (isFatal(error)) this.#break(unclear);
			try {
				if (writer.isTransaction) writer.exec("ROLLBACK");
			} catch (failure) {
				this.#break(fileError(failure, this.path));
			}
			settle(done, { state: "unclear", error: unclear });
			return;
		}
		settle(done, { state: "committed" });
	}

	#rejectQueued(error: unknown): void {
		for (const job of this.#queue.splice(0)) job.reject(error);
	}

	/** Closes the file until somebody opens it again. */
	#break(error: unknown): void {
		if (!this.#writer) return;
		this.#broken = error;
		if (this.#active) this.#lost ??= { error };
		this.#closeConnections();
	}

	#closeConnections(): void {
		this.#statements = undefined;
		this.#reads = undefined;
		for (const db of [this.#reader, this.#writer]) {
			try {
				db?.close();
			} catch {
				// A connection that failed to open is closed already.
			}
		}
		this.#reader = undefined;
		this.#writer = undefined;
	}

	async #pause(ms: number): Promise<void> {
		// The clock's timers don't keep the process alive; a write that waits must.
		const hold = setInterval(() => undefined, LONGEST_TIMER_MS);
		await new Promise<void>((resolve) => this.clock.after(ms, resolve));
		clearInterval(hold);
	}

	#busyError(): LottorError {
		return new LottorError(
			"LOTTOR_STORE_BUSY",
			`SQLite file ${this.path}: the write lock was not free in time`,
			{ path: this.path },
		);
	}

	/**
	 * What a call gets while the file is closed. After a failure somebody must open it again, and its
	 * users may have nobody who would: the first call of each second has it tried.
	 */
	#refusal(): LottorError {
		const error = this.#closedError();
		const now = this.clock.now();
		if (this.#broken !== undefined && this.#holders > 0 && now >= this.#reopenAt) {
			this.#reopenAt = now + REOPEN_MS;
			// What is still wrong is told to whoever calls next.
			this.reopen().catch((failure: unknown) => (this.#broken = failure));
		}
		return error;
	}

	#closedError(): LottorError {
		return this.#broken === undefined
			? new LottorError("LOTTOR_STORE_UNAVAILABLE", `SQLite file ${this.path} is not open`, {
					path: this.path,
				})
			: new LottorError(
					"LOTTOR_STORE_UNAVAILABLE",
					`SQLite file ${this.path} was closed after a failure and is being opened again: ${messageOf(this.#broken)}`,
					{ path: this.path },
					this.#broken,
				);
	}
}

/** @returns the error of a work that took too long */
export function workTimeout(group: string, timeout: number): LottorError {
	return new LottorError(
		"LOTTOR_WORK_TIMEOUT",
		`The work took longer than ${timeout} ms and was rolled back`,
		group === "" ? {} : { group },
	);
}

function settle(done: readonly DoneJob[], ending: Ending): void {
	for (const { job, tx, value } of done) {
		tx.conclude(ending);
		if (ending.state === "committed") job.resolve(value);
		else job.reject(ending.error);
	}
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
	return typeof value === "object" && value !== null && "then" in value;
}

function realPath(path: string): string {
	const absolute = resolve(path);
	try {
		return realpathSync(absolute);
	} catch {
		// The file is still to be made: its folder may be a link all the same.
	}
	try {
		return join(realpathSync(dirname(absolute)), basename(absolute));
	} catch {
		return absolute;
	}
}
