import { AsyncLocalStorage } from "node:async_hooks";
import {
	BATCH_BYTES,
	BATCH_ITEMS,
	type Clock,
	type PrepareAnswer,
	type PrepareItem,
} from "../../protocol/index.ts";
import type { Coordinator } from "./registry.ts";
import { within } from "./timing.ts";
import { Window } from "./window.ts";

/** Most prepares that wait in this process, and their bytes. */
const MOST_WAITING = 10_000;
const MOST_WAITING_BYTES = 64 * 1_024 * 1_024;
/** Coordinators that something is remembered of. */
const MOST_WINDOWS = 100;
/** Bytes of an item besides its contents, at a guess. */
const ITEM_OVERHEAD = 256;

/** One try of one prepare. */
interface Try {
	readonly item: PrepareItem;
	readonly bytes: number;
	readonly deadline: number;
	/** Milliseconds that the call may take. */
	readonly limit: number;
	/** Milliseconds that it may wait for others, as long as those are answered. */
	readonly patience: number;
	readonly queuedAt: number;
	/** The coordinator that was called; unset while the try has not left. */
	sentTo?: Coordinator;
	ended: boolean;
	readonly end: (result: TryResult) => void;
}

export type TryResult =
	| { readonly state: "answered"; readonly answer: PrepareAnswer }
	/** No coordinator lives. */
	| { readonly state: "absent" }
	/** It did not leave, since there is more to prepare than the coordinators take. */
	| { readonly state: "overloaded" }
	| { readonly state: "failed"; readonly error: unknown };

/** What one try came to, and at which coordinator. */
export interface Tried {
	readonly sentTo: Coordinator | undefined;
	readonly result: TryResult;
}

interface Queue {
	waiting: Try[];
	bytes: number;
}

export interface PreparesHost {
	readonly clock: Clock;
	/** A living coordinator, of this store where it is given, that `takes` more. */
	pick(
		storeId: string | undefined,
		takes: (coordinator: Coordinator) => boolean,
	): Coordinator | "none lives" | "none takes more";
	/** Rejects when it is not known what became of the call. */
	call(
		coordinator: Coordinator,
		items: readonly PrepareItem[],
		timeout: number,
	): Promise<readonly PrepareAnswer[]>;
}

/** Prepares on their way to the coordinators: those of one tick leave as one call (R28, R29). */
export class Prepares {
	readonly #host: PreparesHost;
	readonly #queues = new Map<string, Queue>();
	/** By node. */
	readonly #windows = new Map<string, Window>();
	/** A batch serves many callers: it runs in nobody's asynchronous context. */
	readonly #outside = AsyncLocalStorage.snapshot();
	#scheduled = false;
	#failedAt = Number.NEGATIVE_INFINITY;

	constructor(host: PreparesHost) {
		this.#host = host;
	}

	/**
	 * Tries once. Never rejects.
	 *
	 * @param deadline when it is over, whatever became of it
	 * @param timeout milliseconds of all tries together
	 * @param storeId the only coordinator store that may be tried
	 */
	async once(item: PrepareItem, deadline: number, timeout: number, storeId = ""): Promise<Tried> {
		const { clock } = this.#host;
		const now = clock.now();
		const bytes = bytesOf(item);
		const queue = this.#queues.get(storeId) ?? { waiting: [], bytes: 0 };
		const full = queue.waiting.length >= MOST_WAITING;
		if (full || (queue.bytes > 0 && queue.bytes + bytes > MOST_WAITING_BYTES))
			return { sentTo: undefined, result: { state: "overloaded" } };

		let end: (result: TryResult) => void = () => undefined;
		const ended = new Promise<TryResult>((resolve) => (end = resolve));
		const attempt: Try = {
			item,
			bytes,
			deadline,
			limit: Math.max(1_000, timeout / 3),
			patience: timeout / 2,
			queuedAt: now,
			ended: false,
			end,
		};
		queue.waiting.push(attempt);
		queue.bytes += bytes;
		this.#queues.set(storeId, queue);
		this.#schedule();
		const result = await within(clock, deadline - now, ended).catch(
			(error: unknown): TryResult =>
				attempt.sentTo ? { state: "failed", error } : { state: "overloaded" },
		);
		attempt.ended = true;
		return { sentTo: attempt.sentTo, result };
	}

