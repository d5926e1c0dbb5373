import { LottorError } from "../../../protocol/index.ts";
import type { ConsumeRequest, ConsumeResult, TxBase } from "../contract.ts";
import {
	consumedRow,
	fencedRow,
	inboxState,
	type InboxRow,
	type OutcomeRow,
	refusal,
} from "../rules.ts";
import type { TransactionalBackend } from "../transactional.ts";
import { MongoDatabase } from "./database.ts";
import { storeError, trouble } from "./faults.ts";
import { INBOX, inboxDocument, outcomeDocument, OUTCOMES, unchanged } from "./rows.ts";
import { MongoTransaction } from "./transaction.ts";

/** How often a first statement is tried that met somebody else's open one. */
const TRIES = 10;

/** The transactional guarantee inside the service's own MongoDB. */
export class TransactionalMongo
	extends MongoDatabase
	implements TransactionalBackend<MongoTransaction>
{
	get description(): string {
		return `${this.place} (transactional)`;
	}

	async begin(group: string): Promise<MongoTransaction> {
		return new MongoTransaction(this, group);
	}

	async nest(join: TxBase, group: string): Promise<MongoTransaction> {
		if (join instanceof MongoTransaction && join.database === this) return join.nest(group);
		const text = `The transaction to join is not one of ${this.place}`;
		throw new LottorError("LOTTOR_INVALID_REQUEST", text, { group, field: "join" });
	}

	release(tx: MongoTransaction): void {
		tx.release();
	}

	/** A fence that is being written at this moment conflicts: it stands soon, or never will. */
	async insertOutcome(tx: MongoTransaction, row: OutcomeRow): Promise<boolean> {
		const insert = { insert: OUTCOMES, documents: [outcomeDocument(row)] };
		for (let tried = 1; ; tried++) {
			const added = await this.#insert(tx, insert);
			if (added === "done") return true;
			if (added === "duplicate") return false;
			const [stands] = await this.outcomes([row.id]);
			if (stands) return false;
			if (tried === TRIES) throw this.#busy(row.id);
			await tx.restart();
		}
	}

	async claimInbox(
		tx: MongoTransaction,
		request: ConsumeRequest,
	): Promise<ConsumeResult | undefined> {
		const now = this.now();
		const documents = [inboxDocument(consumedRow(request, now))];
		const added = await this.#insert(tx, { insert: INBOX, documents });
		if (added === "done") return undefined;
		// A copy has it in a transaction, which tells the coordinator by itself.
		if (added === "locked") return { result: "busy" };
		for (let tried = 1; tried <= TRIES; tried++) {
			const [before] = await this.inbox([request.id]);
			const refused = refusal(before, request, now);
			if (refused) return refused;
			await tx.restart();
			if (before && (await this.#replace(tx, before, consumedRow(request, now, before)))) {
				return undefined;
			}
		}
		return { result: "busy" };
	}

	async fenceOutcome(row: OutcomeRow): Promise<void> {
		await this.addOutcome(row);
	}

	/** To insert the row oneself conflicts with a transaction that has it. */
	async settledInbox(id: string): Promise<InboxRow | undefined> {
		const probe = fencedRow(undefined, id, 0, 0).row;
		if (!probe) return undefined;
		const tx = await this.begin("");
		try {
			const added = await this.#insert(tx, {
				insert: INBOX,
				documents: [inboxDocument(probe)],
			});
			if (added === "locked") throw this.#busy(id);
			if (added === "done") return undefined;
		} finally {
			await tx.rollback(undefined);
			tx.release();
		}
		const [row] = await this.inbox([id]);
		// There is one, but a majority does not have it yet.
		if (inboxState(row).result === "unseen" && !row) throw this.#busy(id);
		return row;
	}

	async #insert(tx: MongoTransaction, insert: { insert: string; documents: object[] }) {
		try {
			await tx.command(insert);
			return "done";
		} catch (error) {
			const why = trouble(error);
			if (why === "duplicate" || why === "locked") return why;
			throw storeError(this.place, error);
		}
	}

	/** @returns whether it stood unchanged */
	async #replace(tx: MongoTransaction, before: InboxRow, after: InboxRow): Promise<boolean> {
		const updates = [{ q: unchanged(before), u: inboxDocument(after) }];
		try {
			return Number((await tx.command({ update: INBOX, updates }))["n"]) === 1;
		} catch (error) {
			if (trouble(error) === "locked") return false;
			throw storeError(this.place, error);
		}
	}

	#busy(id: string): LottorError {
		return new LottorError("LOTTOR_STORE_BUSY", `${this.place}: somebody else has ${id}`, {
			place: this.place,
		});
	}
}
