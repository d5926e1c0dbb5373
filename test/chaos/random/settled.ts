import { setTimeout as sleep } from "node:timers/promises";

import type { CoordinatorData } from "./coordinator-file.ts";

/** Longer than any lease of a chaos run. */
const STILL_MS = 3_000;

/**
 * Waits until no group is under way, for a while.
 *
 * @param limit milliseconds that it may take
 * @param every milliseconds between two looks
 * @returns whether it came to that
 */
export async function settled(data: CoordinatorData, limit: number, every = 100): Promise<boolean> {
	const end = Date.now() + limit;
	for (let still = 0; still < STILL_MS; still += every) {
		if (Date.now() > end) return false;
		// A store that is not back yet has everything still before it.
		const busy = await Promise.resolve(data.busy()).catch(() => Infinity);
		if (busy > 0) still = 0;
		await sleep(every);
	}
	return true;
}