	#schedule(): void {
		if (this.#scheduled) return;
		this.#scheduled = true;
		this.#outside(setImmediate, () => {
			this.#scheduled = false;
			for (const [storeId, queue] of this.#queues) this.#pump(storeId, queue);
		});
	}

	#pump(storeId: string, queue: Queue): void {
		for (;;) {
			this.#dropLate(queue);
			if (queue.waiting.length === 0) {
				this.#queues.delete(storeId);
				return;
			}
			const coordinator = this.#host.pick(
				storeId || undefined,
				({ nodeID }) => this.#windowOf(nodeID).items > 0,
			);
			if (coordinator === "none takes more") return;
			if (coordinator === "none lives") {
				for (const { end } of this.#take(queue, Infinity, Infinity))
					end({ state: "absent" });
				continue;
			}
			const window = this.#windowOf(coordinator.nodeID);
			const items = Math.min(window.items, BATCH_ITEMS);
			const batch = this.#take(queue, items, Math.min(window.bytes, BATCH_BYTES));
			void this.#send(batch, coordinator, window);
		}
	}

	/** Ends those that nobody waits for, and those that have waited too long while others left. */
	#dropLate(queue: Queue): void {
		const now = this.#host.clock.now();
		const late = queue.waiting.findIndex(
			({ ended, queuedAt, patience }) =>
				!ended && now - Math.max(queuedAt, this.#failedAt) <= patience,
		);
		const over = this.#take(queue, late < 0 ? Infinity : late, Infinity);
		for (const { end } of over) end({ state: "overloaded" });
	}

	/** Takes the first ones out of the queue, at least one where `items` is not 0. */
	#take(queue: Queue, items: number, bytes: number): Try[] {
		let count = 0;
		let sum = 0;
		for (const attempt of queue.waiting) {
			if (count >= items || (count > 0 && sum + attempt.bytes > bytes)) break;
			count++;
			sum += attempt.bytes;
		}
		queue.bytes -= sum;
		return queue.waiting.splice(0, count);
	}

	async #send(batch: readonly Try[], coordinator: Coordinator, window: Window): Promise<void> {
		const now = this.#host.clock.now();
		const bytes = batch.reduce((sum, attempt) => sum + attempt.bytes, 0);
		const underway = window.take(batch.length, bytes);
		for (const attempt of batch) attempt.sentTo = coordinator;
		let overloaded = false;
		try {
			const timeout = Math.max(
				...batch.map(({ deadline, limit }) => Math.min(deadline - now, limit)),
			);
			const items = batch.map(({ item }) => item);
			const answers = await this.#host.call(coordinator, items, timeout);
			batch.forEach(({ end }, place) => {
				const answer = answers[place];
				if (!answer) return;
				overloaded ||=
					answer.result === "refused" && answer.error.code === "LOTTOR_OVERLOADED";
				end({ state: "answered", answer });
			});
		} catch (error) {
			overloaded = true;
			this.#failedAt = this.#host.clock.now();
			for (const { end } of batch) end({ state: "failed", error });
		}
		window.ended(underway, overloaded);
		if (this.#queues.size > 0) this.#schedule();
		else this.#forgetIdle();
	}

	#windowOf(nodeID: string): Window {
		let window = this.#windows.get(nodeID);
		if (!window) this.#windows.set(nodeID, (window = new Window(this.#host.clock)));
		return window;
	}

	/** Coordinators come and go: what was learnt of most of them is of no use any more. */
	#forgetIdle(): void {
		if (this.#windows.size <= MOST_WINDOWS) return;
		for (const [nodeID, window] of this.#windows) if (window.idle) this.#windows.delete(nodeID);
	}
}

function bytesOf(item: PrepareItem): number {
	let bytes = ITEM_OVERHEAD + (item.context?.length ?? 0);
	for (const { content } of item.messages) bytes += ITEM_OVERHEAD + Buffer.byteLength(content);
	return bytes;
}
