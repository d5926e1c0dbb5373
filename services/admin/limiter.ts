import { type Clock, LottorError } from "../../protocol/index.ts";

const MOST_FAILURES = 10;
const WINDOW_MS = 5 * 60_000;
/** Addresses remembered at once; the oldest is forgotten for a new one. */
const MOST_ADDRESSES = 10_000;

/** Slows down whoever guesses: counts failed logins by the socket's address, which no header can change. */
export class LoginLimiter {
	readonly #clock: Clock;
	readonly #failures = new Map<string, { count: number; since: number }>();

	constructor(clock: Clock) {
		this.#clock = clock;
	}

	/** @throws LOTTOR_TOO_MANY_ATTEMPTS */
	check(address: string): void {
		const known = this.#failures.get(address);
		if (!known || known.count < MOST_FAILURES) return;
		const left = known.since + WINDOW_MS - this.#clock.now();
		if (left <= 0) {
			this.#failures.delete(address);
			return;
		}
		throw new LottorError("LOTTOR_TOO_MANY_ATTEMPTS", "Too many failed logins; wait a while", {
			retryAfter: Math.ceil(left / 1_000),
		});
	}

	failed(address: string): void {
		const now = this.#clock.now();
		const known = this.#failures.get(address);
		if (known && known.since + WINDOW_MS > now) {
			known.count++;
			return;
		}
		this.#failures.delete(address);
		for (const oldest of this.#failures.keys()) {
			if (this.#failures.size < MOST_ADDRESSES) break;
			this.#failures.delete(oldest);
		}
		this.#failures.set(address, { count: 1, since: now });
	}
}
