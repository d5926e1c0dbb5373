import { type Clock, LottorError } from "../../protocol/index.ts";

const MOST_FAILURES = 10;
const WINDOW_MS = 5 * 60_000;
/** Addresses remembered at once; the oldest is forgotten for a new one. */
const MOST_ADDRESSES = 10_000;

/**
 * Turns away whoever guesses: counts wrong tokens and links by the socket's address, which no header
 * can change. Right ones don't come here: behind a proxy all have one address, and nobody may lock
 * out the others. A token's length is what makes a guess hopeless.
 */
export class LoginLimiter {
	readonly #clock: Clock;
	readonly #failures = new Map<string, { count: number; since: number }>();

	constructor(clock: Clock) {
		this.#clock = clock;
	}

	/** @throws LOTTOR_TOO_MANY_ATTEMPTS when that was one too many */
	failed(address: string): void {
		const now = this.#clock.now();
		const known = this.#failures.get(address);
		const left = known ? known.since + WINDOW_MS - now : 0;
		if (known && left > 0) {
			if (++known.count <= MOST_FAILURES) return;
			throw new LottorError(
				"LOTTOR_TOO_MANY_ATTEMPTS",
				"Too many failed logins; wait a while",
				{ retryAfter: Math.ceil(left / 1_000) },
			);
		}
		this.#failures.delete(address);
		for (const oldest of this.#failures.keys()) {
			if (this.#failures.size < MOST_ADDRESSES) break;
			this.#failures.delete(oldest);
		}
		this.#failures.set(address, { count: 1, since: now });
	}
}
