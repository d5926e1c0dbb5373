/**
 * Who was heard when, on a clock that runs only while this process has its turn: one that stood still,
 * or hardly gets a turn on a busy machine, has heartbeats waiting that it has not read yet.
 */
export class Liveness {
	readonly #timeoutMs: number;
	readonly #longestMs: number;
	readonly #now: () => number;
	readonly #heardAt = new Map<string, number>();
	/** Instances that said goodbye: what is still under way about them must not bring them back. */
	readonly #farewells = new Map<string, { instanceID: string; at: number }>();
	#lookedAt: number;
	/** What the clock had run when it was last looked at. */
	#elapsed = 0;

	/**
	 * @param timeoutMs after so long a silence a node counts as gone
	 * @param periodMs between two calls of {@link silent}; twice as long is a standstill
	 */
	constructor(timeoutMs: number, periodMs: number, now: () => number = () => performance.now()) {
		this.#timeoutMs = timeoutMs;
		this.#longestMs = 2 * periodMs;
		this.#now = now;
		this.#lookedAt = now();
	}

	/** A node gave a sign of life. */
	heard(nodeID: string): void {
		this.#heardAt.set(nodeID, this.#clock());
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
		const clock = this.#tick();
		for (const nodeID of this.#heardAt.keys()) this.#heardAt.set(nodeID, clock);
	}

	/** @returns those that were silent for longer than the time-out */
	silent(nodeIDs: readonly string[]): string[] {
		const clock = this.#tick();
		for (const nodeID of this.#heardAt.keys()) {
			if (!nodeIDs.includes(nodeID)) this.#heardAt.delete(nodeID);
		}
		for (const [nodeID, { at }] of this.#farewells) {
			if (this.#lookedAt - at > this.#timeoutMs) this.#farewells.delete(nodeID);
		}
		return nodeIDs.filter((nodeID) => {
			const heardAt = this.#heardAt.get(nodeID);
			if (heardAt === undefined) this.#heardAt.set(nodeID, clock);
			return heardAt !== undefined && clock - heardAt > this.#timeoutMs;
		});
	}

	#clock(): number {
		return this.#elapsed + Math.min(this.#now() - this.#lookedAt, this.#longestMs);
	}

	#tick(): number {
		this.#elapsed = this.#clock();
		this.#lookedAt = this.#now();
		return this.#elapsed;
	}
}
