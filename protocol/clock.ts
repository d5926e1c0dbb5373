import { randomBytes } from "node:crypto";

/** A pending timer, made by a {@link Clock}. */
export interface Timer {
	/** Cancels the timer; does nothing once it has fired. */
	cancel(): void;
}

/** Where Lottor gets its time from. Tests step one by hand. */
export interface Clock {
	/** @returns milliseconds since 1970 */
	now(): number;
	/** Runs `fn` once, `ms` milliseconds from now. The timer does not keep the process alive. */
	after(ms: number, fn: () => void): Timer;
}

/** Where Lottor gets its randomness from. */
export interface Random {
	/** @returns a number from 0 up to, but not including, 1 */
	fraction(): number;
	/** @returns `size` random bytes, fit for secrets */
	bytes(size: number): Uint8Array;
}

const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The machine's clock. */
export const systemClock: Clock = {
	now: () => Date.now(),
	after(ms, fn) {
		const handle = setTimeout(fn, Math.min(Math.max(ms, 0), LONGEST_TIMER_MS));
		handle.unref();
		return { cancel: () => clearTimeout(handle) };
	},
};

/** The machine's randomness. */
export const systemRandom: Random = {
	fraction: () => Math.random(),
	bytes: (size) => randomBytes(size),
};

/** A time limit, and the error that says that it has passed. */
export interface Limit {
	/** Milliseconds. */
	readonly timeout: number;
	readonly timeoutError: () => Error;
}

/**
 * Waits for the work, but not beyond its limit.
 * @throws whatever the work threw, or the limit's error
 */
export async function limited<T>(
	clock: Clock,
	{ timeout, timeoutError }: Limit,
	work: PromiseLike<T>,
): Promise<T> {
	let timer: Timer | undefined;
	const late = new Promise<never>((_, reject) => {
		timer = clock.after(timeout, () => reject(timeoutError()));
	});
	try {
		return await Promise.race([work, late]);
	} finally {
		timer?.cancel();
	}
}
