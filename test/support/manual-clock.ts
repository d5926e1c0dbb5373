import type { Clock, Timer } from "../../protocol/index.ts";

interface Pending {
	readonly at: number;
	readonly order: number;
	readonly fn: () => void;
}

/** A clock that stands still until a test moves it. */
export class ManualClock implements Clock {
	#now: number;
	#order = 0;
	readonly #pending = new Set<Pending>();

	constructor(start = Date.UTC(2026, 0, 1)) {
		this.#now = start;
	}

	now(): number {
		return this.#now;
	}

	after(ms: number, fn: () => void): Timer {
		const timer = { at: this.#now + Math.max(ms, 0), order: this.#order++, fn };
		this.#pending.add(timer);
		return { cancel: () => this.#pending.delete(timer) };
	}

	/** Timers that are set. */
	get timers(): number {
		return this.#pending.size;
	}

	/** @returns whether one of them is due in exactly so many milliseconds */
	dueIn(ms: number): boolean {
		return [...this.#pending].some((timer) => timer.at === this.#now + ms);
	}

	/** Moves time on, firing what becomes due in its order, and lets promises run between. */
	async advance(ms: number): Promise<void> {
		const end = this.#now + ms;
		for (;;) {
			const next = [...this.#pending]
				.filter((timer) => timer.at <= end)
				.sort((a, b) => a.at - b.at || a.order - b.order)[0];
			if (!next) break;
			this.#pending.delete(next);
			this.#now = next.at;
			next.fn();
			await settle();
		}
		this.#now = end;
		await settle();
	}
}

/** Lets everything that is ready to run do so. */
export async function settle(turns = 5): Promise<void> {
	for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
}
