import {
	type Clock,
	LottorError,
	newStoreId,
	type Outcome,
	type Random,
} from "../../../protocol/index.ts";
import type { RowBackend } from "../backend.ts";
import type { UnsettledMessage } from "../contract.ts";
import { type InboxRow, isId, type OutcomeRow, SHORT_WAIT_MS } from "../rules.ts";
import { StoreClock } from "../../store-clock.ts";
import { type Waiting, within } from "../within.ts";
import type { Document, MongoDbLike, MongoSessionLike } from "./driver.ts";
import { isNotFound, mustHaveWritten, openError, storeError, trouble, unusable } from "./faults.ts";
import {
	INBOX,
	inboxDocument,
	INDEXES,
	inboxOf,
	outcomeDocument,
	outcomeOf,
	OUTCOMES,
	PARTICIPANT,
	text,
	unchanged,
} from "./rows.ts";
import type { OpenedMongo } from "./source.ts";
import { checkServer } from "./server.ts";

/** Version of the documents. A database with a higher one is refused. */
const SCHEMA = 1;
/** A command of Lottor's own that takes longer was lost on the way. Milliseconds. */
const COMMAND_MS = 4_000;
/** Most documents that one command names. */
const CHUNK = 500;
/** How often a compare-and-set is tried that somebody else was faster at. */
const TRIES = 100;

/** Nothing is acknowledged that a failover or a crash could take back. */
export const DURABLE = { w: "majority", j: true, wtimeout: COMMAND_MS - 500 } as const;
const SETTLED_READ = { level: "majority" } as const;

/** What the stores on MongoDB are made with. */
export interface MongoStoreOptions {
	readonly clock: Clock;
	readonly random: Random;
	/** The time that rows get. For tests. @default the server's */
	readonly now?: () => number;
}

/** Where a command runs: in a transaction, or by itself. */
interface CommandPlace {
	readonly session?: MongoSessionLike;
	/** The database on the session's client. */
	readonly runner?: MongoDbLike;
	/** Another database. */
	readonly db?: string;
}

/** Lottor's collections in the service's database: what the transactional and the recorded store share. */
export abstract class MongoDatabase implements Waiting, RowBackend {
	readonly opened: OpenedMongo;
	readonly place: string;
	readonly #options: MongoStoreOptions;
	readonly #time: StoreClock;

