import type { Knex } from "knex";

import { LottorError } from "../../../protocol/index.ts";
import type { TxBase } from "../contract.ts";
import type { Ending, Lost, OpenTransaction } from "../transactional.ts";
import type { KnexDatabase } from "./database.ts";
import type { FirstRow } from "./dialect.ts";
import { plainMessage, type Session, STATEMENT_MS } from "./session.ts";

/** How long COMMIT may take before what stands is read on another connection. Milliseconds. */
const COMMIT_MS = 10_000;
/** How long a rollback may take before the connection is dropped instead. Milliseconds. */
const ROLLBACK_MS = 1_000;

/**
 * The handle of a work's transaction. Using `trx` throws LOTTOR_TX_CLOSED once the transaction has
 * ended, its time limit has passed, or the database has ended it by itself.
 */
export interface KnexTx extends TxBase {
	/** Knex's own handle, for `trx(table)` and `query.transacting(trx)`. Lottor ends it. */
	readonly trx: Knex.Transaction;
}

/** Knex's handle, and how Lottor ends it. */
interface Handle extends Pick<Knex.Transaction, "commit" | "rollback"> {
	readonly trx: Knex.Transaction;
}

/** A transaction, or a savepoint in one. */
export class KnexTransaction implements KnexTx, OpenTransaction {
	readonly group: string;
	readonly database: KnexDatabase;
	/** What the outermost transaction came to. Never rejects. */
	readonly ended: Promise<Ending>;
	readonly #parent: KnexTransaction | undefined;
	#session: Session;
	#begun = false;
	#handle: Handle | undefined;
	#conclude: (ending: Ending) => void = () => undefined;
	#open = true;
	/** How the database ended the transaction by itself. */
	#lost: Lost | undefined;

