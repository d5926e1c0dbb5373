import type { ClientSession, Db } from "mongodb";

import { LottorError, messageOf } from "../../../protocol/index.ts";
import type { TxBase } from "../contract.ts";
import type { Ending, Lost, OpenTransaction } from "../transactional.ts";
import { within } from "../within.ts";
import { DURABLE, type MongoDatabase } from "./database.ts";
import type { Document, MongoDbLike, MongoSessionLike } from "./driver.ts";
import { isDriverError, trouble } from "./faults.ts";

/** How long COMMIT may take, the driver's own repeat included, before what stands is read. Milliseconds. */
const COMMIT_MS = 10_000;
/** How long a rollback may take before the server is left to do it by itself. Milliseconds. */
const ROLLBACK_MS = 1_000;

/**
 * The handle of a work's transaction. Using it throws LOTTOR_TX_CLOSED once the transaction has
 * ended or its time limit has passed.
 */
export interface MongoTx extends TxBase {
	/** For every operation of the work: `users.insertOne(doc, { session: tx.session })`. Lottor ends it. */
	readonly session: ClientSession;
	/** The store's database, on the client that the session belongs to. */
	readonly db: Db;
}

/** A transaction, or a work nested in one. */
export class MongoTransaction implements MongoTx, OpenTransaction {
	readonly group: string;
	readonly database: MongoDatabase;
	/** What the outermost transaction came to. Never rejects. */
	readonly ended: Promise<Ending>;
	readonly #parent: MongoTransaction | undefined;
	readonly #session: MongoSessionLike;
	readonly #db: MongoDbLike;
	readonly #own: Pick<MongoSessionLike, "commitTransaction" | "abortTransaction" | "endSession">;
	#conclude: (ending: Ending) => void = () => undefined;
	#open = true;
	#lost: Lost | undefined;
	/** The last nested work: they run one after the other, as the driver demands. */
	#turn: Promise<unknown> = Promise.resolve();
	#endTurn: () => void = () => undefined;

	/** Begins one. Use {@link nest} for a nested work. */
	constructor(database: MongoDatabase, group: string, parent?: MongoTransaction) {
		this.database = database;
		this.group = group;
		this.#parent = parent;
		this.ended = parent?.ended ?? new Promise((resolve) => (this.#conclude = resolve));
		if (parent) {
			this.#session = parent.#session;
			this.#db = parent.#db;
			this.#own = parent.#own;
			return;
		}
		const { client, db } = database.opened;
		const session = client.startSession({ causalConsistency: false });
		this.#session = session;
		this.#db = db;
		this.#own = {
			commitTransaction: session.commitTransaction.bind(session),
			abortTransaction: session.abortTransaction.bind(session),
			endSession: session.endSession.bind(session),
		};
		this.#start();
		const refuse = () => {
			throw new LottorError(
				"LOTTOR_INVALID_REQUEST",
				"Lottor ends this transaction: return from the work to commit, throw to roll back",
				{ group },
			);
		};
		Object.assign(session, {
			commitTransaction: refuse,
			abortTransaction: refuse,
			endSession: refuse,
		});
	}

	get session(): ClientSession {
		this.#mustBeOpen();
		return this.#session as unknown as ClientSession;
	}

	get db(): Db {
		this.#mustBeOpen();
		return this.#db as unknown as Db;
	}

	get isOpen(): boolean {
		return this.#open && !this.#lost && (this.#parent?.isOpen ?? true);
	}

	/** How the transaction has ended already, if it has. */
	get lost(): Lost | undefined {
		return this.#lost ?? this.#parent?.lost;
	}

	/** Runs a command of Lottor's own inside. */
	command(command: Document): Promise<Document> {
		return this.database.command(command, { session: this.#session, runner: this.#db });
	}

	/** Begins anew after a command that failed has ended it; only while nothing else was done in it. */
	async restart(): Promise<void> {
		await this.#abort();
		this.#start();
	}

	/** Begins a nested work, once those before it have ended. */
	async nest(group: string): Promise<MongoTransaction> {
		const before = this.#turn;
		const nested = new MongoTransaction(this.database, group, this);
		this.#turn = new Promise<void>((resolve) => (nested.#endTurn = resolve));
		await before;
		nested.#mustBeOpen();
		return nested;
	}

	/** Ends the handle: nothing more can be done through it. */
	close(): void {
		this.#open = false;
		if (this.#parent) return;
		// Whoever kept the session would write outside of any transaction after its end; like this,
		// what comes late belongs to the ended one, and the server refuses it.
		Object.assign(this.#session, { inTransaction: () => true });
	}

	/** Commits; a nested work commits with the outermost. Never rejects. */
	async commit(): Promise<Ending> {
		if (this.#parent) {
			this.#endTurn();
			return { state: "committed" };
		}
		try {
			await within(this.database, COMMIT_MS, this.#own.commitTransaction());
			return { state: "committed" };
		} catch (error) {
			const text = `${this.database.place}: COMMIT did not return success, what stands is not known (${messageOf(error)})`;
			const unclear = new LottorError("LOTTOR_STORE_UNAVAILABLE", text, {
				group: this.group,
			});
			return { state: "unclear", error: unclear };
		}
	}

	/**
	 * Rolls back. MongoDB can't do that with a nested work alone: then the outermost transaction can
	 * only be rolled back as well. Never rejects.
	 *
	 * @returns whether the database answered
	 */
	async rollback(cause: unknown): Promise<boolean> {
		if (this.#parent) {
			this.#parent.#lose(cause);
			this.#endTurn();
			return true;
		}
		this.close();
		const answered = await this.#abort();
		return answered && !(isDriverError(cause) && trouble(cause) === "gone");
	}

	/** Tells what the outermost transaction came to. */
	conclude(ending: Ending): void {
		this.#conclude(ending);
	}

	/** Gives the session back. */
	release(): void {
		// It would abort what is over; it ends in the same turn, so that nothing slips in between.
		Object.assign(this.#session, { inTransaction: () => false });
		const ended = async () => this.#own.endSession();
		ended().catch(() => undefined);
	}

	#start(): void {
		this.#session.startTransaction({
			readConcern: { level: "snapshot" },
			writeConcern: { w: DURABLE.w, j: DURABLE.j },
			readPreference: "primary",
		});
	}

	/** The driver tells no error of an abort: a server that did not get it aborts by itself. */
	async #abort(): Promise<boolean> {
		try {
			await within(this.database, ROLLBACK_MS, this.#own.abortTransaction());
			return true;
		} catch {
			return false;
		}
	}

	#lose(cause: unknown): void {
		const text = `A work nested in this transaction has failed, and MongoDB can only roll back the whole: ${messageOf(cause)}`;
		const error = new LottorError(
			"LOTTOR_TX_CLOSED",
			text,
			{ group: this.group },
			cause instanceof Error ? cause : undefined,
		);
		this.#lost ??= { state: "rolledBack", error };
		if (this.#parent) this.#parent.#lose(cause);
	}

	#mustBeOpen(): void {
		const { lost } = this;
		if (lost) throw lost.error;
		if (this.isOpen) return;
		throw new LottorError(
			"LOTTOR_TX_CLOSED",
			"The transaction has ended (commit, rollback or time limit): its handle can't be used",
			{ group: this.group },
		);
	}
}
