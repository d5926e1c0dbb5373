import { setTimeout as sleep } from "node:timers/promises";

const TICK = 20;
/** More than this between two ticks is time in which this process did not have its turn, in ms. */
const LONGEST_TICK = 100;
/** After standing still for this long, what was measured before says nothing any more, in ms. */
const STANDSTILL = 1_000;
/** So often a wait begins anew; a process that stands still more often has a fault of its own. */
const LONGEST_PATIENCE = 3;

let live = 0;
let standstills = 0;
let last = performance.now();

setInterval(() => {
	const now = performance.now();
	live += Math.min(now - last, LONGEST_TICK);
	if (now - last > STANDSTILL) standstills++;
	last = now;
}, TICK).unref();

/**
 * Waits for a condition on a clock that runs only while this process has its turn, so that a machine
 * which is too busy, or was paused, is not taken for a fault of what is tested. After a longer
 * standstill the wait begins anew, as heartbeats' silence does.
 *
 * @param ms the limit on that clock
 * @returns the milliseconds that it took by any clock
 * @throws when the condition does not hold in time
 */
export async function within(
	ms: number,
	what: string,
	condition: () => boolean | Promise<boolean>,
): Promise<number> {
	const start = performance.now();
	const firstStandstill = standstills;
	let seen = standstills;
	let from = live;
	for (;;) {
		if (await condition()) return Math.round(performance.now() - start);
		if (standstills > seen && standstills - firstStandstill <= LONGEST_PATIENCE) from = live;
		seen = standstills;
		if (live - from > ms) throw new Error(`Not within ${ms} ms: ${what}`);
		await sleep(TICK);
	}
}
