import type { Clock, Random } from "../../protocol/index.ts";

/**
 * Waits for a promise, but no longer than `ms` milliseconds. What it waits for is not stopped;
 * a later rejection of it is ignored.
 *
 * @throws an Error saying so, when the time is over
 */
export async function within<T>(clock: Clock, ms: number, promise: Promise<T>): Promise<T> {
	return new Promise<T>((resolve, reject) => {
		const timer = clock.after(ms, () => {
			reject(new Error(`No answer within ${Math.round(ms)} ms`));
		});
		void promise.then(resolve, reject).finally(() => {
			timer.cancel();
		});
	});
}

/** Waits until `promise` has ended either way, or `ms` milliseconds are over. Never rejects. */
export async function endedWithin(
	clock: Clock,
	ms: number,
	promise: Promise<unknown>,
): Promise<void> {
	await within(clock, ms, promise).catch(() => undefined);
}

/**
 * Delay before the next try, in milliseconds: doubled from `first` up to `most`, less up to a
 * quarter at random, so that instances which failed together don't come back together.
 *
 * @param failures how many tries have failed, from 1
 */
export function backoff(failures: number, first: number, most: number, random: Random): number {
	const delay = Math.min(first * 2 ** Math.min(failures - 1, 30), most);
	return delay * (1 - random.fraction() / 4);
}
