/** Counts what is being handled, up to a limit. */
export class Flow {
	readonly limit: number;
	#active = 0;
	#waiting: (() => void)[] = [];

	constructor(limit: number) {
		this.limit = limit;
	}

	/** How many more may begin. */
	get room(): number {
		return Math.max(0, this.limit - this.#active);
	}

	get active(): number {
		return this.#active;
	}

	/** Counts a job until it has settled. The job never rejects. */
	run(job: () => Promise<void>): void {
		this.#active++;
		void job().finally(() => {
			this.#active--;
			this.#wake();
		});
	}

	/** Resolves when something may begin, or the signal is aborted. */
	async hasRoom(signal: AbortSignal): Promise<void> {
		while (this.room === 0 && !signal.aborted) await this.#change(signal);
	}

	/** Resolves when nothing is being handled. @returns whether that came in time */
	async idle(ms: number): Promise<boolean> {
		const signal = AbortSignal.timeout(ms);
		while (this.#active > 0 && !signal.aborted) await this.#change(signal);
		return this.#active === 0;
	}

	#change(signal: AbortSignal): Promise<void> {
		return new Promise((resolve) => {
			if (signal.aborted) return resolve();
			const done = () => {
				signal.removeEventListener("abort", done);
				resolve();
			};
			signal.addEventListener("abort", done, { once: true });
			this.#waiting.push(done);
		});
	}

	#wake(): void {
		for (const done of this.#waiting.splice(0)) done();
	}
}
