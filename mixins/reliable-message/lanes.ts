interface Lane<T> {
	readonly limit: number;
	running: number;
	queue: T[];
}

/** Queues whose items are worked on in order, each lane up to its own number at once. */
export class Lanes<T> {
	readonly #work: (item: T) => Promise<void>;
	readonly #lanes = new Map<string, Lane<T>>();

	/** @param work must not reject */
	constructor(work: (item: T) => Promise<void>) {
		this.#work = work;
	}

	/** Items that are worked on. */
	get running(): number {
		return this.#sum((lane) => lane.running);
	}

	/** Items that wait. */
	get queued(): number {
		return this.#sum((lane) => lane.queue.length);
	}

	/** @param limit items of this lane at once; the lane's first call sets it */
	add(key: string, limit: number, item: T): void {
		let lane = this.#lanes.get(key);
		if (!lane) {
			lane = { limit, running: 0, queue: [] };
			this.#lanes.set(key, lane);
		}
		lane.queue.push(item);
		this.#pump(lane);
	}

	/** Takes a waiting item out. */
	remove(item: T): void {
		for (const lane of this.#lanes.values()) {
			lane.queue = lane.queue.filter((one) => one !== item);
		}
	}

	#pump(lane: Lane<T>): void {
		while (lane.running < lane.limit) {
			const item = lane.queue.shift();
			if (item === undefined) return;
			lane.running++;
			void this.#work(item).finally(() => {
				lane.running--;
				this.#pump(lane);
			});
		}
	}

	#sum(count: (lane: Lane<T>) => number): number {
		let sum = 0;
		for (const lane of this.#lanes.values()) sum += count(lane);
		return sum;
	}
}
