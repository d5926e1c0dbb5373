import { type Clock, newStoreId, type Outcome, type Random } from "../../protocol/index.ts";
import type { UnsettledMessage } from "./contract.ts";
import { type RecordedBackend, RecordedParticipantStore } from "./recorded.ts";
import type { InboxRow, OutcomeRow } from "./rules.ts";

/**
 * The participant store of tests and demos: everything is lost with the process, its storeId too.
 *
 * @returns a store with guarantee "memory", which behaves as a recorded one
 */
export function memoryParticipantStore(options: {
	readonly clock: Clock;
	readonly random: Random;
}): RecordedParticipantStore {
	const backend = new MemoryBackend(options.clock, newStoreId(options.random));
	return new RecordedParticipantStore(backend, { clock: options.clock, guarantee: "memory" });
}

class MemoryBackend implements RecordedBackend {
	readonly description = "memory: (for tests; everything is lost when the process ends)";
	readonly #clock: Clock;
	readonly #storeId: string;
	readonly #outcomes = new Map<string, OutcomeRow>();
	readonly #inbox = new Map<string, InboxRow>();

	constructor(clock: Clock, storeId: string) {
		this.#clock = clock;
		this.#storeId = storeId;
	}

	async open() {
		return { storeId: this.#storeId };
	}

	async close(): Promise<void> {
		// What was stored stays for the next `open` of the same process.
	}

	now(): number {
		return this.#clock.now();
	}

	async insertOutcome(row: OutcomeRow): Promise<boolean> {
		if (this.#outcomes.has(row.id)) return false;
		this.#outcomes.set(row.id, row);
		return true;
	}

	async outcomes(ids: readonly string[]) {
		return ids.map((id) => this.#outcomes.get(id));
	}

	async endOutcome(id: string, to: Outcome, at: number): Promise<boolean> {
		const row = this.#outcomes.get(id);
		if (row?.state !== "started") return false;
		this.#outcomes.set(id, { ...row, state: to, owner: null, at });
		return true;
	}

	async confirm(ids: readonly string[]): Promise<void> {
		for (const id of ids) {
			const row = this.#outcomes.get(id);
			if (row && row.state !== "started") this.#outcomes.set(id, { ...row, confirmed: true });
		}
	}

	async unconfirmed(before: number, limit: number) {
		return [...this.#outcomes.values()]
			.filter((row) => row.state === "committed" && !row.confirmed && row.at < before)
			.sort((a, b) => a.at - b.at)
			.slice(0, limit)
			.map(({ id, coordinator }) => ({ id, coordinator }));
	}

	async insertInbox(row: InboxRow): Promise<boolean> {
		if (this.#inbox.has(row.id)) return false;
		this.#inbox.set(row.id, row);
		return true;
	}

	async inbox(ids: readonly string[]) {
		return ids.map((id) => this.#inbox.get(id));
	}

	async swapInbox(before: InboxRow, after: InboxRow): Promise<boolean> {
		if (this.#inbox.get(before.id) !== before) return false;
		this.#inbox.set(before.id, after);
		return true;
	}

	async settle(reports: readonly { readonly id: string; readonly attempt: number }[]) {
		for (const { id, attempt } of reports) {
			const row = this.#inbox.get(id);
			const reported = row?.state === "consumed" || row?.state === "failed";
			if (row && reported && row.attempt <= attempt) {
				this.#inbox.set(id, { ...row, settled: true });
			}
		}
	}

	async unsettled(before: number, limit: number): Promise<UnsettledMessage[]> {
		return [...this.#inbox.values()]
			.filter((row) => row.state === "consumed" && !row.settled && row.at < before)
			.sort((a, b) => a.at - b.at)
			.slice(0, limit)
			.map(({ id, attempt, revision, receipt, coordinator }) => ({
				id,
				attempt,
				revision,
				receipt,
				coordinator,
			}));
	}

	async purge(before: number, limit: number): Promise<number> {
		const outcomes = [...this.#outcomes.values()]
			.filter((row) => row.confirmed && row.at < before)
			.slice(0, limit);
		const inbox = [...this.#inbox.values()]
			.filter((row) => row.settled && row.at < before)
			.slice(0, limit - outcomes.length);
		for (const { id } of outcomes) this.#outcomes.delete(id);
		for (const { id } of inbox) this.#inbox.delete(id);
		return outcomes.length + inbox.length;
	}
}
