import type { Knex } from "knex";

import {
	type Clock,
	hasCode,
	limited,
	LottorError,
	newStoreId,
	type Outcome,
	type Random,
} from "../../../protocol/index.ts";
import { openedElsewhere } from "../../sqlite/index.ts";
import { StoreClock } from "../../store-clock.ts";
import { type InboxRow, isId, type OutcomeRow, SHORT_WAIT_MS } from "../rules.ts";
import { within } from "../within.ts";
import type { UnsettledMessage } from "../contract.ts";
import type { Dialect, Row } from "./dialect.ts";
import type { KnexClient, OneWriter, Taken } from "./one-writer.ts";
import { inboxOf, inboxValues, outcomeOf, outcomeValues, text } from "../sql-rows.ts";
import { SQL } from "./statements.ts";
import { plainMessage, Session, type SessionHost, storeError } from "./session.ts";
import { type KnexSource, openSource, type OpenedSource } from "./source.ts";

/** Version of the tables. A database with a higher one is refused. */
export const SCHEMA = 1;

/** How long a connection may take to come. Milliseconds. */
const CONNECT_MS = 4_000;
/** How long the only writer is waited for by what can't be put off. Milliseconds. */
export const LOCK_MS = 10_000;
/** Most rows that one statement names. */
const CHUNK = 500;

/** What the stores on Knex are made with. */
export interface KnexStoreOptions {
	readonly clock: Clock;
	readonly random: Random;
	/** The time that rows get. For tests. @default the database server's */
	readonly now?: () => number;
}

/** Lottor's tables in the service's database: what the transactional and the recorded store share. */
export class KnexDatabase implements SessionHost {
	readonly #source: KnexSource;
	readonly #options: KnexStoreOptions;
	readonly #time: StoreClock;
	#opened: OpenedSource | undefined;
	/** Connections that somebody has. */
	readonly #held = new Map<unknown, Taken>();
	/** Connections of the only writer that were looked at. */
	readonly #sound = new WeakSet<object>();
	/** Ends the claim to the file, where the database is one. */
	#leaveFile: (() => void) | undefined;

