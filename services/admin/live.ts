import type { ChangedNotice, Clock, Timer } from "../../protocol/index.ts";
import type { CallCoordinator } from "./coordinator-calls.ts";
import type { EventHub } from "./events.ts";
import { countsOf, type Stats } from "./figures.ts";

/** Counts are read at most this often after a change, and this often when nothing changes. */
const AFTER_CHANGE_MS = 1_000;
const IN_SILENCE_MS = 5_000;

/** Keeps the event streams up to date, as long as somebody looks on; says so when nobody did. */
export class Live {
	readonly #hub: EventHub;
	readonly #call: CallCoordinator;
	readonly #clock: Clock;
	#timer: Timer | undefined;
	#dueAt = 0;
	#reading = false;
	/** Whether something came up while the counts were read. */
	#again = false;
	#available: boolean | undefined;
	#counts = "";
	#stopped = false;

	constructor(hub: EventHub, call: CallCoordinator, clock: Clock) {
		this.#hub = hub;
		this.#call = call;
		this.#clock = clock;
	}

	/** Somebody opened a stream. */
	looked(): void {
		this.#readIn(0);
	}

	/** A coordinator told of changes. */
	changed({ changed, more }: ChangedNotice): void {
		if (!this.#hub.awaited) {
			this.#hub.skip();
			return;
		}
		this.#hub.publish("groups", { changed, more });
		this.#readIn(AFTER_CHANGE_MS);
	}

	stop(): void {
		this.#stopped = true;
		this.#timer?.cancel();
	}

	#readIn(ms: number): void {
		const at = this.#clock.now() + ms;
		this.#again = true;
		if (this.#stopped || this.#reading || (this.#timer && this.#dueAt <= at)) return;
		this.#timer?.cancel();
		this.#dueAt = at;
		this.#timer = this.#clock.after(ms, () => {
			this.#timer = undefined;
			void this.#read();
		});
	}

	async #read(): Promise<void> {
		if (this.#hub.size === 0) return;
		this.#reading = true;
		this.#again = false;
		try {
			const counts = countsOf(await this.#call<Stats>("stats", {}));
			this.#tellAvailable(true);
			this.#tellCounts(counts);
		} catch {
			this.#counts = "";
			this.#tellAvailable(false);
		}
		this.#reading = false;
		this.#readIn(this.#again ? AFTER_CHANGE_MS : IN_SILENCE_MS);
	}

	#tellAvailable(available: boolean): void {
		if (available === this.#available) return;
		this.#available = available;
		this.#hub.publish("coordinator", { available }, true);
	}

	#tellCounts(counts: ReturnType<typeof countsOf>): void {
		const now = JSON.stringify(counts);
		if (now === this.#counts) return;
		this.#counts = now;
		this.#hub.publish("counts", { at: this.#clock.now(), ...counts }, true);
	}
}
