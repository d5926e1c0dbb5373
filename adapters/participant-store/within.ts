import { type Clock, LottorError, type Timer } from "../../protocol/index.ts";

/** Where a store is, and by whose clock it waits. */
export interface Waiting {
	readonly clock: Clock;
	/** Where it is, without secrets. */
	readonly place: string;
}

/**
 * Waits for the server, but not for ever.
 *
 * @param late what to do first when it took too long
 * @throws LOTTOR_STORE_UNAVAILABLE
 */
export async function within<T>(
	{ clock, place }: Waiting,
	ms: number,
	work: PromiseLike<T>,
	late: () => void = () => undefined,
): Promise<T> {
	const over = () => {
		late();
		const text = `${place} did not answer within ${ms / 1_000} s`;
		return new LottorError("LOTTOR_STORE_UNAVAILABLE", text, { place });
	};
	return limited(clock, { timeout: ms, timeoutError: over }, work);
}

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