	constructor(opened: OpenedMongo, place: string, options: MongoStoreOptions) {
		this.opened = opened;
		this.place = place;
		this.#options = options;
		this.#time = new StoreClock(options.clock, async () => {
			const { localTime } = await this.command({ hello: 1 }, { db: "admin" });
			return Number(localTime);
		});
	}

	abstract readonly description: string;

	get clock(): Clock {
		return this.#options.clock;
	}

	/** The time of the rows, milliseconds since 1970. */
	now(): number {
		return this.#options.now?.() ?? this.#time.now();
	}

	/** Checks the server and makes the collections and their indexes. */
	async open(): Promise<{ readonly storeId: string }> {
		try {
			await checkServer(this);
			for (const { collection, name, key } of INDEXES) {
				const indexes = [{ name, key }];
				await this.command({ createIndexes: collection, indexes, writeConcern: DURABLE });
			}
			const storeId = await this.#name();
			if (!this.#options.now) await this.#time.measure();
			return { storeId };
		} catch (error) {
			throw openError(this.place, error);
		}
	}

	/** The client is closed by whoever opened it. */
	async close(): Promise<void> {}

	/**
	 * Runs a command at the primary.
	 * @throws LOTTOR_STORE_UNAVAILABLE when it may or may not have happened; else the driver's error
	 */
	async command(
		command: Document,
		{ session, runner, db }: CommandPlace = {},
	): Promise<Document> {
		const { opened } = this;
		const target = runner ?? (db === undefined ? opened.db : opened.client.db(db));
		const running = target.command(command, {
			readPreference: "primary",
			...(session && { session }),
		});
		try {
			const answer = await within(this, COMMAND_MS, running);
			mustHaveWritten(answer);
			return answer;
		} catch (error) {
			if (isNotFound(error)) this.opened.notFound();
			throw error;
		}
	}

	/** Runs a command, with the errors that callers get. */
	async call(command: Document): Promise<Document> {
		try {
			return await this.command(command);
		} catch (error) {
			throw storeError(this.place, error);
		}
	}

	/** Runs a write, which waits shortly for a transaction that has the document. @returns how many */
	async write(command: Document): Promise<number> {
		const answer = await this.call({
			...command,
			maxTimeMS: SHORT_WAIT_MS,
			writeConcern: DURABLE,
		});
		return Number(answer["n"]);
	}

	async outcomes(ids: readonly unknown[]): Promise<(OutcomeRow | undefined)[]> {
		return this.#byId(OUTCOMES, ids, outcomeOf);
	}

	/** @returns whether there was none yet */
	async addOutcome(row: OutcomeRow): Promise<boolean> {
		return this.#add(OUTCOMES, outcomeDocument(row));
	}

	async endOutcome(id: string, to: Outcome, at: number): Promise<boolean> {
		if (!isId(id)) return false;
		const set = { state: to, node: null, instance: null, at };
		return (await this.#update(OUTCOMES, { _id: id, state: "started" }, { $set: set })) === 1;
	}

	async confirm(ids: readonly unknown[]): Promise<void> {
		for (const chunk of chunks(ids.filter(isId))) {
			const open = { _id: { $in: chunk }, confirmed: false, state: { $ne: "started" } };
			await this.#update(OUTCOMES, open, { $set: { confirmed: true } }, true);
		}
	}

	async unconfirmed(before: number, limit: number) {
		const filter = { confirmed: false, at: { $lt: before }, state: "committed" };
		const found = await this.#find(OUTCOMES, filter, { sort: { confirmed: 1, at: 1 }, limit });
		return found.map(({ _id, coordinator }) => ({
			id: text(_id),
			coordinator: text(coordinator),
		}));
	}

	async inbox(ids: readonly unknown[]): Promise<(InboxRow | undefined)[]> {
		return this.#byId(INBOX, ids, inboxOf);
	}

	/** @returns whether there was none yet */
	async addInbox(row: InboxRow): Promise<boolean> {
		return this.#add(INBOX, inboxDocument(row));
	}

	/** @returns whether it stood unchanged */
	async swapInbox(before: InboxRow, after: InboxRow): Promise<boolean> {
		return (await this.#update(INBOX, unchanged(before), inboxDocument(after))) === 1;
	}

	/**
	 * Replaces the inbox row by what `next` makes of it.
	 * @throws LOTTOR_STORE_BUSY when others always were faster, or have it in a transaction
	 */
	async changeInbox(
		id: string,
		next: (before: InboxRow | undefined) => InboxRow | undefined,
	): Promise<void> {
		for (let tried = 0; tried < TRIES; tried++) {
			const [before] = await this.inbox([id]);
			const after = next(before);
			if (!after) return;
			const done = before ? this.swapInbox(before, after) : this.addInbox(after);
			if (await done) return;
		}
		throw new LottorError("LOTTOR_STORE_BUSY", `${this.place}: message ${id} is in use`);
	}

	async settle(reports: readonly { readonly id: string; readonly attempt: number }[]) {
		const byAttempt = new Map<number, string[]>();
		for (const { id, attempt } of reports) {
			if (!isId(id) || !Number.isSafeInteger(attempt)) continue;
			byAttempt.set(attempt, [...(byAttempt.get(attempt) ?? []), id]);
		}
		for (const [attempt, ids] of byAttempt) {
			for (const chunk of chunks(ids)) {
				const open = {
					_id: { $in: chunk },
					settled: false,
					attempt: { $lte: attempt },
					state: { $in: ["consumed", "failed"] },
				};
				await this.#update(INBOX, open, { $set: { settled: true } }, true);
			}
		}
	}

	async unsettled(before: number, limit: number): Promise<UnsettledMessage[]> {
		const filter = { settled: false, at: { $lt: before }, state: "consumed" };
		const found = await this.#find(INBOX, filter, { sort: { settled: 1, at: 1 }, limit });
		return found.map(inboxOf).map(({ id, attempt, revision, receipt, coordinator }) => ({
			id,
			attempt,
			revision,
			receipt,
			coordinator,
		}));
	}

	async purge(before: number, limit: number): Promise<number> {
		const outcomes = await this.#purge(OUTCOMES, "confirmed", before, limit);
		if (outcomes >= limit) return outcomes;
		return outcomes + (await this.#purge(INBOX, "settled", before, limit - outcomes));
	}

	async #purge(collection: string, done: string, before: number, limit: number) {
		const old = { [done]: true, at: { $lt: before } };
		const found = await this.#find(collection, old, {
			sort: { [done]: 1, at: 1 },
			projection: { _id: 1 },
			limit,
		});
		let deleted = 0;
		for (const chunk of chunks(found.map(({ _id }) => text(_id)))) {
			const deletes = [{ q: { _id: { $in: chunk }, ...old }, limit: 0 }];
			deleted += await this.write({ delete: collection, deletes });
		}
		return deleted;
	}

	async #add(collection: string, document: Document): Promise<boolean> {
		try {
			await this.write({ insert: collection, documents: [document] });
			return true;
		} catch (error) {
			if (trouble(error) === "duplicate") return false;
			throw error;
		}
	}

	#update(collection: string, q: Document, u: Document, multi = false): Promise<number> {
		return this.write({ update: collection, updates: [{ q, u, multi }] });
	}

	/** Reads what a majority has, so that no failover can take it back. */
	async #find(collection: string, filter: Document, more: Document): Promise<Document[]> {
		const answer = await this.call({
			find: collection,
			filter,
			...more,
			singleBatch: true,
			batchSize: more["limit"],
			readConcern: SETTLED_READ,
		});
		const { firstBatch } = answer["cursor"] as { firstBatch: Document[] };
		return firstBatch;
	}

	async #byId<T extends { readonly id: string }>(
		collection: string,
		ids: readonly unknown[],
		read: (document: Document) => T,
	): Promise<(T | undefined)[]> {
		const found = new Map<unknown, T>();
		for (const chunk of chunks(ids.filter(isId))) {
			// Equality where it will do: some engines search a list by looking at every document.
			const filter = { _id: chunk.length === 1 ? chunk[0] : { $in: chunk } };
			const documents = await this.#find(collection, filter, { limit: chunk.length });
			for (const row of documents.map(read)) found.set(row.id, row);
		}
		return ids.map((id) => found.get(id));
	}

	/** @returns the storeId, made the first time */
	async #name(): Promise<string> {
		const made = newStoreId(this.#options.random);
		await this.#add(PARTICIPANT, { _id: "store", version: SCHEMA, store: made });
		const [named] = await this.#find(PARTICIPANT, { _id: "store" }, { limit: 1 });
		if (!named) {
			const text = `${this.place} does not show yet what was written`;
			throw new LottorError("LOTTOR_STORE_UNAVAILABLE", text, { place: this.place });
		}
		if (Number(named["version"]) === SCHEMA) return text(named["store"]);
		throw unusable(
			this.place,
			`its participant collections have version ${String(named["version"])}, this one knows ${SCHEMA}; install the version of Lottor that made them, or a newer one`,
		);
	}
}

function* chunks(ids: readonly string[]): Generator<string[]> {
	const unique = [...new Set(ids)];
	for (let from = 0; from < unique.length; from += CHUNK) yield unique.slice(from, from + CHUNK);
}
