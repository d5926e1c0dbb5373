import type { Clock } from "../../protocol/index.ts";

/** Items under way to one coordinator: at first, and at least and most ever. */
const FIRST = 100;
const LEAST = 16;
const MOST = 2_000;
/** Bytes under way to one coordinator, except for one item that is larger alone. */
const MOST_BYTES = 8 * 1_024 * 1_024;
/** An answer that takes longer says that too much is under way; well below a try's time limit. */
const SLOW_MS = 300;

/** What is under way: how much of it, and since when. */
export interface Underway {
	readonly items: number;
	readonly bytes: number;
	/** By the clock of the process. */
	readonly since: number;
	/** Whether most of the window was in use. */
	readonly narrow: boolean;
}

/**
 * How much may be under way to one coordinator: as much as it answers in good time. What is more
 * waits here, where it can be given up. Behind a coordinator that has too much to do it could not:
 * callers would give up one by one, try again, and have the coordinator work for nobody.
 */
export class Window {
	readonly #clock: Clock;
	#most = FIRST;
	#items = 0;
	#bytes = 0;
	#narrowedAt = Number.NEGATIVE_INFINITY;

	constructor(clock: Clock) {
		this.#clock = clock;
	}

	/** Nothing is under way. */
	get idle(): boolean {
		return this.#items === 0;
	}

	/** How many more items may go. */
	get items(): number {
		return this.bytes > 0 ? Math.max(this.#most - this.#items, 0) : 0;
	}

	/** How many more bytes may go. */
	get bytes(): number {
		return Math.max(MOST_BYTES - this.#bytes, 0);
	}

	take(items: number, bytes: number): Underway {
		this.#items += items;
		this.#bytes += bytes;
		const narrow = this.#items * 2 > this.#most;
		return { items, bytes, since: this.#clock.now(), narrow };
	}

	/** @param overloaded whether the coordinator said so, or did not answer at all */
	ended({ items, bytes, since, narrow }: Underway, overloaded: boolean): void {
		this.#items -= items;
		this.#bytes -= bytes;
		const now = this.#clock.now();
		if (!overloaded && now - since <= SLOW_MS) {
			if (narrow) this.#most = Math.min(this.#most + items, MOST);
		} else if (now - this.#narrowedAt >= SLOW_MS) {
			this.#narrowedAt = now;
			this.#most = Math.max(Math.floor(this.#most / 2), LEAST);
		}
	}
}
