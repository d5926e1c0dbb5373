import type { Outcome } from "../../../protocol/index.ts";
import { type RecordedBackend, RecordedParticipantStore } from "../recorded.ts";
import type { InboxRow, OutcomeRow } from "../rules.ts";
import { KnexDatabase, type KnexStoreOptions } from "./database.ts";
import { isId } from "./rows.ts";
import type { KnexSource } from "./source.ts";

/** The recorded guarantee on the same tables, for services whose works don't use `tx`. */
export function recordedKnexStore(
	source: KnexSource,
	options: KnexStoreOptions,
): RecordedParticipantStore {
	return new RecordedParticipantStore(new KnexBackend(source, options), options);
}

class KnexBackend implements RecordedBackend {
	readonly description: string;
	readonly #database: KnexDatabase;

	constructor(source: KnexSource, options: KnexStoreOptions) {
		this.description = `${source.place} (recorded)`;
		this.#database = new KnexDatabase(source, options);
	}

	async open() {
		return { storeId: await this.#database.open() };
	}

	close(): Promise<void> {
		return this.#database.close();
	}

	now(): number {
		return this.#database.now();
	}

	insertOutcome(row: OutcomeRow): Promise<boolean> {
		return this.#database.session((one) => this.#database.insertOutcome(one, row));
	}

	outcomes(ids: readonly string[]) {
		return this.#database.outcomes(ids);
	}

	async endOutcome(id: string, to: Outcome, at: number): Promise<boolean> {
		return isId(id) && this.#database.endOutcome(id, to, at);
	}

	confirm(ids: readonly string[]): Promise<void> {
		return this.#database.confirm(ids);
	}

	unconfirmed(before: number, limit: number) {
		return this.#database.unconfirmed(before, limit);
	}

	insertInbox(row: InboxRow): Promise<boolean> {
		return this.#database.change((one) => this.#database.insertInbox(one, row));
	}

	inbox(ids: readonly string[]) {
		return this.#database.inbox(ids);
	}

	swapInbox(before: InboxRow, after: InboxRow): Promise<boolean> {
		return this.#database.change(async (one) => {
			const stands = await this.#database.lockInbox(one, before.id);
			if (JSON.stringify(stands) !== JSON.stringify(before)) return false;
			await this.#database.replaceInbox(one, after);
			return true;
		});
	}

	settle(reports: readonly { readonly id: string; readonly attempt: number }[]): Promise<void> {
		return this.#database.settle(reports);
	}

	unsettled(before: number, limit: number) {
		return this.#database.unsettled(before, limit);
	}

	purge(before: number, limit: number): Promise<number> {
		return this.#database.purge(before, limit);
	}
}
