import { LottorError, type Outcome } from "../../protocol/index.ts";
import type {
	ConsumeRequest,
	ConsumeResult,
	FenceResult,
	InboxState,
	OpenedParticipantStore,
	ParticipantStore,
	Resolution,
	RunRequest,
	RunResult,
	TxBase,
	UnsettledMessage,
} from "./contract.ts";
import type { FailRequest } from "./rules.ts";

/** A store that turned out to be the right one. */
export interface Chosen {
	readonly store: ParticipantStore;
	/** What has to be said of the choice. */
	readonly notice?: string;
	/** Ends what was made for the store; called after it was closed, or could not be opened. */
	readonly end?: () => Promise<unknown>;
}

/** A participant store of which is known only when it is opened what it is. */
export class DeferredParticipantStore implements ParticipantStore {
	readonly #place: string;
	readonly #choose: () => Promise<Chosen>;
	#chosen: Chosen | undefined;
	#isOpen = false;

	/**
	 * @param place what and where, without secrets
	 * @param choose finds the store, which is opened then
	 */
	constructor(place: string, choose: () => Promise<Chosen>) {
		this.#place = place;
		this.#choose = choose;
	}

	get description(): string {
		return this.#chosen?.store.description ?? this.#place;
	}

	async open(): Promise<OpenedParticipantStore> {
		const chosen = this.#chosen && this.#isOpen ? this.#chosen : await this.#choose();
		const { store, notice, end } = chosen;
		try {
			const opened = await store.open();
			this.#chosen = chosen;
			this.#isOpen = true;
			return notice === undefined ? opened : { ...opened, notice };
		} catch (error) {
			await end?.();
			throw error;
		}
	}

	async close(): Promise<void> {
		if (!this.#isOpen) return;
		this.#isOpen = false;
		await this.#chosen?.store.close();
		await this.#chosen?.end?.();
	}

	async run<T>(
		request: RunRequest<TxBase>,
		work: (tx: TxBase) => Promise<T>,
	): Promise<RunResult<T>> {
		const store = this.#chosen?.store;
		return store ? store.run(request, work) : { state: "rolledBack", error: this.#notOpen() };
	}

	async resolve(ids: readonly string[]): Promise<Resolution[]> {
		return this.#store.resolve(ids);
	}

	async force(id: string, to: Outcome): Promise<boolean> {
		return this.#store.force(id, to);
	}

	async confirm(ids: readonly string[]): Promise<void> {
		return this.#store.confirm(ids);
	}

	async unconfirmed(age: number, limit: number) {
		return this.#store.unconfirmed(age, limit);
	}

	async consume(
		request: ConsumeRequest,
		handler: (tx: TxBase) => Promise<void>,
	): Promise<ConsumeResult> {
		const store = this.#chosen?.store;
		return store
			? store.consume(request, handler)
			: { result: "unknown", error: this.#notOpen() };
	}

	async fail(request: FailRequest): Promise<void> {
		return this.#store.fail(request);
	}

	async fence(id: string, minRevision: number): Promise<FenceResult> {
		return this.#store.fence(id, minRevision);
	}

	async look(ids: readonly string[]): Promise<InboxState[]> {
		return this.#store.look(ids);
	}

	async settled(reports: readonly { readonly id: string; readonly attempt: number }[]) {
		return this.#store.settled(reports);
	}

	async unsettled(age: number, limit: number): Promise<UnsettledMessage[]> {
		return this.#store.unsettled(age, limit);
	}

	async purge(age: number, limit: number): Promise<number> {
		return this.#store.purge(age, limit);
	}

	get #store(): ParticipantStore {
		if (this.#chosen) return this.#chosen.store;
		throw this.#notOpen();
	}

	#notOpen(): LottorError {
		const text = `The participant store on ${this.#place} is not open`;
		return new LottorError("LOTTOR_STORE_UNAVAILABLE", text, { place: this.#place });
	}
}
