import {
	type Clock,
	type Guarantee,
	LottorError,
	type Outcome,
	type Owner,
	sameOwner,
	type Timer,
} from "../../protocol/index.ts";
import type { RowBackend } from "./backend.ts";
import { Calls } from "./calls.ts";
import type {
	ConsumeRequest,
	ConsumeResult,
	FenceResult,
	InboxState,
	OpenedParticipantStore,
	ParticipantStore,
	Resolution,
	RunRequest,
	RunResult,
	TxBase,
	UnsettledMessage,
} from "./contract.ts";
import {
	CLAIM_RENEW_MS,
	consumedRow,
	failedRow,
	type FailRequest,
	fencedRow,
	type InboxRow,
	inboxState,
	type OutcomeRow,
	refusal,
	resolution,
} from "./rules.ts";

/** What a store must be able to do for the recorded guarantee. */
export interface RecordedBackend extends RowBackend {
	/** Inserts if absent. @returns whether it was */
	insertOutcome(row: OutcomeRow): Promise<boolean>;
	/** Inserts if absent. @returns whether it was */
	insertInbox(row: InboxRow): Promise<boolean>;
	/** Replaces `before`. @returns whether it stood unchanged */
	swapInbox(before: InboxRow, after: InboxRow): Promise<boolean>;
}

/** Options of {@link RecordedParticipantStore}. */
export interface RecordedStoreOptions {
	readonly clock: Clock;
	/** What the store says of itself. @default "recorded" */
	readonly guarantee?: Guarantee;
}

type Ended = { readonly value: unknown } | { readonly error: unknown };

const RETRY_MS = 100;
const LONGEST_RETRY_MS = 30_000;
/** Tries of the outcome's write before the caller is told that it is not known. */
const QUICK_TRIES = 4;

/**
 * The recorded guarantee, on small atomic steps: `started` before the work and the outcome after
 * it; a claim that is renewed while a handler runs. It can't abort what a work has done, so a work
 * that outlives its limit goes on, and its outcome is stored when it ends.
 */
export class RecordedParticipantStore implements ParticipantStore {
	readonly #backend: RecordedBackend;
	readonly #clock: Clock;
	readonly #guarantee: Guarantee;
	readonly #calls = new Calls();
	/** Messages whose handler has not settled here. */
	readonly #handling = new Map<string, Owner>();
	/** Claims of ours whose handler failed, until `fail` notes it. */
	readonly #failedClaims = new Map<string, Owner>();
	readonly #timers = new Set<Timer>();
	#closed = true;

	constructor(backend: RecordedBackend, options: RecordedStoreOptions) {
		this.#backend = backend;
		this.#clock = options.clock;
		this.#guarantee = options.guarantee ?? "recorded";
	}

	get description(): string {
		return this.#backend.description;
	}

