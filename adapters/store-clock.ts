import type { Clock } from "../protocol/index.ts";

const MEASURE_EVERY_MS = 30_000;

/**
 * The time of a store's server, kept by this machine's clock and an offset that is measured again
 * and again (R19): no process compares its own time of day with another's.
 */
export class StoreClock {
	readonly #clock: Clock;
	readonly #ask: () => Promise<number>;
	#offset = 0;
	#measuredAt = Number.NEGATIVE_INFINITY;

	/** @param ask reads the server's time, milliseconds since 1970 */
	constructor(clock: Clock, ask: () => Promise<number>) {
		this.#clock = clock;
		this.#ask = ask;
	}

	now(): number {
		const now = this.#clock.now();
		if (now - this.#measuredAt >= MEASURE_EVERY_MS) {
			this.#measuredAt = now;
			// Not reached: the former offset serves until the next try.
			this.measure().catch(() => undefined);
		}
		return now + this.#offset;
	}

	/** Asks the server. The answer counts as given half way between question and its arrival. */
	async measure(): Promise<void> {
		const before = this.#clock.now();
		this.#measuredAt = before;
		const told = await this.#ask();
		this.#offset = Math.round(told - (before + this.#clock.now()) / 2);
	}
}
