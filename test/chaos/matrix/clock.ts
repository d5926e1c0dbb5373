import type { Clock, Random, Timer } from "../../../protocol/index.ts";

interface Pending {
	readonly at: number;
	readonly order: number;
	readonly fn: () => void;
}

/** A clock that moves from timer to timer. Each process start has its own. */
export class SteppedClock implements Clock {
	#now: number;
	#order = 0;
	readonly #pending = new Set<Pending>();

	constructor(start: number) {
		this.#now = start;
	}

	now(): number {
		return this.#now;
	}

	after(ms: number, fn: () => void): Timer {
		// Whole milliseconds, as the machine's clock has them.
		const timer = { at: this.#now + Math.ceil(Math.max(ms, 0)), order: this.#order++, fn };
		this.#pending.add(timer);
		return { cancel: () => this.#pending.delete(timer) };
	}

	/** Fires the timer that is due first, moving time to it. @returns false when there is none */
	step(): boolean {
		let first: Pending | undefined;
		for (const timer of this.#pending) {
			if (
				!first ||
				timer.at < first.at ||
				(timer.at === first.at && timer.order < first.order)
			)
				first = timer;
		}
		if (!first) return false;
		this.#pending.delete(first);
		this.#now = Math.max(this.#now, first.at);
		first.fn();
		return true;
	}

	/** Moves time on without firing: what is due meanwhile fires late, as after a suspended machine. */
	jump(ms: number): void {
		this.#now += ms;
	}

	/** Forgets every timer: the process is dead. */
	stop(): void {
		this.#pending.clear();
		this.after = () => ({ cancel: () => undefined });
	}
}

/** Lets the loop turn so many times. */
export async function turns(count: number): Promise<void> {
	for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A source of randomness that gives the same numbers for the same seed. */
export function seededRandom(seed: number): Random {
	let state = seed >>> 0;
	const next = () => {
		state = (state + 0x6d2b79f5) >>> 0;
		let mixed = Math.imul(state ^ (state >>> 15), state | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
	};
	return {
		fraction: next,
		bytes: (size) => Uint8Array.from({ length: size }, () => Math.floor(next() * 256)),
	};
}
