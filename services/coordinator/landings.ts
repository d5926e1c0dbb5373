import { parseMessageId, type Timer } from "../../protocol/index.ts";
import type { Engine } from "./engine.ts";
import { FIRST_LOOK_MS, type Flight } from "./flights.ts";

/** Flights that one call of the store is about. */
const LOOK_LIMIT = 50;

/**
 * Finds out what ended at other coordinators, or was sent by others meanwhile: a report goes to any
 * of them, and a message that is no longer `delivering` must take no room here (R21). The store knows,
 * whoever took the report, and whether or not that one still lives. Flights that land here are not
 * looked for, and those of a target that is slow ever more rarely.
 */
export class Landings {
	readonly #engine: Engine;
	readonly #landed: (id: string) => void;
	readonly #go: () => void;
	#timer: Timer | undefined;
	#firesAt = Number.POSITIVE_INFINITY;

	/**
	 * @param landed told of each message that is no longer under way
	 * @param go has {@link Landings.pass} run
	 */
	constructor(engine: Engine, landed: (id: string) => void, go: () => void) {
		this.#engine = engine;
		this.#landed = landed;
		this.#go = go;
	}

	/** A message to this target is under way: where room gets short, somebody looks in time. */
	took(target: string): void {
		const { flights, settings } = this.#engine;
		if (flights.isCrowded(target)) this.#arm(settings.clock.now() + FIRST_LOOK_MS);
	}

	/** Looks for what may have ended elsewhere. */
	async pass(): Promise<void> {
		const { flights } = this.#engine;
		const due = flights.toLook();
		for (let start = 0; start < due.length; start += LOOK_LIMIT)
			await this.#look(due.slice(start, start + LOOK_LIMIT));
		const next = flights.nextLook();
		if (next < Number.POSITIVE_INFINITY) this.#arm(next);
	}

	async #look(flying: readonly Flight[]): Promise<void> {
		const { flights, store } = this.#engine;
		const ids = [...new Set(flying.map(({ id }) => parseMessageId(id)?.group ?? ""))];
		const groups = await store.get(ids);
		const byId = new Map(ids.map((id, place) => [id, groups[place]]));
		for (const flight of flying) {
			// Landed, or sent again, meanwhile: what was read says nothing of it.
			if (!flights.has(flight)) continue;
			const { group = "", index = -1 } = parseMessageId(flight.id) ?? {};
			if (byId.get(group)?.messages[index]?.state === "delivering") flights.looked(flight);
			else this.#landed(flight.id);
		}
	}

	#arm(at: number): void {
		const { settings } = this.#engine;
		if (this.#engine.stopping() || (this.#timer && this.#firesAt <= at)) return;
		this.#timer?.cancel();
		const now = settings.clock.now();
		this.#firesAt = Math.max(at, now + FIRST_LOOK_MS);
		this.#timer = settings.clock.after(this.#firesAt - now, () => {
			this.#timer = undefined;
			this.#go();
		});
	}
}
