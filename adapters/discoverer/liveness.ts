/** Who was heard when, on a clock that never jumps. */
export class Liveness {
	readonly #timeoutMs: number;
	readonly #now: () => number;
	readonly #heardAt = new Map<string, number>();
	/** Instances that said goodbye: what is still under way about them must not bring them back. */
	readonly #farewells = new Map<string, { instanceID: string; at: number }>();
	#lookedAt: number;

	constructor(timeoutMs: number, now: () => number = () => performance.now()) {
		this.#timeoutMs = timeoutMs;
		this.#now = now;
		this.#lookedAt = now();
	}

	/** A node gave a sign of life. */
	heard(nodeID: string): void {
		this.#heardAt.set(nodeID, this.#now());
	}

	/**
	 * A heartbeat came. None comes after a goodbye, so it is of a broker that was stopped and started
	 * again, which keeps its instanceID.
	 */
	beaten(nodeID: string): void {
		this.heard(nodeID);
		this.#farewells.delete(nodeID);
	}

	/** An instance said goodbye. */
	left(nodeID: string, instanceID: string): void {
		this.#farewells.set(nodeID, { instanceID, at: this.#now() });
	}

	/** @returns whether what is told of this instance is from before its goodbye */
	hasLeft(nodeID: string, instanceID: string): boolean {
		const farewell = this.#farewells.get(nodeID);
		if (!farewell || farewell.instanceID !== instanceID) return false;
		if (this.#now() - farewell.at <= this.#timeoutMs) return true;
		this.#farewells.delete(nodeID);
		return false;
	}

	/** Counts all silence from now on. */
	resume(): void {
		const now = this.#now();
		for (const nodeID of this.#heardAt.keys()) this.#heardAt.set(nodeID, now);
		this.#lookedAt = now;
	}

	/** @returns those that were silent for longer than the time-out */
	silent(nodeIDs: readonly string[]): string[] {
		const now = this.#now();
		// This process itself stood still: heartbeats that came meanwhile are not read yet.
		if (now - this.#lookedAt > this.#timeoutMs / 2) this.resume();
		this.#lookedAt = now;
		for (const nodeID of this.#heardAt.keys()) {
			if (!nodeIDs.includes(nodeID)) this.#heardAt.delete(nodeID);
		}
		for (const [nodeID, { at }] of this.#farewells) {
			if (now - at > this.#timeoutMs) this.#farewells.delete(nodeID);
		}
		return nodeIDs.filter((nodeID) => {
			const heardAt = this.#heardAt.get(nodeID);
			if (heardAt === undefined) this.#heardAt.set(nodeID, now);
			return heardAt !== undefined && now - heardAt > this.#timeoutMs;
		});
	}
}
