import { setTimeout as sleep } from "node:timers/promises";

/** Waits, but not beyond the signal. @returns whether it was not aborted */
export async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
	await sleep(ms, undefined, { signal }).catch(() => undefined);
	return !signal.aborted;
}

/** Calls `act` at each interval until the signal is aborted; a failure is reported and tried again. */
export function every(
	ms: number,
	signal: AbortSignal,
	act: () => Promise<void>,
	failed: (error: unknown) => void,
): Promise<void> {
	return (async () => {
		while (await pause(ms, signal)) await act().catch(failed);
	})();
}

const FIRST_MS = 100;
const LONGEST_MS = 2_000;

/** Repeats `act` until it succeeds, with growing pauses. @returns undefined where it was aborted */
export async function persist<T>(
	signal: AbortSignal,
	act: () => Promise<T>,
	failed: (error: unknown) => void,
): Promise<T | undefined> {
	for (let ms = FIRST_MS; !signal.aborted; ms = Math.min(ms * 2, LONGEST_MS)) {
		try {
			return await act();
		} catch (error) {
			failed(error);
			await pause(ms, signal);
		}
	}
	return undefined;
}

/** Settles as the promise does, or rejects after a time. */
export async function within<T>(ms: number, promise: Promise<T>, late: () => Error): Promise<T> {
	let handle: NodeJS.Timeout | undefined;
	const timer = new Promise<never>((_, reject) => {
		handle = setTimeout(() => reject(late()), ms);
	});
	try {
		return await Promise.race([promise, timer]);
	} finally {
		clearTimeout(handle);
	}
}

/** Runs each key's work once, together for all who ask at a time; failed work is forgotten. */
export class Once {
	readonly #done = new Map<string, Promise<void>>();

	run(key: string, work: () => Promise<void>): Promise<void> {
		const known = this.#done.get(key);
		if (known) return known;
		const made = work();
		this.#done.set(key, made);
		made.catch(() => {
			if (this.#done.get(key) === made) this.#done.delete(key);
		});
		return made;
	}

	/** Forgets what was done, for the keys that begin so. */
	forget(prefix = ""): void {
		for (const key of this.#done.keys()) if (key.startsWith(prefix)) this.#done.delete(key);
	}
}
