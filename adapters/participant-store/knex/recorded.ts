import { type RecordedBackend, RecordedParticipantStore } from "../recorded.ts";
import type { InboxRow, OutcomeRow } from "../rules.ts";
import { KnexDatabase, type KnexStoreOptions, LOCK_MS } from "./database.ts";
import type { KnexSource } from "./source.ts";

const PATIENT = { wait: LOCK_MS };

/** The recorded guarantee on the same tables, for services whose works don't use `tx`. */
export function recordedKnexStore(
	source: KnexSource,
	options: KnexStoreOptions,
): RecordedParticipantStore {
	return new RecordedParticipantStore(new KnexBackend(source, options), options);
}

class KnexBackend extends KnexDatabase implements RecordedBackend {
	get description(): string {
		return `${this.place} (recorded)`;
	}

	insertOutcome(row: OutcomeRow): Promise<boolean> {
		return this.session((session) => this.addOutcome(session, row));
	}

	insertInbox(row: InboxRow): Promise<boolean> {
		return this.change((session) => this.addInbox(session, row), PATIENT);
	}

	swapInbox(before: InboxRow, after: InboxRow): Promise<boolean> {
		return this.change(async (session) => {
			const stands = await this.lockInbox(session, before.id);
			if (JSON.stringify(stands) !== JSON.stringify(before)) return false;
			await this.replaceInbox(session, after);
			return true;
		}, PATIENT);
	}
}
