import { type Clock, LottorError, newStoreId, type Random } from "../../protocol/index.ts";
import {
	openSqliteFile,
	type SqliteFile,
	type SqliteFileOptions,
	type SqliteReader,
	type SqliteTx,
	type WriteOptions,
} from "../sqlite/index.ts";
import type { UnsettledMessage } from "./contract.ts";
import type { InboxRow, OutcomeRow } from "./rules.ts";
import { inboxOf, inboxValues, outcomeOf, outcomeValues, text } from "./sql-rows.ts";
import { SCHEMA, SQL, TABLES } from "./sqlite-schema.ts";

/** Most rows that one work changes. */
const CHUNK = 500;

/** Options of a participant store on a SQLite file. */
export interface SqliteStoreOptions extends SqliteFileOptions {
	readonly clock: Clock;
	readonly random: Random;
}

/** Lottor's tables in one SQLite file: what the transactional and the recorded store share. */
export class SqliteTables {
	readonly path: string;
	readonly #options: SqliteStoreOptions;
	#file: SqliteFile | undefined;

	constructor(path: string, options: SqliteStoreOptions) {
		this.path = path;
		this.#options = options;
	}

	/** The open file. @throws LOTTOR_STORE_UNAVAILABLE while the store is closed */
	get file(): SqliteFile {
		if (this.#file) return this.#file;
		throw new LottorError(
			"LOTTOR_STORE_UNAVAILABLE",
			`The participant store on ${this.path} is not open`,
			{ path: this.path },
		);
	}

	/** Opens the file and its tables; after a failure closed the file, opens it again. */
	async open(): Promise<string> {
		if (this.#file) await this.#file.reopen();
		const file = this.#file ?? (await openSqliteFile(this.path, this.#options));
		try {
			const storeId = await file.write((tx) => this.#prepare(tx), { detached: true });
			this.#file = file;
			return storeId;
		} catch (error) {
			this.#file = undefined;
			await file.close();
			throw error;
		}
	}

	async close(): Promise<void> {
		const file = this.#file;
		this.#file = undefined;
		await file?.close();
	}

	async confirm(ids: readonly string[]): Promise<void> {
		await this.#each(ids.filter(isText), (tx, id) => tx.run(SQL.confirm, id));
	}

	async unconfirmed(before: number, limit: number) {
		const rows = await this.file.read((reader) => reader.all(SQL.unconfirmed, before, limit));
		return rows.map((row) => ({ id: text(row["id"]), coordinator: text(row["coordinator"]) }));
	}

	async settled(reports: readonly { readonly id: string; readonly attempt: number }[]) {
		const sound = reports.filter(({ id, attempt }) => isText(id) && Number.isInteger(attempt));
		await this.#each(sound, (tx, { id, attempt }) => tx.run(SQL.settle, id, attempt));
	}

	async unsettled(before: number, limit: number): Promise<UnsettledMessage[]> {
		const rows = await this.file.read((reader) => reader.all(SQL.unsettled, before, limit));
		return rows.map((row) => ({
			id: text(row["id"]),
			attempt: Number(row["attempt"]),
			revision: Number(row["revision"]),
			receipt: text(row["receipt"]),
			coordinator: text(row["coordinator"]),
		}));
	}

	purge(before: number, limit: number): Promise<number> {
		return this.change((tx) => {
			const { changes } = tx.run(SQL.purgeOutcomes, before, limit);
			return changes + tx.run(SQL.purgeInbox, before, limit - changes).changes;
		});
	}

	/** A write of Lottor's own, which no open transaction ever waits for. */
	async change<T>(fn: (tx: SqliteTx) => T, options: WriteOptions = {}): Promise<T> {
		return this.file.write(fn, { detached: true, ...options });
	}

	/** One work a chunk, so that a large call does not hold the lock for long. */
	async #each<T>(items: readonly T[], apply: (tx: SqliteTx, item: T) => unknown): Promise<void> {
		for (let from = 0; from < items.length; from += CHUNK) {
			const chunk = items.slice(from, from + CHUNK);
			await this.change((tx) => {
				for (const item of chunk) apply(tx, item);
			});
		}
	}

	#prepare(tx: SqliteTx): string {
		const exists = tx.get(
			"SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'lottor_participant'",
		);
		if (!exists) {
			for (const statement of TABLES) tx.run(statement);
			tx.run(
				"INSERT INTO lottor_participant (one, schema, store_id) VALUES (1, ?, ?)",
				SCHEMA,
				newStoreId(this.#options.random),
			);
		}
		const row = tx.get("SELECT schema, store_id FROM lottor_participant");
		const schema = Number(row?.["schema"]);
		if (schema === SCHEMA) return text(row?.["store_id"]);
		throw new LottorError(
			"LOTTOR_STORE_UNUSABLE",
			`SQLite file ${this.path} can't be started on: its participant tables have schema ${schema}, this version knows ${SCHEMA}; install the version of Lottor that made them, or a newer one`,
			{ path: this.path, schema },
		);
	}
}

/** @returns the outcome of a group, undefined when there is none */
export function readOutcome(reader: SqliteReader, id: string): OutcomeRow | undefined {
	const row = reader.get(SQL.outcome, id);
	return row && outcomeOf(row);
}

/** @returns whether there was none yet */
export function insertOutcome(tx: SqliteTx, row: OutcomeRow): boolean {
	return tx.run(SQL.insertOutcome, ...outcomeValues(row)).changes === 1;
}

/** @returns what the inbox holds of a message, undefined when nothing */
export function readInbox(reader: SqliteReader, id: string): InboxRow | undefined {
	const row = reader.get(SQL.inbox, id);
	return row && inboxOf(row);
}

/** @returns whether there was none yet */
export function insertInbox(tx: SqliteTx, row: InboxRow): boolean {
	return tx.run(SQL.insertInbox, ...inboxValues(row)).changes === 1;
}

/** Writes the row over whatever stands. */
export function replaceInbox(tx: SqliteTx, row: InboxRow): void {
	tx.run(SQL.replaceInbox, ...inboxValues(row));
}

/** @returns whether the value can be an id at all: a bad item of a call must not fail the others */
export function isText(value: unknown): value is string {
	return typeof value === "string";
}