	/** Nothing has begun: see {@link begin}, {@link beginWith} and {@link nest}. */
	constructor(database: KnexDatabase, session: Session, group: string, parent?: KnexTransaction) {
		this.database = database;
		this.#session = session;
		this.group = group;
		this.#parent = parent;
		this.ended = parent?.ended ?? new Promise((resolve) => (this.#conclude = resolve));
	}

	/** The connection, for statements inside the transaction. */
	get session(): Session {
		return this.#session;
	}

	get trx(): Knex.Transaction {
		if (this.#lost) throw this.#lost.error;
		if (this.#handle && this.isOpen) return this.#handle.trx;
		throw new LottorError(
			"LOTTOR_TX_CLOSED",
			"The transaction has ended (commit, rollback or time limit): its handle can't be used",
			{ group: this.group },
		);
	}

	get isOpen(): boolean {
		return this.#open && !this.#lost && (this.#parent?.isOpen ?? true);
	}

	/** How the database has ended the transaction already, if it has. */
	get lost(): Lost | undefined {
		return this.#lost ?? this.#parent?.lost;
	}

	/** Begins on the connection. */
	async begin(): Promise<void> {
		const { database, session } = this;
		this.#begun = true;
		const beginning = database.knex.transaction(undefined, { connection: session.connection });
		this.#adopt(await session.within(STATEMENT_MS, beginning));
	}

	/**
	 * Begins on the connection and inserts the first row, in one round trip where that can be done.
	 * @returns whether there was none yet; undefined when it has only begun, or had already
	 */
	async beginWith(row: FirstRow): Promise<boolean | undefined> {
		if (this.#handle) return undefined;
		const { database, session } = this;
		const inserting = database.dialect.beginWith?.(session.connection, row);
		if (!inserting) {
			await this.begin();
			return undefined;
		}
		this.#begun = true;
		const added = await session.run(inserting);
		this.#adopt(await begunTransaction(database.knex, session.connection));
		return added;
	}

	/** Begins as a savepoint in the parent, once its other savepoints have ended. */
	async beginIn(parent: KnexTransaction): Promise<void> {
		this.#adopt(await parent.trx.transaction());
	}

	/** Ends the handle: nothing more can be done through it. */
	close(): void {
		this.#open = false;
	}

	/** Commits; of a savepoint: releases it. Never rejects. */
	async commit(): Promise<Ending> {
		const { dialect } = this.database;
		try {
			const answer: unknown = await this.session.within(
				COMMIT_MS,
				(async () => {
					const told: unknown = await this.#handle?.commit();
					await this.#handle?.trx.executionPromise;
					return told;
				})(),
			);
			if (this.#parent || dialect.committed(answer) !== false) return { state: "committed" };
			return { state: "unclear", error: this.#unclear("a statement in it had failed") };
		} catch (error) {
			this.session.failed(error);
			return { state: "unclear", error: this.#unclear(plainMessage(error), error) };
		}
	}

	/**
	 * Rolls back, or drops the connection, which comes to the same. Never rejects.
	 * @returns whether the database answered
	 */
	async rollback(): Promise<boolean> {
		if (this.session.isBroken) return false;
		try {
			await this.session.within(ROLLBACK_MS, this.#rollBack());
			return true;
		} catch {
			this.session.destroy();
			return false;
		}
	}

	/** Tells what the outermost transaction came to. */
	conclude(ending: Ending): void {
		this.#conclude(ending);
	}

	async #rollBack(): Promise<void> {
		if (this.#handle) {
			await this.#handle.rollback();
			await this.#handle.trx.executionPromise;
		} else if (this.#begun) {
			await this.session.query("ROLLBACK");
		}
	}

	/** Takes the transaction that has begun; from now on only Lottor ends it. */
	#adopt(trx: Knex.Transaction): void {
		this.#session = this.#session.inside(trx);
		this.#handle = { trx, commit: trx.commit.bind(trx), rollback: trx.rollback.bind(trx) };
		const refuse = () => {
			throw new LottorError(
				"LOTTOR_INVALID_REQUEST",
				"Lottor ends this transaction: return from the work to commit, throw to roll back",
				{ group: this.group },
			);
		};
		Object.assign(trx, { commit: refuse, rollback: refuse });
		this.#watch(trx);
	}

	#unclear(why: string, cause?: unknown): LottorError {
		return new LottorError(
			"LOTTOR_STORE_UNAVAILABLE",
			`${this.database.place}: COMMIT did not return success, what stands is not known (${why})`,
			{ group: this.group },
			cause instanceof LottorError ? cause : undefined,
		);
	}

	/** Sees when the database ends the transaction: what came after it would not be part of it. */
	#watch(trx: Knex.Transaction): void {
		const { dialect } = this.database;
		const { connection } = this.session;
		trx.on("query-error", (error: unknown) => {
			if (dialect.endedBy({ error }, connection))
				this.#lose("rolledBack", plainMessage(error));
		});
		trx.on("query-response", (_: unknown, query: { response?: unknown }) => {
			const { response } = query;
			if (!trx.isCompleted() && dialect.endedBy({ response }, connection)) {
				this.#lose("unclear", "a statement that can't be part of one has committed it");
			}
		});
	}

	#lose(state: "rolledBack" | "unclear", why: string): void {
		const text = `The database has ended the transaction by itself: ${why}`;
		const error = new LottorError("LOTTOR_TX_CLOSED", text, { group: this.group });
		this.#lost ??= { state, error };
	}
}

/** Begins a savepoint in the transaction, once its other savepoints have ended. */
export async function nest(parent: KnexTransaction, group: string): Promise<KnexTransaction> {
	const tx = new KnexTransaction(parent.database, parent.session, group, parent);
	await tx.beginIn(parent);
	return tx;
}

/** Knex's handle of a transaction that has begun on the connection already. */
function begunTransaction(knex: Knex, connection: unknown): Promise<Knex.Transaction> {
	return new Promise((resolve, reject) => {
		const made: Promise<unknown> & { begin?: () => Promise<void> } = knex.transaction(
			(trx) => resolve(trx),
			{ connection },
		);
		// Called in a later turn. Were it not, the server would take a second BEGIN and only warn.
		made.begin = () => Promise.resolve();
		made.catch(reject);
	});
}
