import { systemClock } from "../../protocol/index.ts";
import type { SetClock } from "./seed.ts";

/** A clock that stands where it was set; its timers are the machine's. */
export function setClock(at: number): SetClock {
	let now = at;
	return {
		now: () => now,
		after: (ms, fn) => systemClock.after(ms, fn),
		set(to) {
			now = to;
		},
	};
}
