import { messageOf, type Outcome, type Timer } from "../../protocol/index.ts";
import type { Confirms } from "./confirms.ts";
import type { Core } from "./core.ts";
import { backoff } from "./timing.ts";

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;

/**
 * Outcomes of recorded works that outlived their time limit, or could not be written: only this
 * process knows them. They stay in memory, where check-back finds them (R13), until written.
 */
export class LateOutcomes {
	readonly #core: Core;
	readonly #confirms: Confirms;
	readonly #timers = new Set<Timer>();
	#closed = false;

	constructor(core: Core, confirms: Confirms) {
		this.#core = core;
		this.#confirms = confirms;
	}

	/** @param working the work itself, which may still run */
	follow(id: string, coordinator: string, working: Promise<unknown>): void {
		const ended = (outcome: Outcome) => {
			const group = this.#core.active.get(id);
			if (group) group.outcome = outcome;
			void this.#write(id, coordinator, outcome, 1);
		};
		working.then(
			() => {
				ended("committed");
			},
			() => {
				ended("rolledBack");
			},
		);
	}

	close(): void {
		this.#closed = true;
		for (const timer of this.#timers) timer.cancel();
	}

	async #write(id: string, coordinator: string, outcome: Outcome, tries: number): Promise<void> {
		if (this.#closed) return;
		const { store, active, logger, settings } = this.#core;
		try {
			const stands = (await store.force(id, outcome))
				? outcome
				: (await store.resolve([id]))[0]?.result;
			// Took effect although fenced meanwhile: the commit puts the group in doubt (R17).
			if (outcome === "committed") this.#confirms.commit(coordinator, id);
			else if (stands === "rolledBack") this.#confirms.rollback(coordinator, id);
			active.delete(id);
		} catch (error) {
			logger.warn(`Lottor: outcome of group ${id} not written yet: ${messageOf(error)}`);
			const delay = backoff(tries, FIRST_DELAY_MS, LONGEST_DELAY_MS, settings.random);
			const timer = settings.clock.after(delay, () => {
				this.#timers.delete(timer);
				void this.#write(id, coordinator, outcome, tries + 1);
			});
			this.#timers.add(timer);
		}
	}
}
