import type { Outcome } from "../../protocol/index.ts";
import { type RecordedBackend, RecordedParticipantStore } from "./recorded.ts";
import type { InboxRow, OutcomeRow } from "./rules.ts";
import { SQL } from "./sqlite-schema.ts";
import {
	insertInbox,
	insertOutcome,
	isText,
	readInbox,
	readOutcome,
	replaceInbox,
	SqliteTables,
	type SqliteStoreOptions,
} from "./sqlite-tables.ts";

/**
 * The recorded guarantee on a SQLite file, for services whose works don't use `tx`: on the same
 * tables as the transactional store.
 */
export function recordedSqliteStore(
	path: string,
	options: SqliteStoreOptions,
): RecordedParticipantStore {
	return new RecordedParticipantStore(new SqliteBackend(path, options), options);
}

class SqliteBackend implements RecordedBackend {
	readonly description: string;
	readonly #tables: SqliteTables;
	readonly #options: SqliteStoreOptions;

	constructor(path: string, options: SqliteStoreOptions) {
		this.description = `sqlite:${path} (recorded)`;
		this.#options = options;
		this.#tables = new SqliteTables(path, options);
	}

	async open() {
		return { storeId: await this.#tables.open() };
	}

	close(): Promise<void> {
		return this.#tables.close();
	}

	now(): number {
		return this.#options.clock.now();
	}

	insertOutcome(row: OutcomeRow): Promise<boolean> {
		return this.#tables.change((tx) => insertOutcome(tx, row));
	}

	outcomes(ids: readonly string[]) {
		return this.#tables.file.read((reader) =>
			ids.map((id) => (isText(id) ? readOutcome(reader, id) : undefined)),
		);
	}

	endOutcome(id: string, to: Outcome, at: number): Promise<boolean> {
		return this.#tables.change((tx) => tx.run(SQL.endOutcome, to, at, id).changes === 1);
	}

	confirm(ids: readonly string[]): Promise<void> {
		return this.#tables.confirm(ids);
	}

	unconfirmed(before: number, limit: number) {
		return this.#tables.unconfirmed(before, limit);
	}

	insertInbox(row: InboxRow): Promise<boolean> {
		return this.#tables.change((tx) => insertInbox(tx, row));
	}

	inbox(ids: readonly string[]) {
		return this.#tables.file.read((reader) =>
			ids.map((id) => (isText(id) ? readInbox(reader, id) : undefined)),
		);
	}

	swapInbox(before: InboxRow, after: InboxRow): Promise<boolean> {
		return this.#tables.change((tx) => {
			const stands = readInbox(tx, before.id);
			if (JSON.stringify(stands) !== JSON.stringify(before)) return false;
			replaceInbox(tx, after);
			return true;
		});
	}

	settle(reports: readonly { readonly id: string; readonly attempt: number }[]): Promise<void> {
		return this.#tables.settled(reports);
	}

	unsettled(before: number, limit: number) {
		return this.#tables.unsettled(before, limit);
	}

	purge(before: number, limit: number): Promise<number> {
		return this.#tables.purge(before, limit);
	}
}
