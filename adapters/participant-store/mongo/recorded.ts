import type { RecordedBackend } from "../recorded.ts";
import type { InboxRow, OutcomeRow } from "../rules.ts";
import { MongoDatabase } from "./database.ts";

/** The recorded guarantee on the same collections, where the server has no transactions. */
export class RecordedMongo extends MongoDatabase implements RecordedBackend {
	get description(): string {
		return `${this.place} (recorded)`;
	}

	insertOutcome(row: OutcomeRow): Promise<boolean> {
		return this.addOutcome(row);
	}

	insertInbox(row: InboxRow): Promise<boolean> {
		return this.addInbox(row);
	}
}
