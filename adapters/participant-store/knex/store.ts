import { LottorError } from "../../../protocol/index.ts";
import type { ConsumeRequest, ConsumeResult, TxBase } from "../contract.ts";
import { consumedRow, fencedRow, type InboxRow, type OutcomeRow, refusal } from "../rules.ts";
import { type TransactionalBackend, TransactionalParticipantStore } from "../transactional.ts";
import { KnexDatabase, type KnexStoreOptions, LOCK_MS } from "./database.ts";
import type { Session } from "./session.ts";
import type { KnexSource } from "./source.ts";
import { inboxValues, outcomeValues } from "../sql-rows.ts";
import { KnexTransaction, nest } from "./transaction.ts";

/** The transactional guarantee inside the service's own SQL database, through Knex. */
export function transactionalKnexStore(
	source: KnexSource,
	options: KnexStoreOptions,
): TransactionalParticipantStore<KnexTransaction> {
	return new TransactionalParticipantStore(new KnexBackend(source, options));
}

class KnexBackend extends KnexDatabase implements TransactionalBackend<KnexTransaction> {
	get description(): string {
		return `${this.place} (transactional)`;
	}

	/** Where the first row can begin the transaction, it does. */
	async begin(group: string): Promise<KnexTransaction> {
		const session = await this.acquireForWork();
		const tx = new KnexTransaction(this, session, group);
		if (this.dialect.beginWith) return tx;
		try {
			await tx.begin();
			await this.lock(session);
			return tx;
		} catch (error) {
			session.destroy();
			this.giveBack(session);
			throw error;
		}
	}

	async nest(join: TxBase, group: string): Promise<KnexTransaction> {
		if (join instanceof KnexTransaction && join.database === this) return nest(join, group);
		const text = `The transaction to join is not one of ${this.place}`;
		throw new LottorError("LOTTOR_INVALID_REQUEST", text, { group, field: "join" });
	}

	inside<T>(tx: KnexTransaction, fn: () => Promise<T>): Promise<T> {
		return this.writer ? this.writer.enter(tx, fn) : fn();
	}

	release(tx: KnexTransaction): void {
		this.giveBack(tx.session);
	}

	async insertOutcome(tx: KnexTransaction, row: OutcomeRow): Promise<boolean> {
		const added = await tx.beginWith({ table: "outcome", values: outcomeValues(row) });
		return added ?? this.addOutcome(tx.session, row);
	}

	async claimInbox(
		tx: KnexTransaction,
		request: ConsumeRequest,
	): Promise<ConsumeResult | undefined> {
		const now = this.now();
		const row = consumedRow(request, now);
		const added = await tx.beginWith({ table: "inbox", values: inboxValues(row) });
		const { session } = tx;
		if (added ?? (await this.addInbox(session, row))) return undefined;
		return this.dialect.briefly(session, async () => {
			const before = await this.lockInbox(session, request.id);
			const refused = refusal(before, request, now);
			if (!refused) await this.replaceInbox(session, consumedRow(request, now, before));
			return refused;
		});
	}

	async fenceOutcome(row: OutcomeRow): Promise<void> {
		await this.change((session) => this.addOutcome(session, row));
	}

	async changeInbox(
		id: string,
		next: (before: InboxRow | undefined) => InboxRow | undefined,
		patiently = false,
	): Promise<void> {
		const step = async (session: Session) => {
			for (;;) {
				const before = await this.lockInbox(session, id);
				const after = next(before);
				if (!after) return;
				if (before) return this.replaceInbox(session, after);
				// Somebody else's may have come meanwhile.
				if (await this.addInbox(session, after)) return;
			}
		};
		await this.change(step, patiently ? { wait: LOCK_MS } : {});
	}

	/** To insert the row oneself waits for a transaction that has it. */
	async settledInbox(id: string): Promise<InboxRow | undefined> {
		const probe = fencedRow(undefined, id, 0, 0).row;
		return this.change(
			async (session) => {
				if (probe && (await this.addInbox(session, probe))) return undefined;
				return this.lockInbox(session, id);
			},
			{ end: "ROLLBACK" },
		);
	}
}
