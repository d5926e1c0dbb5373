import { type Clock, limited, LottorError } from "../../protocol/index.ts";

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
