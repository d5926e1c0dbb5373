import { LottorError } from "../../protocol/index.ts";

/** The calls under way in a store, which closing waits for. */
export class Calls {
	readonly #running = new Set<Promise<unknown>>();
	#open = false;

	open(): void {
		this.#open = true;
	}

	/** @throws LOTTOR_STOPPING once the store is closing or closed */
	mustBeOpen(): void {
		if (this.#open) return;
		throw new LottorError("LOTTOR_STOPPING", "The participant store is closed");
	}

	track<T>(call: Promise<T>): Promise<T> {
		this.#running.add(call);
		const done = () => this.#running.delete(call);
		call.then(done, done);
		return call;
	}

	/** Refuses new calls and waits for those that run. */
	async close(): Promise<void> {
		this.#open = false;
		while (this.#running.size > 0) await Promise.allSettled(this.#running);
	}
}
