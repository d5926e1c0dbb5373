import type pg from "pg";

import { CommandError } from "./faults.ts";

const SECOND = 1_000;
const CURSOR_MS = 600 * SECOND;

/** A statement of a transaction waits this long for a lock; then it is a write conflict, as in MongoDB. */
const LOCK_TIMEOUT = "20ms";

interface Transaction {
	readonly number: number;
	/** Undefined once it was aborted. */
	client: pg.PoolClient | undefined;
	readonly timer: NodeJS.Timeout;
}

/** The transactions of all clients, each on a connection of its own. */
export class Transactions {
	readonly #pool: pg.Pool;
	readonly #open = new Map<string, Transaction>();
	/** As MongoDB's own parameter `transactionLifetimeLimitSeconds`: those whose client died end by it. */
	lifetimeLimitSeconds = 60;

	constructor(pool: pg.Pool) {
		this.#pool = pool;
	}

	async begin(session: string, number: number): Promise<pg.PoolClient> {
		await this.end(session, "ROLLBACK").catch(() => undefined);
		const client = await this.#pool.connect();
		await client.query(
			`BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = '${LOCK_TIMEOUT}'`,
		);
		const timer = setTimeout(() => {
			this.end(session, "ROLLBACK").catch(() => undefined);
		}, this.lifetimeLimitSeconds * SECOND);
		timer.unref();
		this.#open.set(session, { number, client, timer });
		return client;
	}

	/** @throws NoSuchTransaction when it is not open */
	clientOf(session: string, number: number): pg.PoolClient {
		const transaction = this.#open.get(session);
		if (transaction?.number === number && transaction.client) return transaction.client;
		throw noTransaction();
	}

	/** @throws NoSuchTransaction when it is not open */
	async commit(session: string, number: number): Promise<void> {
		this.clientOf(session, number);
		await this.end(session, "COMMIT");
	}

	/** Ends what the session has open, if anything. */
	async end(session: string, how: "COMMIT" | "ROLLBACK"): Promise<void> {
		const transaction = this.#open.get(session);
		if (!transaction?.client) return;
		const { client } = transaction;
		clearTimeout(transaction.timer);
		transaction.client = undefined;
		this.#open.delete(session);
		try {
			await client.query(how);
			client.release();
		} catch (error) {
			client.release(true);
			throw error;
		}
	}
}

function noTransaction(): CommandError {
	return new CommandError(251, "NoSuchTransaction", "the transaction is not open", [
		"TransientTransactionError",
	]);
}

interface Cursor {
	continuation: Buffer;
	/** The connection that holds it; undefined where any will do. */
	readonly held: pg.PoolClient | undefined;
	readonly timer: NodeJS.Timeout;
}

/** Cursors with more to give. */
export class Cursors {
	readonly #open = new Map<bigint, Cursor>();
	#last = 0n;

	next(): bigint {
		return ++this.#last;
	}

	keep(id: bigint, continuation: Buffer, held: pg.PoolClient | undefined): void {
		const timer = setTimeout(() => this.drop(id), CURSOR_MS);
		timer.unref();
		this.#open.set(id, { continuation, held, timer });
	}

	/** @throws CursorNotFound */
	get(id: bigint): Cursor {
		const cursor = this.#open.get(id);
		if (cursor) return cursor;
		throw new CommandError(43, "CursorNotFound", `cursor id ${id} not found`);
	}

	drop(id: bigint): void {
		const cursor = this.#open.get(id);
		if (!cursor) return;
		clearTimeout(cursor.timer);
		this.#open.delete(id);
		cursor.held?.query("CLOSE ALL").then(
			() => cursor.held?.release(),
			() => cursor.held?.release(true),
		);
	}
}
