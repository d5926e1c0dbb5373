import { AsyncLocalStorage } from "node:async_hooks";
import type { Clock, ItemAnswer, Random, Timer } from "../../protocol/index.ts";
import { batches } from "./client.ts";
import { backoff } from "./timing.ts";

/** Calls of one lane that are under way at once; meanwhile the next batch gathers. */
const IN_FLIGHT = 4;
const FIRST_DELAY_MS = 200;
const LONGEST_DELAY_MS = 15_000;
const FIRST_AGAIN_MS = 1_000;
const LONGEST_AGAIN_MS = 300_000;

/** One thing to tell a coordinator. */
export interface Parcel {
	/** Identifies it; adding the same key again does nothing. */
	readonly key: string;
	/** Its size in a call. */
	readonly bytes: number;
}

export interface OutboxOptions<P extends Parcel> {
	readonly clock: Clock;
	readonly random: Random;
	/** Most parcels kept in memory. */
	readonly limit: number;
	/** Rejects when it is not known what became of the call. */
	send(storeId: string, parcels: readonly P[]): Promise<readonly ItemAnswer[]>;
	/** Takes the answer; `again`: it is sent again later, with its own backoff. */
	settle(parcel: P, answer: ItemAnswer, storeId: string): "done" | "again";
	/** A call failed and will be repeated. */
	failed(error: unknown, storeId: string, failures: number): void;
}

interface Lane<P> {
	readonly storeId: string;
	waiting: P[];
	inFlight: number;
	failures: number;
	gathering: boolean;
	timer: Timer | undefined;
}

interface Waiter {
	readonly test: () => boolean;
	readonly done: () => void;
}

/**
 * Tells coordinators things in the background until they acknowledge: batched per coordinator
 * store, repeated with backoff, bounded in memory.
 */
export class Outbox<P extends Parcel> {
	readonly #options: OutboxOptions<P>;
	readonly #parcels = new Map<string, P>();
	readonly #tries = new Map<string, number>();
	readonly #againTimers = new Map<string, Timer>();
	readonly #lanes = new Map<string, Lane<P>>();
	readonly #waiters = new Set<Waiter>();
	/** Calls belong to nobody's transaction, whoever's parcel started them. */
	readonly #outside = AsyncLocalStorage.snapshot();
	#closed = false;

	constructor(options: OutboxOptions<P>) {
		this.#options = options;
	}

	/** Parcels that are not acknowledged. */
	get size(): number {
		return this.#parcels.size;
	}

	/** The parcel of this key, while it is not acknowledged. */
	get(key: string): P | undefined {
		return this.#parcels.get(key);
	}

	/** @returns false when it was not taken, because the outbox is full or closed */
	add(storeId: string, parcel: P): boolean {
		if (this.#parcels.has(parcel.key)) return true;
		if (this.#closed || this.#parcels.size >= this.#options.limit) return false;
		this.#parcels.set(parcel.key, parcel);
		this.#outside(() => {
			this.#enqueue(storeId, parcel);
		});
		return true;
	}

	/** Tries now what waits for its backoff: a coordinator may have come back. */
	wake(): void {
		for (const lane of this.#lanes.values()) {
			if (!lane.timer) continue;
			lane.timer.cancel();
			lane.timer = undefined;
			this.#gather(lane);
		}
	}

	/** Resolves once everything known here is acknowledged. */
	flushed(): Promise<void> {
		return this.#until(() => this.#parcels.size === 0);
	}

	/** Tries everything once more; resolves when each lane is empty or has failed. */
	drained(): Promise<void> {
		this.wake();
		return this.#until(() => {
			const lanes = [...this.#lanes.values()];
			return lanes.every((lane) => lane.inFlight === 0 && (!lane.gathering || lane.timer));
		});
	}

	/** Stops trying. What is left is found by check-back and by asking. */
	close(): void {
		this.#closed = true;
		for (const lane of this.#lanes.values()) lane.timer?.cancel();
		for (const timer of this.#againTimers.values()) timer.cancel();
		this.#lanes.clear();
		this.#againTimers.clear();
		this.#parcels.clear();
		this.#tell();
	}

	#enqueue(storeId: string, parcel: P): void {
		let lane = this.#lanes.get(storeId);
		if (!lane) {
			lane = {
				storeId,
				waiting: [],
				inFlight: 0,
				failures: 0,
				gathering: false,
				timer: undefined,
			};
			this.#lanes.set(storeId, lane);
		}
		lane.waiting.push(parcel);
		this.#gather(lane);
	}

	#gather(lane: Lane<P>): void {
		if (this.#closed || lane.gathering || lane.timer || lane.inFlight >= IN_FLIGHT) return;
		if (lane.waiting.length === 0) return;
		lane.gathering = true;
		setImmediate(() => {
			lane.gathering = false;
			this.#pump(lane);
		});
	}

	#pump(lane: Lane<P>): void {
		const all = batches(lane.waiting);
		const now = lane.timer ? [] : all.splice(0, IN_FLIGHT - lane.inFlight);
		lane.waiting = all.flat();
		for (const batch of now) {
			lane.inFlight++;
			void this.#send(lane, batch);
		}
		this.#tell();
	}

	async #send(lane: Lane<P>, batch: readonly P[]): Promise<void> {
		const { storeId } = lane;
		try {
			const answers = await this.#options.send(storeId, batch);
			lane.failures = 0;
			batch.forEach((parcel, index) => {
				const answer = answers[index];
				if (answer) this.#answered(parcel, answer, storeId);
			});
		} catch (error) {
			this.#failed(lane, batch, error);
		}
		lane.inFlight--;
		this.#gather(lane);
		if (lane.inFlight === 0 && lane.waiting.length === 0) this.#lanes.delete(storeId);
		this.#tell();
	}

	#answered(parcel: P, answer: ItemAnswer, storeId: string): void {
		if (this.#closed) return;
		const { clock, random } = this.#options;
		if (this.#options.settle(parcel, answer, storeId) === "done") {
			this.#parcels.delete(parcel.key);
			this.#tries.delete(parcel.key);
			return;
		}
		const tries = (this.#tries.get(parcel.key) ?? 0) + 1;
		this.#tries.set(parcel.key, tries);
		const delay = backoff(tries, FIRST_AGAIN_MS, LONGEST_AGAIN_MS, random);
		const timer = clock.after(delay, () => {
			this.#againTimers.delete(parcel.key);
			this.#enqueue(storeId, parcel);
		});
		this.#againTimers.set(parcel.key, timer);
	}

	#failed(lane: Lane<P>, batch: readonly P[], error: unknown): void {
		if (this.#closed) return;
		lane.waiting.unshift(...batch);
		if (lane.timer) return;
		lane.failures++;
		this.#options.failed(error, lane.storeId, lane.failures);
		const { clock, random } = this.#options;
		const delay = backoff(lane.failures, FIRST_DELAY_MS, LONGEST_DELAY_MS, random);
		lane.timer = clock.after(delay, () => {
			lane.timer = undefined;
			this.#gather(lane);
		});
	}

	#until(test: () => boolean): Promise<void> {
		if (test()) return Promise.resolve();
		return new Promise((resolve) => this.#waiters.add({ test, done: resolve }));
	}

	#tell(): void {
		for (const waiter of this.#waiters) {
			if (!waiter.test()) continue;
			this.#waiters.delete(waiter);
			waiter.done();
		}
	}
}