	async open(): Promise<OpenedParticipantStore> {
		const { storeId } = await this.#backend.open();
		this.#closed = false;
		this.#calls.open();
		return { storeId, guarantee: this.#guarantee };
	}

	async close(): Promise<void> {
		await this.#calls.close();
		this.#closed = true;
		for (const timer of this.#timers) timer.cancel();
		this.#timers.clear();
		await this.#backend.close();
	}

	/** A handler's tx is no transaction here: `join` makes a work of its own, at least once (R11). */
	run<T>(request: RunRequest<TxBase>, work: (tx: TxBase) => Promise<T>): Promise<RunResult<T>> {
		return this.#calls.track(this.#run(request, work));
	}

	async #run<T>(
		request: RunRequest<TxBase>,
		work: (tx: TxBase) => Promise<T>,
	): Promise<RunResult<T>> {
		const { id, owner, coordinator, timeout } = request;
		try {
			this.#calls.mustBeOpen();
			const at = this.#backend.now();
			const row = { id, owner, coordinator, at, confirmed: false };
			if (!(await this.#backend.insertOutcome({ ...row, state: "started" }))) {
				return { state: "fenced" };
			}
		} catch (error) {
			return { state: "rolledBack", error };
		}
		const running = settled(() => work({ group: id }));
		const ended = await this.#within(running, timeout);
		if (!ended) {
			void running.then((late) => this.#recordLater(id, "error" in late));
			const error = new LottorError(
				"LOTTOR_WORK_TIMEOUT",
				`The local work took longer than ${timeout} ms; its outcome is stored when it ends`,
				{ group: id },
			);
			return { state: "unknown", error };
		}
		return "error" in ended
			? this.#recordThrown(id, ended.error)
			: this.#recordDone(id, ended.value as T);
	}

	async resolve(ids: readonly string[]): Promise<Resolution[]> {
		const known = await this.#backend.outcomes(ids);
		return Promise.all(
			ids.map(async (id, index): Promise<Resolution> => {
				const stands = resolution(known[index]);
				if (stands || typeof id !== "string") return stands ?? { result: "running" };
				const at = this.#backend.now();
				const fence = { id, owner: null, coordinator: "", at, confirmed: true };
				await this.#backend.insertOutcome({ ...fence, state: "rolledBack" });
				const [row] = await this.#backend.outcomes([id]);
				return resolution(row) ?? { result: "running" };
			}),
		);
	}

	async force(id: string, to: Outcome): Promise<boolean> {
		if (await this.#backend.endOutcome(id, to, this.#backend.now())) return true;
		const [row] = await this.#backend.outcomes([id]);
		return row?.state === to;
	}

	confirm(ids: readonly string[]): Promise<void> {
		return this.#backend.confirm(ids);
	}

	unconfirmed(age: number, limit: number) {
		return this.#backend.unconfirmed(this.#backend.now() - age, limit);
	}

	consume(
		request: ConsumeRequest,
		handler: (tx: TxBase) => Promise<void>,
	): Promise<ConsumeResult> {
		return this.#calls.track(this.#consume(request, handler));
	}

	async #consume(
		request: ConsumeRequest,
		handler: (tx: TxBase) => Promise<void>,
	): Promise<ConsumeResult> {
		const { id, group, timeout } = request;
		if (this.#handling.has(id)) return { result: "busy" };
		this.#handling.set(id, request.owner);
		let claim: Claim;
		try {
			this.#calls.mustBeOpen();
			const claimed = await this.#claim(request);
			if ("result" in claimed) {
				this.#handling.delete(id);
				return claimed;
			}
			claim = claimed;
			this.#failedClaims.delete(id);
		} catch (error) {
			this.#handling.delete(id);
			this.#later(() => this.#release(request));
			return { result: "unknown", error };
		}
		const running = settled(() => handler({ group }));
		const done = running.then((ended) => {
			claim.stop();
			this.#handling.delete(id);
			return ended;
		});
		const ended = await this.#within(done, timeout);
		if (!ended) {
			this.#failedClaims.set(id, request.owner);
			const lasting = done.then((late) => {
				if (!("error" in late)) this.#markConsumedLater(request);
			});
			const error = new LottorError(
				"LOTTOR_HANDLER_TIMEOUT",
				`The handler took longer than ${timeout} ms and still runs`,
				{ group, message: id },
			);
			return { result: "failed", error, lasting };
		}
		if ("error" in ended) {
			this.#failedClaims.set(id, request.owner);
			return { result: "failed", error: ended.error };
		}
		try {
			await this.#persist(() => this.#markConsumed(request));
			return { result: "consumed" };
		} catch (error) {
			this.#markConsumedLater(request);
			return { result: "unknown", error };
		}
	}

	async fail(request: FailRequest): Promise<void> {
		try {
			await this.#noteFailure(request);
		} catch (error) {
			// Until it is noted, the claim keeps every other instance from the message.
			if (this.#failedClaims.has(request.id)) this.#later(() => this.#noteFailure(request));
			throw error;
		}
	}

	async #noteFailure(request: FailRequest): Promise<void> {
		const owner = this.#failedClaims.get(request.id);
		await this.#update(request.id, (row) => {
			const ours = owner !== undefined && sameOwner(row?.owner, owner);
			return failedRow(row, request, this.#backend.now(), ours);
		});
		this.#failedClaims.delete(request.id);
	}

	async fence(id: string, minRevision: number): Promise<FenceResult> {
		let answer: FenceResult = { result: "busy" };
		await this.#update(id, (before) => {
			const step = fencedRow(before, id, minRevision, this.#backend.now());
			answer = step.answer;
			return step.row;
		});
		return answer;
	}

	async look(ids: readonly string[]): Promise<InboxState[]> {
		const rows = await this.#backend.inbox(ids);
		return ids.map((id, index): InboxState => {
			const state = inboxState(rows[index]);
			const owner = state.result === "unseen" ? this.#handling.get(id) : undefined;
			return owner ? { result: "running", owner } : state;
		});
	}

	settled(reports: readonly { readonly id: string; readonly attempt: number }[]): Promise<void> {
		return this.#backend.settle(reports);
	}

	unsettled(age: number, limit: number): Promise<UnsettledMessage[]> {
		return this.#backend.unsettled(this.#backend.now() - age, limit);
	}

	purge(age: number, limit: number): Promise<number> {
		return this.#backend.purge(this.#backend.now() - age, limit);
	}

	async #recordDone<T>(id: string, value: T): Promise<RunResult<T>> {
		try {
			const state = await this.#persist(() => this.#endOutcome(id, "committed"));
			if (state === "committed") return { state, value };
			if (state === "rolledBack") return { state: "conflict", value };
			return { state: "unknown", error: lostRow(id) };
		} catch (error) {
			this.#later(() => this.#endOutcome(id, "committed"));
			return { state: "unknown", error };
		}
	}

	async #recordThrown<T>(id: string, error: unknown): Promise<RunResult<T>> {
		try {
			const state = await this.#persist(() => this.#endOutcome(id, "rolledBack"));
			return state === "committed"
				? { state: "unknown", error }
				: { state: "rolledBack", error };
		} catch {
			// `started` still stands: rolledBack may be told only once it is stored (R8).
			this.#later(() => this.#endOutcome(id, "rolledBack"));
			return { state: "unknown", error };
		}
	}

