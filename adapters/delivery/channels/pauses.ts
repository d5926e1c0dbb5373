const FIRST_MS = 1_000;
const LONGEST_MS = 60_000;

/** Pauses of channels that the broker refuses: longer each time, until it takes a message. */
export class Pauses {
	readonly #channels = new Map<string, { ms: number; until: number }>();

	/** @returns milliseconds to the next try, and whether this refusal made the pause longer */
	refused(channel: string): { readonly delay: number; readonly longer: boolean } {
		const now = performance.now();
		const known = this.#channels.get(channel);
		// One of many that were sent together.
		if (known && now < known.until)
			return { delay: Math.ceil(known.until - now), longer: false };
		const ms = known ? Math.min(known.ms * 2, LONGEST_MS) : FIRST_MS;
		this.#channels.set(channel, { ms, until: now + ms });
		return { delay: ms, longer: true };
	}

	taken(channel: string): void {
		this.#channels.delete(channel);
	}
}
