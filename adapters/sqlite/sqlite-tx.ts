import { AsyncLocalStorage } from "node:async_hooks";
import type { DatabaseSync, SQLInputValue, SQLOutputValue, StatementSync } from "node:sqlite";

import { type Clock, LottorError, type Timer } from "../../protocol/index.ts";
import type { TxBase } from "../participant-store/contract.ts";

/** One row, by column name. */
export type SqliteRow = Record<string, SQLOutputValue>;

/** Reads of a SQLite file. */
export interface SqliteReader {
	/** @returns the first row, or undefined */
	get(sql: string, ...params: SQLInputValue[]): SqliteRow | undefined;
	/** @returns every row */
	all(sql: string, ...params: SQLInputValue[]): SqliteRow[];
}

/**
 * A transaction's handle. Statements are prepared once and kept; values are always bound.
 * Every call throws LOTTOR_TX_CLOSED once the transaction has ended or its time limit has passed,
 * LOTTOR_INVALID_REQUEST for a statement that would end or nest the transaction by itself, and
 * LOTTOR_STORE_UNAVAILABLE when the file failed.
 */
export interface SqliteTx extends TxBase, SqliteReader {
	/** Runs a statement that changes data. */
	run(
		sql: string,
		...params: SQLInputValue[]
	): { readonly changes: number; readonly lastInsertRowid: number | bigint };
}

/** A time limit, and what the work is told when it passes. */
export interface WorkLimit {
	/** Milliseconds. */
	readonly timeout: number;
	readonly timeoutError: () => Error;
}

/** What the outermost transaction came to. */
export type Ending =
	| { readonly state: "committed" }
	| { readonly state: "rolledBack"; readonly error: unknown }
	| { readonly state: "unclear"; readonly error: unknown };

/** What a handle needs of the file whose transaction it belongs to. */
export interface TxHost {
	readonly clock: Clock;
	readonly statements: Statements;
	/** Takes note of a statement's failure. @returns the error to throw */
	failed(error: unknown): unknown;
}

const CONTROL =
	/^(?:\s|;|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)*(begin|commit|end|rollback|savepoint|release|attach|detach|pragma|vacuum)\b/i;
const KEPT_STATEMENTS = 256;

/** Prepared statements of one connection, the most recently made kept. */
export class Statements implements SqliteReader {
	readonly #db: DatabaseSync;
	readonly #kept = new Map<string, StatementSync>();

	constructor(db: DatabaseSync) {
		this.#db = db;
	}

	prepare(sql: string): StatementSync {
		const known = this.#kept.get(sql);
		if (known) return known;
		const made = this.#db.prepare(sql);
		this.#kept.set(sql, made);
		if (this.#kept.size > KEPT_STATEMENTS) {
			for (const oldest of this.#kept.keys()) {
				this.#kept.delete(oldest);
				break;
			}
		}
		return made;
	}

	get(sql: string, ...params: SQLInputValue[]): SqliteRow | undefined {
		return this.prepare(sql).get(...params);
	}

	all(sql: string, ...params: SQLInputValue[]): SqliteRow[] {
		return this.prepare(sql).all(...params);
	}
}

const contexts = new AsyncLocalStorage<TxContext>();

interface TxContext {
	readonly tx: Transaction;
	readonly outer: TxContext | undefined;
}

/** @returns whether the code that runs now runs inside an open transaction that `matches` */
export function isInside(matches: (tx: Transaction) => boolean): boolean {
	for (let context = contexts.getStore(); context; context = context.outer) {
		if (context.tx.isOpen && matches(context.tx)) return true;
	}
	return false;
}

/** A transaction on the write connection: the outermost, or one nested in another by a savepoint. */
export class Transaction implements SqliteTx {
	readonly group: string;
	readonly host: TxHost;
	readonly #parent: Transaction | undefined;
	readonly #savepoint: string;
	readonly #depth: number;
	#ended: Promise<Ending> | undefined;
	#end: ((ending: Ending) => void) | undefined;
	#open = true;
	#child: Transaction | undefined;
	#turn: Promise<void> | undefined;

	constructor(host: TxHost, group: string, parent?: Transaction) {
		this.host = host;
		this.group = group;
		this.#parent = parent;
		this.#depth = parent ? parent.#depth + 1 : 0;
		this.#savepoint = `lottor_${this.#depth}`;
		host.statements.prepare(`SAVEPOINT ${this.#savepoint}`).run();
	}

