import type { Clock } from "../protocol/index.ts";

/** Calls of one sender that may overtake each other on the way. */
const SLOTS = 2_048;

interface Sender {
	/** The highest number that came, of those with the same remainder. */
	readonly slots: Float64Array;
	heardAt: number;
}

/**
 * Knows which numbered calls came before. Each slot holds the last number with its remainder: a
 * number that is not above it came already, or is thousands of calls late. Memory is bounded by the
 * senders that were heard within twice the age that a call may have.
 */
export class ReplayGuard {
	readonly #clock: Clock;
	readonly #maxAge: number;
	readonly #senders = new Map<string, Sender>();

	/** @param maxAge milliseconds */
	constructor(clock: Clock, maxAge: number) {
		this.#clock = clock;
		this.#maxAge = maxAge;
	}

	/**
	 * Notes a call whose signature was found good.
	 *
	 * @param sender one process start
	 * @param number of the call, from 1, rising
	 * @param time when it was made, by the sender's clock
	 * @returns why the call must not be answered; undefined: it is new
	 */
	refuses(sender: string, number: number, time: number): string | undefined {
		const now = this.#clock.now();
		const age = now - time;
		if (!(Math.abs(age) <= this.#maxAge)) {
			return `it was made ${Math.round(age / 1_000)} s ago by its sender's clock`;
		}
		const known = this.#senders.get(sender) ?? this.#add(sender, now);
		known.heardAt = now;
		const slot = number % SLOTS;
		if (!(number > (known.slots[slot] ?? Number.POSITIVE_INFINITY))) return "it came before";
		known.slots[slot] = number;
		return undefined;
	}

	#add(sender: string, now: number): Sender {
		for (const [name, { heardAt }] of this.#senders) {
			// What it sent is too old by now, whoever repeats it.
			if (now - heardAt > 2 * this.#maxAge) this.#senders.delete(name);
		}
		const made = { slots: new Float64Array(SLOTS), heardAt: now };
		this.#senders.set(sender, made);
		return made;
	}
}
