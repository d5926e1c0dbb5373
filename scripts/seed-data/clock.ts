import type { SetClock } from "./seed.ts";

/**
 * A clock that stands where it was set; its timers are the machine's. They keep the process alive,
 * which would end in the middle of its work when all it does is to wait for another one's lock.
 */
export function setClock(at: number): SetClock {
	let now = at;
	return {
		now: () => now,
		after(ms, fn) {
			const timer = setTimeout(fn, ms);
			return { cancel: () => clearTimeout(timer) };
		},
		set(to) {
			now = to;
		},
	};
}