	constructor(source: KnexSource, options: KnexStoreOptions) {
		this.#source = source;
		this.#options = options;
		this.#time = new StoreClock(options.clock, async () => {
			const { rows } = await this.read((one) => one.query(this.dialect.time));
			return Number(rows[0]?.["now"]);
		});
	}

	get place(): string {
		return this.#source.place;
	}

	get dialect(): Dialect {
		return this.#open.dialect;
	}

	get clock(): Clock {
		return this.#options.clock;
	}

	get knex(): Knex {
		return this.#open.knex;
	}

	/** The time of the rows, milliseconds since 1970. */
	now(): number {
		return this.#options.now?.() ?? this.#time.now();
	}

	/** Opens the database and makes its tables. */
	async open(): Promise<{ readonly storeId: string }> {
		this.#opened ??= await openSource(this.#source);
		try {
			const storeId = await this.#prepare();
			if (!this.#options.now) await this.#time.measure();
			return { storeId };
		} catch (error) {
			const reported = this.#openError(error);
			// One that can't be reached yet may be the service's own way to its data.
			if (!hasCode(reported, "LOTTOR_STORE_UNAVAILABLE")) await this.close();
			throw reported;
		}
	}

	async close(): Promise<void> {
		const opened = this.#opened;
		this.#opened = undefined;
		await opened?.close();
		this.#leaveFile?.();
		this.#leaveFile = undefined;
	}

	/** Where there is one writer: it. */
	get writer(): OneWriter | undefined {
		return this.#open.writer;
	}

	/** Runs `fn` with a connection of its own; again where it met a lock that is waited for. */
	async session<T>(fn: (session: Session) => Promise<T>, wait = LOCK_MS): Promise<T> {
		const session = await this.#acquire(true, wait);
		try {
			return await session.patiently(() => fn(session));
		} finally {
			this.giveBack(session);
		}
	}

	/** Runs `fn`, which only reads what is committed: where there is one writer, it waits for no work. */
	async read<T>(fn: (session: Session) => Promise<T>): Promise<T> {
		const { writer } = this.#open;
		if (!writer) return this.session(fn);
		const session = await this.#reader(writer);
		try {
			return await session.patiently(() => fn(session));
		} finally {
			if (session.isBroken) await writer.forgetReader(session.connection);
		}
	}

	/**
	 * Takes a connection for a transaction of the service, for {@link giveBack}.
	 * @throws LOTTOR_STORE_BUSY where there is one writer, and it was not free in time, or is waited
	 *   for inside of the transaction that has it
	 */
	acquireForWork(): Promise<Session> {
		return this.#acquire(false, LOCK_MS);
	}

	/** Waits until the transaction that is open on the connection is the writer, where there is one. */
	async lock(session: Session): Promise<void> {
		const { oneWriter } = this.dialect;
		if (oneWriter) await session.patiently(() => oneWriter.lock(session.connection));
	}

	/** Also while it is being closed, which waits for what is held. */
	giveBack(session: Session): void {
		const { connection } = session;
		// One that could not be rolled back would take in what others write on it.
		if (this.#opened?.dialect.oneWriter?.isInTransaction(connection)) session.destroy();
		this.#held.get(connection)?.giveBack();
		this.#held.delete(connection);
	}

	async #reader(writer: OneWriter): Promise<Session> {
		const until = this.clock.now() + LOCK_MS;
		try {
			return new Session(this, this.knex, await writer.reader(), until);
		} catch (error) {
			throw storeError(this, error);
		}
	}

	async #acquire(detached: boolean, wait: number): Promise<Session> {
		const { knex, writer } = this.#open;
		const until = this.clock.now() + wait;
		let late = false;
		const timeoutError = () => {
			late = true;
			const text = `${this.place}: its only connection was not free in time`;
			return new LottorError("LOTTOR_STORE_BUSY", text, { place: this.place });
		};
		const taking = writer ? writer.take(detached) : take(knex.client as KnexClient);
		try {
			const taken = await (writer
				? limited(this.clock, { timeout: wait, timeoutError }, taking)
				: within(this, CONNECT_MS, taking, () => (late = true)));
			this.#held.set(taken.connection, taken);
			const session = new Session(this, knex, taken.connection, writer && until);
			this.#mustBeSound(session);
			return session;
		} catch (error) {
			if (late) taking.then((taken) => taken.giveBack()).catch(() => undefined);
			throw storeError(this, error);
		}
	}

	/**
	 * Runs `fn` in a transaction of Lottor's own, READ COMMITTED, that waits shortly for locks.
	 * @param how what the transaction ends with; how long the only writer is waited for, in milliseconds
	 * @throws LOTTOR_STORE_BUSY when a lock was not free in time; nothing of it stands then
	 */
	async change<T>(
		fn: (session: Session) => Promise<T>,
		{ end = "COMMIT", wait = SHORT_WAIT_MS } = {},
	): Promise<T> {
		return this.session(async (session) => {
			const { dialect } = this;
			try {
				await session.patiently(() => dialect.beginShort(session));
				const value = await fn(session);
				await session.query(end);
				await dialect.endShort(session);
				return value;
			} catch (error) {
				await this.#undo(session);
				throw error;
			}
		}, wait);
	}

	async outcomes(ids: readonly unknown[]): Promise<(OutcomeRow | undefined)[]> {
		return this.#byId(ids, SQL.outcomes, outcomeOf);
	}

	/** @returns whether there was none yet */
	async addOutcome(session: Session, row: OutcomeRow): Promise<boolean> {
		try {
			const { count } = await session.query(this.dialect.insertOutcome, outcomeValues(row));
			return count === 1;
		} catch (error) {
			if (this.dialect.trouble(error) === "duplicate") return false;
			throw error;
		}
	}

	async endOutcome(id: string, to: Outcome, at: number): Promise<boolean> {
		if (!isId(id)) return false;
		const { count } = await this.session((one) => one.query(SQL.endOutcome, [to, at, id]));
		return count === 1;
	}

	async confirm(ids: readonly unknown[]): Promise<void> {
		for (const chunk of chunks(ids.filter(isId))) {
			await this.session((one) => one.query(SQL.confirm(chunk.length), chunk));
		}
	}

	async unconfirmed(before: number, limit: number) {
		const { rows } = await this.read((one) => one.query(SQL.unconfirmed, [before, limit]));
		return rows.map((row) => ({ id: text(row["id"]), coordinator: text(row["coordinator"]) }));
	}

	async inbox(ids: readonly unknown[]): Promise<(InboxRow | undefined)[]> {
		return this.#byId(ids, SQL.inbox, inboxOf);
	}

	/** The row as it stands, locked until the transaction ends. */
	async lockInbox(session: Session, id: string): Promise<InboxRow | undefined> {
		const { rows } = await session.query(SQL.lockInbox + this.dialect.forUpdate, [id]);
		return rows[0] && inboxOf(rows[0]);
	}

	/** @returns whether there was none yet */
	addInbox(session: Session, row: InboxRow): Promise<boolean> {
		return this.dialect.insertInbox(session, inboxValues(row));
	}

	/** Writes over the row, which {@link lockInbox} has locked. */
	async replaceInbox(session: Session, row: InboxRow): Promise<void> {
		await session.query(SQL.replaceInbox, [...inboxValues(row), row.id]);
	}

	async settle(reports: readonly { readonly id: string; readonly attempt: number }[]) {
		const byAttempt = new Map<number, string[]>();
		for (const { id, attempt } of reports) {
			if (!isId(id) || !Number.isSafeInteger(attempt)) continue;
			byAttempt.set(attempt, [...(byAttempt.get(attempt) ?? []), id]);
		}
		for (const [attempt, ids] of byAttempt) {
			for (const chunk of chunks(ids)) {
				const values = [...chunk, attempt];
				await this.session((one) => one.query(SQL.settle(chunk.length), values));
			}
		}
	}

	async unsettled(before: number, limit: number): Promise<UnsettledMessage[]> {
		const { rows } = await this.read((one) => one.query(SQL.unsettled, [before, limit]));
		return rows.map((row) => ({
			id: text(row["id"]),
			attempt: Number(row["attempt"]),
			revision: Number(row["revision"]),
			receipt: text(row["receipt"]),
			coordinator: text(row["coordinator"]),
		}));
	}

	async purge(before: number, limit: number): Promise<number> {
		return this.session(async (one) => {
			const { purgeOutcomes, purgeInbox } = this.dialect;
			const { count } = await one.query(purgeOutcomes, [before, limit]);
			if (count >= limit) return count;
			return count + (await one.query(purgeInbox, [before, limit - count])).count;
		});
	}

	get #open(): OpenedSource {
		if (this.#opened) return this.#opened;
		const text = `The participant store on ${this.place} is not open`;
		throw new LottorError("LOTTOR_STORE_UNAVAILABLE", text, { place: this.place });
	}

	async #byId<T extends { readonly id: string }>(
		ids: readonly unknown[],
		sql: (count: number) => string,
		read: (row: Row) => T,
	): Promise<(T | undefined)[]> {
		const found = new Map<unknown, T>();
		for (const chunk of chunks(ids.filter(isId))) {
			const { rows } = await this.read((one) => one.query(sql(chunk.length), chunk));
			for (const row of rows.map(read)) found.set(row.id, row);
		}
		return ids.map((id) => found.get(id));
	}

	async #undo(session: Session): Promise<void> {
		const { oneWriter } = this.dialect;
		if (session.isBroken || oneWriter?.isInTransaction(session.connection) === false) return;
		try {
			await session.query("ROLLBACK");
			await this.dialect.endShort(session);
		} catch {
			session.destroy();
		}
	}

	async #prepare(): Promise<string> {
		const { dialect } = this;
		return this.session(async (session) => {
			const readOnly = await dialect.readOnly(session);
			if (readOnly !== undefined) {
				const text = `${this.place} ${readOnly}`;
				throw new LottorError("LOTTOR_STORE_UNAVAILABLE", text, { place: this.place });
			}
			const unsafe = await dialect.unsafe(session);
			if (unsafe !== undefined) throw this.#unusable(unsafe);
			const row =
				(await this.#participant(session)) ??
				(await dialect.alone(session, () => this.#makeTables(session)));
			if (Number(row["version"]) === SCHEMA) return text(row["store"]);
			throw this.#unusable(
				`its participant tables have version ${text(String(row["version"]))}, this one knows ${SCHEMA}; install the version of Lottor that made them, or a newer one`,
			);
		});
	}

	async #participant(session: Session): Promise<Row | undefined> {
		try {
			return (await session.query(this.dialect.participant)).rows[0];
		} catch (error) {
			if (this.dialect.trouble(error) === "noTable") return undefined;
			throw error;
		}
	}

	/** Somebody may have made them before it was our turn. */
	async #makeTables(session: Session): Promise<Row> {
		const { dialect } = this;
		const exists = await this.#exists(session);
		if (!exists) for (const statement of dialect.tables) await session.query(statement);
		const { rows } = await session.query(dialect.participant);
		if (rows[0]) return rows[0];
		const store = newStoreId(this.#options.random);
		await session.query(dialect.newParticipant, [SCHEMA, store]);
		return { version: SCHEMA, store };
	}

	async #exists(session: Session): Promise<boolean> {
		const { rows } = await session.query(this.dialect.hasTables);
		return rows.length > 0;
	}

	#openError(error: unknown): unknown {
		if (error instanceof LottorError && !hasCode(error, "LOTTOR_STORE_UNAVAILABLE"))
			return error;
		const cause: unknown = error instanceof LottorError ? error.cause : error;
		switch (this.#opened && cause !== undefined ? this.dialect.trouble(cause) : undefined) {
			case "login":
				return this.#unusable(
					`it refuses the login: check user, password and database (${plainMessage(cause)})`,
				);
			case "denied":
				return this.#unusable(
					`its tables can't be made or used: grant this user the right to create tables (${plainMessage(cause)})`,
				);
			case "file":
				return this.#unusable(
					`its file can't be used: check its path, its folder and the rights to both (${plainMessage(cause)})`,
				);
			default:
				return error;
		}
	}

	/** @throws LOTTOR_STORE_UNUSABLE for one on which what is committed could be lost */
	#mustBeSound(session: Session): void {
		const { oneWriter } = this.dialect;
		const { connection } = session;
		if (!oneWriter || this.#sound.has(connection as object)) return;
		const problem = oneWriter.unsafe(connection);
		try {
			if (problem !== undefined) throw this.#unusable(problem);
			const file = oneWriter.file(connection);
			if (file !== undefined) this.#leaveFile ??= openedElsewhere(file);
		} catch (error) {
			this.giveBack(session);
			throw error;
		}
		this.#sound.add(connection as object);
	}

	#unusable(problem: string): LottorError {
		return new LottorError(
			"LOTTOR_STORE_UNUSABLE",
			`${this.place} can't be started on: ${problem}`,
			{ place: this.place },
		);
	}
}

async function take(client: KnexClient): Promise<Taken> {
	const connection = await client.acquireConnection();
	return { connection, giveBack: () => void client.releaseConnection(connection) };
}

function* chunks(ids: readonly string[]): Generator<string[]> {
	// Sorted, so that two statements never lock the same rows in different orders.
	const sorted = [...new Set(ids)].sort();
	for (let from = 0; from < sorted.length; from += CHUNK) yield sorted.slice(from, from + CHUNK);
}