	#recordLater(id: string, threw: boolean): void {
		this.#later(() => this.#endOutcome(id, threw ? "rolledBack" : "committed"));
	}

	/** Stores the outcome over `started`. @returns what stands then */
	async #endOutcome(id: string, to: Outcome): Promise<OutcomeRow["state"] | undefined> {
		if (await this.#backend.endOutcome(id, to, this.#backend.now())) return to;
		const [row] = await this.#backend.outcomes([id]);
		return row?.state;
	}

	async #claim(request: ConsumeRequest): Promise<Claim | ConsumeResult> {
		for (;;) {
			const now = this.#backend.now();
			const [before] = await this.#backend.inbox([request.id]);
			const refused = refusal(before, request, now);
			if (refused) return refused;
			const row = consumedRow(request, now, before, "running");
			const won = before
				? await this.#backend.swapInbox(before, row)
				: await this.#backend.insertInbox(row);
			if (won) return this.#keepRenewed(row);
		}
	}

	/** Gives up a claim that may have been stored although its write failed: nothing runs under it. */
	async #release({ id, attempt, owner }: ConsumeRequest): Promise<void> {
		await this.#update(id, (row) => {
			const idle = row?.state === "running" && !this.#handling.has(id);
			const ours = idle && row.attempt === attempt && sameOwner(row.owner, owner);
			return ours ? { ...row, owner: null, renewed: 0 } : undefined;
		});
	}

	/** Renews the claim until it is stopped or somebody else has the row (R32). */
	#keepRenewed(claimed: InboxRow): Claim {
		let row = claimed;
		let stopped = false;
		let timer: Timer | undefined;
		const renew = async () => {
			try {
				const next = { ...row, renewed: this.#backend.now() };
				if (await this.#backend.swapInbox(row, next)) row = next;
				else stopped = !(await this.#isStillOurs(row));
			} catch {
				// Not reached: tried again in time, well before the claim counts as abandoned.
			}
			if (!stopped) schedule();
		};
		const schedule = () => {
			if (this.#closed) return;
			timer = this.#after(CLAIM_RENEW_MS, () => void renew());
		};
		schedule();
		return {
			stop: () => {
				stopped = true;
				if (timer) this.#cancel(timer);
			},
		};
	}

	async #isStillOurs(row: InboxRow): Promise<boolean> {
		const [stands] = await this.#backend.inbox([row.id]);
		return (
			stands?.state === "running" &&
			stands.attempt === row.attempt &&
			sameOwner(stands.owner, row.owner)
		);
	}

	/** The handler took effect: this row stands over any failure, fence or other claim. */
	async #markConsumed(request: ConsumeRequest): Promise<void> {
		await this.#update(request.id, (row) =>
			row?.state === "consumed" ? undefined : consumedRow(request, this.#backend.now(), row),
		);
	}

	/** Until it is stored, this process alone knows that no copy may run, however old the claim gets. */
	#markConsumedLater(request: ConsumeRequest): void {
		this.#handling.set(request.id, request.owner);
		this.#later(async () => {
			await this.#markConsumed(request);
			this.#handling.delete(request.id);
		});
	}

	/** Replaces the row by what `change` makes of it, until nobody interferes. */
	async #update(
		id: string,
		change: (row: InboxRow | undefined) => InboxRow | undefined,
	): Promise<void> {
		for (;;) {
			const [before] = await this.#backend.inbox([id]);
			const after = change(before);
			if (!after) return;
			const won = before
				? await this.#backend.swapInbox(before, after)
				: await this.#backend.insertInbox(after);
			if (won) return;
		}
	}

	/** Tries a few times, since what is to be stored has happened already. */
	async #persist<T>(step: () => Promise<T>): Promise<T> {
		for (let tries = 1; ; tries++) {
			try {
				return await step();
			} catch (error) {
				if (tries >= QUICK_TRIES || this.#closed) throw error;
			}
			await new Promise<void>((resolve) => this.#after(RETRY_MS * tries, resolve));
		}
	}

	/** Repeats the step until it is stored or the store closes. */
	#later(step: () => Promise<unknown>, delay = RETRY_MS): void {
		if (this.#closed) return;
		step().catch(() => {
			if (this.#closed) return;
			this.#after(delay, () => this.#later(step, Math.min(delay * 2, LONGEST_RETRY_MS)));
		});
	}

	async #within(work: Promise<Ended>, timeout: number): Promise<Ended | undefined> {
		return new Promise((resolve) => {
			const timer = this.#after(timeout, () => resolve(undefined));
			void work.then((ended) => {
				this.#cancel(timer);
				resolve(ended);
			});
		});
	}

	#after(ms: number, fn: () => void): Timer {
		const timer = this.#clock.after(ms, () => {
			this.#timers.delete(timer);
			fn();
		});
		this.#timers.add(timer);
		return timer;
	}

	#cancel(timer: Timer): void {
		timer.cancel();
		this.#timers.delete(timer);
	}
}

interface Claim {
	stop(): void;
}

async function settled(work: () => Promise<unknown>): Promise<Ended> {
	try {
		return { value: await work() };
	} catch (error) {
		return { error };
	}
}

function lostRow(id: string): LottorError {
	return new LottorError(
		"LOTTOR_STORE_UNAVAILABLE",
		"The row of the started work is gone: the store has lost data",
		{ group: id },
	);
}
