/** What tells a record from another one, also from one at the same offset of a topic made anew. */
export interface RecordId {
	readonly offset: bigint;
	/** When it was produced. */
	readonly timestamp: string;
}

/**
 * Which records of one partition are being handled and which are done, in whatever order they end;
 * only the finished beginning may be committed (R33).
 */
export class PartitionLog {
	/** From the first unfinished record on. */
	readonly #known = new Map<bigint, { readonly timestamp: string; done: boolean }>();
	/** After the last record taken. */
	#next = 0n;
	#assigned = false;
	/** The first record that came since the partition was assigned, and the end at that time. */
	#first = 0n;
	#end = 0n;

	/**
	 * @param end after the last record that the partition had when this one was fetched
	 * @returns whether the record is new: else it is being handled, or done and not committed yet
	 */
	take({ offset, timestamp }: RecordId, end = offset + 1n): boolean {
		if (!this.#assigned) this.#begin(offset, end);
		const known = this.#known.get(offset);
		if (known?.timestamp === timestamp) return false;
		// Another record where one has been: the topic was made anew, or the group was set back.
		if (known || offset < this.#next) this.#known.clear();
		this.#known.set(offset, { timestamp, done: false });
		this.#next = offset + 1n;
		return true;
	}

	/**
	 * Whether somebody else may have had the record: Kafka does not say. What a consumer has and has
	 * not committed lies right behind what it has.
	 *
	 * @param inFlight records that a consumer has at once
	 */
	mayRepeat(offset: bigint, inFlight: number): boolean {
		return offset < this.#end && offset < this.#first + BigInt(inFlight);
	}

	/** The record is done. */
	finish({ offset, timestamp }: RecordId): void {
		const known = this.#known.get(offset);
		if (known?.timestamp === timestamp) known.done = true;
	}

	/** The group is shared out anew: nothing may be committed until records come again. */
	reassigned(): void {
		this.#assigned = false;
	}

	/** @returns the offset before which everything is done; undefined where that is not known now */
	committable(): bigint | undefined {
		if (!this.#assigned) return undefined;
		let first = this.#next;
		for (const [offset, { done }] of this.#known) if (!done && offset < first) first = offset;
		return first;
	}

	/** Everything before the offset is committed. */
	committed(before: bigint): void {
		for (const [offset, { done }] of this.#known) {
			if (done && offset < before) this.#known.delete(offset);
		}
	}

	/** Records before the offset have meanwhile been others' business. */
	#begin(offset: bigint, end: bigint): void {
		this.#assigned = true;
		this.#first = offset;
		this.#end = end;
		for (const known of this.#known.keys()) if (known < offset) this.#known.delete(known);
		if (this.#known.size === 0) this.#next = offset;
	}
}
