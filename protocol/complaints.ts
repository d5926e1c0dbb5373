import type { ServiceBroker } from "moleculer";
import type { Clock } from "./clock.ts";

/** How long nothing more is said of one kind of wrong by one peer, in milliseconds. */
const QUIET_MS = 10_000;
/** Lines in that time at the most: names are the peers' own, and a hostile one has ever new ones. */
const MOST = 200;

/**
 * Says what peers do wrong without letting them fill the log: one line in 10 s for each peer and
 * kind, with how many more there were. Counters tell the rest.
 */
export class Complaints {
	readonly #clock: Clock;
	readonly #logger: ServiceBroker["logger"];
	readonly #said = new Map<string, { at: number; more: number }>();

	constructor(clock: Clock, logger: ServiceBroker["logger"]) {
		this.#clock = clock;
		this.#logger = logger;
	}

	/**
	 * @param kind what was done wrong
	 * @param peer who did it
	 * @param line the whole line, made only when it is written
	 */
	say(level: "warn" | "error", kind: string, peer: string, line: () => string): void {
		const key = `${kind}|${peer}`;
		const now = this.#clock.now();
		const said = this.#said.get(key);
		if (said && now - said.at < QUIET_MS) {
			said.more++;
			return;
		}
		if (!said && this.#said.size >= MOST && !this.#forget(now)) return;
		this.#said.set(key, { at: now, more: 0 });
		const more = said && said.more > 0 ? ` (and ${said.more} more like it since the last)` : "";
		this.#logger[level](`${line()}${more}`);
	}

	/** @returns whether there is room again */
	#forget(now: number): boolean {
		for (const [key, { at }] of this.#said) if (now - at >= QUIET_MS) this.#said.delete(key);
		return this.#said.size < MOST;
	}
}
