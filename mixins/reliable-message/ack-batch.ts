import { AsyncLocalStorage } from "node:async_hooks";
import type { Clock, Timer } from "../../protocol/index.ts";

const DELAY_MS = 1_000;
const MOST = 500;
/** Above this the oldest are forgotten: the next sweep sends them again, and they are answered again. */
const LIMIT = 20_000;

/**
 * Gathers what a coordinator has acknowledged and writes them to the store now and then: an
 * acknowledgement that is lost only costs a repeat, so none is worth an fsync of its own.
 */
export class AckBatch<T extends { readonly id: string }> {
	readonly #clock: Clock;
	readonly #write: (acks: readonly T[]) => Promise<void>;
	readonly #failed: (error: unknown) => void;
	/** Writes belong to nobody's transaction, whoever's acknowledgement started them. */
	readonly #outside = AsyncLocalStorage.snapshot();
	#acks = new Map<string, T>();
	#timer: Timer | undefined;
	#writing: Promise<void> = Promise.resolve();

	constructor(
		clock: Clock,
		write: (acks: readonly T[]) => Promise<void>,
		failed: (error: unknown) => void,
	) {
		this.#clock = clock;
		this.#write = write;
		this.#failed = failed;
	}

	has(id: string): boolean {
		return this.#acks.has(id);
	}

	add(ack: T): void {
		this.#acks.set(ack.id, ack);
		if (this.#acks.size >= MOST) void this.flush();
		else this.#flushAfter(DELAY_MS);
	}

	/** Writes what is gathered. Never rejects: what could not be written is tried again later. */
	flush(): Promise<void> {
		this.#timer?.cancel();
		this.#timer = undefined;
		this.#writing = this.#outside(() => this.#writing.then(() => this.#flushNow()));
		return this.#writing;
	}

	/** Forgets what is not written. */
	close(): void {
		this.#timer?.cancel();
		this.#acks.clear();
	}

	#flushAfter(ms: number): void {
		this.#timer ??= this.#outside(() => this.#clock.after(ms, () => void this.flush()));
	}

	async #flushNow(): Promise<void> {
		if (this.#acks.size === 0) return;
		const acks = [...this.#acks.values()];
		this.#acks = new Map();
		try {
			await this.#write(acks);
		} catch (error) {
			this.#failed(error);
			for (const ack of acks.slice(-LIMIT)) this.#acks.set(ack.id, ack);
			this.#flushAfter(DELAY_MS * 10);
		}
	}
}