	/** What the outermost transaction came to; to be asked for while it is open. Never rejects. */
	get ended(): Promise<Ending> {
		if (this.#parent) return this.#parent.ended;
		this.#ended ??= new Promise((resolve) => (this.#end = resolve));
		return this.#ended;
	}

	get isOpen(): boolean {
		return this.#open && (this.#parent?.isOpen ?? true);
	}

	run(sql: string, ...params: SQLInputValue[]) {
		const { changes, lastInsertRowid } = this.#execute(sql, (s) => s.run(...params));
		return { changes: Number(changes), lastInsertRowid };
	}

	get(sql: string, ...params: SQLInputValue[]): SqliteRow | undefined {
		return this.#execute(sql, (statement) => statement.get(...params));
	}

	all(sql: string, ...params: SQLInputValue[]): SqliteRow[] {
		return this.#execute(sql, (statement) => statement.all(...params));
	}

	/** Runs `fn` with this handle, so that what it starts is known to be inside. */
	enter<T>(fn: (tx: Transaction) => T): T {
		return contexts.run({ tx: this, outer: contexts.getStore() }, fn, this);
	}

	/**
	 * Runs `fn` in a savepoint of this transaction (R11): rolled back alone when it throws or takes
	 * too long. Nested works of one transaction run one after another.
	 *
	 * @throws LOTTOR_STORE_BUSY at once when it would wait for itself
	 */
	async nest<T>(
		group: string,
		fn: (tx: Transaction) => T | Promise<T>,
		limit: WorkLimit,
	): Promise<T> {
		this.#mustBeOpen();
		const sibling = this.#child;
		if (sibling && isInside((tx) => tx === sibling)) {
			throw new LottorError(
				"LOTTOR_STORE_BUSY",
				"A nested transaction was begun on its outer handle while that waits for it: use the nested handle",
				{ group },
			);
		}
		const before = this.#turn;
		const mine = (async () => {
			await before;
			this.#mustBeOpen();
			const child = new Transaction(this.host, group, this);
			this.#child = child;
			try {
				const value = await child.complete(child.enter(fn), limit);
				child.keep();
				return value;
			} catch (error) {
				child.undo();
				throw error;
			} finally {
				this.#child = undefined;
			}
		})();
		const turn = mine.then(
			() => undefined,
			() => undefined,
		);
		this.#turn = turn;
		void turn.then(() => {
			if (this.#turn === turn) this.#turn = undefined;
		});
		return mine;
	}

	/** Whether `complete` has something to wait for although the work itself is done. */
	get hasNested(): boolean {
		return this.#turn !== undefined;
	}

	/** Waits for the work and all that is nested in it, but not beyond the limit. */
	async complete<T>(work: T | PromiseLike<T>, limit: WorkLimit): Promise<T> {
		let timer: Timer | undefined;
		const late = new Promise<never>((_, reject) => {
			timer = this.host.clock.after(limit.timeout, () => reject(limit.timeoutError()));
		});
		try {
			return await Promise.race([this.#finished(work), late]);
		} finally {
			timer?.cancel();
		}
	}

	async #finished<T>(work: T | PromiseLike<T>): Promise<T> {
		const value = await work;
		while (this.#turn) await this.#turn;
		return value;
	}

	/** Ends the handle and keeps what was done, for the enclosing transaction to commit. */
	keep(): void {
		this.#mustBeOpen();
		this.host.statements.prepare(`RELEASE ${this.#savepoint}`).run();
		this.#open = false;
	}

	/** Ends the handle and undoes what was done through it. */
	undo(): void {
		const effective = this.isOpen;
		this.#open = false;
		if (!effective) return;
		this.host.statements.prepare(`ROLLBACK TO ${this.#savepoint}`).run();
		this.host.statements.prepare(`RELEASE ${this.#savepoint}`).run();
	}

	/** Ends the handle of a transaction that is no more. */
	abandon(): void {
		this.#open = false;
	}

	/** Tells what the outermost transaction came to. */
	conclude(ending: Ending): void {
		this.#end?.(ending);
	}

	#execute<T>(sql: string, call: (statement: StatementSync) => T): T {
		this.#mustBeOpen();
		if (CONTROL.test(sql)) {
			throw new LottorError(
				"LOTTOR_INVALID_REQUEST",
				`Statement "${sql.trim().slice(0, 40)}" is not allowed inside a transaction`,
				{ field: "sql" },
			);
		}
		try {
			return call(this.host.statements.prepare(sql));
		} catch (error) {
			throw this.host.failed(error);
		}
	}

	#mustBeOpen(): void {
		if (this.isOpen) return;
		throw new LottorError(
			"LOTTOR_TX_CLOSED",
			"The transaction has ended (commit, rollback or time limit): its handle can't be used",
			this.group === "" ? {} : { group: this.group },
		);
	}
}
