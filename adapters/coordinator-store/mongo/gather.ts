import { limited, systemClock } from "../../../protocol/index.ts";

/** A driver may leave a call without an answer for good, as of a client that was closed meanwhile. */
const LIMIT_MS = 12_000;

/** An item that failed, among others of its batch. */
export class Failed {
	readonly error: unknown;

	constructor(error: unknown) {
		this.error = error;
	}
}

interface Waiting<Item, Result> {
	readonly item: Item;
	readonly resolve: (result: Result) => void;
	readonly reject: (error: unknown) => void;
}

/**
 * Group commit: while one batch is under way, what comes is gathered for the next, which starts as
 * soon as the former has ended, or has had no answer for too long: it may or may not have happened.
 */
export class Gatherer<Item, Result> {
	readonly #run: (items: readonly Item[]) => Promise<readonly (Result | Failed)[]>;
	readonly #most: number;
	readonly #hitsAll: (error: unknown) => boolean;
	readonly #limit: number;
	#waiting: Waiting<Item, Result>[] = [];
	#working: Promise<void> | undefined;

	/**
	 * @param run does a batch
	 * @param most items in a batch
	 * @param hitsAll tells of an error of `run` that it is the server's: then all that waits gets it
	 *   too, since nobody should wait for the same again. With others, every item of the batch is tried
	 *   alone, so that one which can't be done does not affect the others.
	 * @param limit milliseconds after which a batch is given up
	 */
	constructor(
		run: (items: readonly Item[]) => Promise<readonly (Result | Failed)[]>,
		most: number,
		hitsAll: (error: unknown) => boolean,
		limit = LIMIT_MS,
	) {
		this.#run = run;
		this.#most = most;
		this.#hitsAll = hitsAll;
		this.#limit = limit;
	}

	/** Adds items to the next batches. @returns their results in order, or the first one's error */
	async submit(items: readonly Item[]): Promise<Result[]> {
		const results = items.map(
			(item) =>
				new Promise<Result>((resolve, reject) =>
					this.#waiting.push({ item, resolve, reject }),
				),
		);
		this.#working ??= this.#work();
		const settled = await Promise.allSettled(results);
		return settled.map((one) => {
			if (one.status === "rejected") throw one.reason;
			return one.value;
		});
	}

	/** Resolves once nothing is under way. */
	async idle(): Promise<void> {
		await this.#working;
	}

	async #work(): Promise<void> {
		// What is called in the same turn of the loop joins the first batch.
		await new Promise((turn) => setImmediate(turn));
		while (this.#waiting.length > 0) {
			await this.#do(this.#waiting.splice(0, this.#most));
		}
		this.#working = undefined;
	}

	#answer(items: readonly Item[]): Promise<readonly (Result | Failed)[]> {
		const timeout = this.#limit;
		const timeoutError = () => new Error(`timed out: no answer within ${timeout} ms`);
		return limited(systemClock, { timeout, timeoutError }, this.#run(items));
	}

	async #do(batch: readonly Waiting<Item, Result>[]): Promise<void> {
		try {
			const results = await this.#answer(batch.map(({ item }) => item));
			batch.forEach(({ resolve, reject }, place) => {
				const result = results[place];
				if (result instanceof Failed) reject(result.error);
				else resolve(result as Result);
			});
		} catch (error) {
			const [first] = batch;
			if (this.#hitsAll(error)) {
				for (const { reject } of [...batch, ...this.#waiting.splice(0)]) reject(error);
			} else if (batch.length === 1) {
				first?.reject(error);
			} else {
				for (const one of batch) await this.#do([one]);
			}
		}
	}
}
