import { AsyncLocalStorage } from "node:async_hooks";

import { LottorError } from "../../../protocol/index.ts";
import type { OneWriterDialect } from "./dialect.ts";

/** What Lottor, as Knex's own transactions, uses of a Knex client. */
export interface KnexClient {
	acquireConnection(): Promise<unknown>;
	releaseConnection(connection: unknown): Promise<void>;
	/** Makes a connection that the pool knows nothing of. */
	acquireRawConnection(): Promise<unknown>;
	destroyRawConnection(connection: unknown): unknown;
}

/** A connection while somebody has it. */
export interface Taken {
	readonly connection: unknown;
	giveBack(): void;
}

/** The transaction that code runs inside of. */
interface Inside {
	readonly client: KnexClient;
	readonly tx: { readonly isOpen: boolean };
	readonly outer: Inside | undefined;
}

const works = new AsyncLocalStorage<Inside>();
/** Clients that refuse what would wait for itself, and how many stores want that. */
const guarded = new WeakMap<KnexClient, { holders: number; lift(): void }>();

/**
 * A Knex client whose pool has one connection, the only one of this process that writes to its file
 * (R12). The pool is the lock: the service's own statements wait for it as Lottor's do. Reads of
 * Lottor's own have a connection beside it, which sees what is committed and waits for nobody.
 */
export class OneWriter {
	readonly #client: KnexClient;
	readonly #dialect: OneWriterDialect;
	#reader: Promise<unknown> | undefined;

	/** @param place where the database is, for errors */
	constructor(client: KnexClient, dialect: OneWriterDialect, place: string) {
		this.#client = client;
		this.#dialect = dialect;
		guard(client, place);
	}

	/**
	 * Takes the connection, whose statements then wait for no lock.
	 *
	 * @param detached no transaction that is open waits for what it is taken for
	 * @throws LOTTOR_STORE_BUSY when it would be waited for inside of the transaction that has it
	 */
	async take(detached: boolean): Promise<Taken> {
		const client = this.#client;
		const acquire = () => client.acquireConnection();
		const connection = await (detached ? works.exit(acquire) : acquire());
		const patient = this.#dialect.impatient(connection);
		const giveBack = () => {
			patient();
			void client.releaseConnection(connection);
		};
		return { connection, giveBack };
	}

	/** The connection for reads. */
	async reader(): Promise<unknown> {
		this.#reader ??= this.#openReader();
		const opening = this.#reader;
		try {
			return await opening;
		} catch (error) {
			if (this.#reader === opening) this.#reader = undefined;
			throw error;
		}
	}

	/** Has the next read make a connection anew, when the one that is kept is this one. */
	async forgetReader(connection: unknown): Promise<void> {
		const kept = this.#reader;
		if ((await kept?.catch(() => undefined)) === connection && this.#reader === kept) {
			this.#reader = undefined;
		}
	}

	/** Runs `fn`, so that what it starts is known to be inside of the transaction. */
	enter<T>(tx: { readonly isOpen: boolean }, fn: () => T): T {
		return works.run({ client: this.#client, tx, outer: works.getStore() }, fn);
	}

	/** Leaves the client as it was. */
	async close(): Promise<void> {
		unguard(this.#client);
		const reader = this.#reader;
		this.#reader = undefined;
		const connection = await reader?.catch(() => undefined);
		if (connection !== undefined) await this.#client.destroyRawConnection(connection);
	}

	async #openReader(): Promise<unknown> {
		const connection = await this.#client.acquireRawConnection();
		this.#dialect.impatient(connection);
		this.#dialect.readOnly(connection);
		return connection;
	}
}

/** A work that asks the service's Knex for the connection that it has itself would wait for ever. */
function guard(client: KnexClient, place: string): void {
	const known = guarded.get(client);
	if (known) {
		known.holders++;
		return;
	}
	const acquire = client.acquireConnection.bind(client);
	const guarding = (): Promise<unknown> =>
		isInside(client) ? Promise.reject(waitsForItself(place)) : acquire();
	client.acquireConnection = guarding;
	const lift = () => {
		// Knex's own is its prototype's.
		if (client.acquireConnection === guarding)
			Reflect.deleteProperty(client, "acquireConnection");
	};
	guarded.set(client, { holders: 1, lift });
}

function unguard(client: KnexClient): void {
	const known = guarded.get(client);
	if (!known || --known.holders > 0) return;
	guarded.delete(client);
	known.lift();
}

function isInside(client: KnexClient): boolean {
	for (let inside = works.getStore(); inside; inside = inside.outer) {
		if (inside.client === client && inside.tx.isOpen) return true;
	}
	return false;
}

function waitsForItself(place: string): LottorError {
	return new LottorError(
		"LOTTOR_STORE_BUSY",
		`${place}: a statement inside an open transaction of the same database would wait for itself; use \`tx.trx\``,
		{ place },
	);
}
