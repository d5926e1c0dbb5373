import type { Clock, LottorError } from "../../../protocol/index.ts";
import { isBusy, isOwnFault } from "./faults.ts";

/** What one transaction carries at most, so that the loop is not frozen for long. */
const BATCH_CALLS = 1_000;
const BATCH_MS = 25;
/** Turns of the loop that a batch waits for as many calls as the last one had, or for enough. */
const PATIENCE = 2;
const ENOUGH = 16;

/** Milliseconds between two tries for the lock: a random share of this. */
const RETRY_MS = 10;

/** How the writer reaches the database. */
export interface WriterHost {
	/** Takes the write lock without waiting. */
	begin(): void;
	commit(): void;
	/** Undoes the transaction, if there is one, and forgets what was read within it. */
	rollback(): void;
	/** Turns a fault of the database into the error of every call that it hit. */
	fault(error: unknown): LottorError;
	/** Told after each commit. */
	committed(calls: number): void;
}

interface Call {
	readonly run: () => unknown;
	readonly resolve: (value: unknown) => void;
	readonly reject: (error: unknown) => void;
	/** When it gives up waiting for the lock. */
	readonly until: number;
	value?: unknown;
}

/**
 * Group commit: calls that come while the loop is busy share one transaction and one fsync. While
 * many come, a batch waits a turn or two to be as full as the last one; a turn of an idle loop takes
 * no time.
 * A call is answered only after COMMIT. A database fault rolls back and rejects the whole batch;
 * a call that throws for reasons of its own is left out, and the others are run again without it.
 */
export class BatchWriter {
	readonly #host: WriterHost;
	readonly #clock: Clock;
	readonly #fraction: () => number;
	readonly #lockTimeout: number;
	#queue: Call[] = [];
	#scheduled = false;
	/** How many calls the last transaction carried. */
	#last = 0;
	#idle: (() => void)[] = [];

	constructor(
		host: WriterHost,
		options: {
			readonly clock: Clock;
			readonly fraction: () => number;
			/** Milliseconds that a call waits for the lock. */
			readonly lockTimeout: number;
		},
	) {
		this.#host = host;
		this.#clock = options.clock;
		this.#fraction = options.fraction;
		this.#lockTimeout = options.lockTimeout;
	}

	/** Runs `run` within the next transaction. It must not wait for anything. */
	submit<T>(run: () => T): Promise<T> {
		return new Promise<T>((resolve, reject) => {
			this.#queue.push({
				run,
				resolve: resolve as (value: unknown) => void,
				reject,
				until: this.#clock.now() + this.#lockTimeout,
			});
			this.#schedule();
		});
	}

	/** Resolves once nothing is queued. */
	idle(): Promise<void> {
		if (this.#queue.length === 0) return Promise.resolve();
		return new Promise((resolve) => this.#idle.push(resolve));
	}

	/** Rejects all that is queued. */
	abort(error: unknown): void {
		const calls = this.#queue;
		this.#queue = [];
		for (const call of calls) call.reject(error);
		this.#settled();
	}

	#schedule(): void {
		if (this.#scheduled || this.#queue.length === 0) return;
		this.#scheduled = true;
		this.#flushWithin(PATIENCE);
	}

	#flushWithin(turns: number): void {
		setImmediate(() => {
			const full = this.#queue.length >= Math.min(this.#last, ENOUGH);
			if (turns > 0 && !full) this.#flushWithin(turns - 1);
			else this.#flush();
		});
	}

	#flush(): void {
		this.#scheduled = false;
		if (this.#queue.length > 0) this.#transact();
		this.#schedule();
		this.#settled();
	}

	#settled(): void {
		if (this.#queue.length > 0) return;
		const waiting = this.#idle;
		this.#idle = [];
		for (const resolve of waiting) resolve();
	}

	#transact(): void {
		try {
			this.#host.begin();
		} catch (error) {
			if (isBusy(error)) this.#waitForLock(error);
			else this.abort(this.#host.fault(error));
			return;
		}
		const batch: Call[] = [];
		try {
			this.#fill(batch);
			this.#host.commit();
		} catch (error) {
			this.#host.rollback();
			const fault = this.#host.fault(error);
			for (const call of batch) call.reject(fault);
			return;
		}
		for (const call of batch) call.resolve(call.value);
		this.#last = batch.length;
		this.#host.committed(batch.length);
	}

	/** Moves calls from the queue to the batch and runs them. */
	#fill(batch: Call[]): void {
		const end = this.#clock.now() + BATCH_MS;
		const queue = this.#queue;
		this.#queue = [];
		let taken = 0;
		try {
			for (const call of queue) {
				if (taken === BATCH_CALLS || (taken > 0 && this.#clock.now() >= end)) break;
				taken++;
				batch.push(call);
				this.#run(batch);
			}
		} finally {
			this.#queue = queue.slice(taken).concat(this.#queue);
		}
	}

	/** Runs the newest call of the batch; is it at fault, all others anew without it. */
	#run(batch: Call[]): void {
		for (let place = batch.length - 1; place < batch.length;) {
			const call = batch[place];
			if (!call) return;
			try {
				call.value = call.run();
				place++;
			} catch (error) {
				if (!isOwnFault(error)) throw error;
				batch.splice(place, 1);
				call.reject(error);
				this.#host.rollback();
				this.#host.begin();
				place = 0;
			}
		}
	}

	/** Tries again soon, without blocking the loop; calls that waited too long are refused. */
	#waitForLock(error: unknown): void {
		const now = this.#clock.now();
		const late = this.#queue.filter((call) => call.until <= now);
		this.#queue = this.#queue.filter((call) => call.until > now);
		if (late.length > 0) {
			const fault = this.#host.fault(error);
			for (const call of late) call.reject(fault);
		}
		if (this.#queue.length === 0) return;
		this.#scheduled = true;
		this.#clock.after(1 + RETRY_MS * this.#fraction(), () => this.#flush());
	}
}
