/**
 * Work that is done one pass after another, never two at once: whoever asks for a pass while one
 * is under way gets another after it. Lanes know nothing of each other, so that a slow one, such
 * as check-backs to a source that does not answer, never holds up deliveries.
 */
export class Lane {
	readonly #pass: () => Promise<void>;
	#running: Promise<void> | undefined;
	#again = false;

	/** @param pass must not reject */
	constructor(pass: () => Promise<void>) {
		this.#pass = pass;
	}

	/** @returns when the pass under way, if any, and one begun after this call have ended */
	go(): Promise<void> {
		this.#again = true;
		this.#running ??= this.#run().finally(() => (this.#running = undefined));
		return this.#running;
	}

	/** Ends after the pass under way. */
	async idle(): Promise<void> {
		this.#again = false;
		await this.#running;
	}

	async #run(): Promise<void> {
		while (this.#again) {
			this.#again = false;
			await this.#pass();
		}
	}
}
