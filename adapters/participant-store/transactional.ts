import {
	type Clock,
	hasCode,
	type Limit,
	limited,
	LottorError,
	type Outcome,
	type Owner,
	type Timer,
} from "../../protocol/index.ts";
import type { RowBackend } from "./backend.ts";
import { Calls } from "./calls.ts";
import type {
	ConsumeRequest,
	ConsumeResult,
	EndedRun,
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
	failedRow,
	type FailRequest,
	fencedRow,
	type InboxRow,
	inboxState,
	isId,
	type OutcomeRow,
	resolution,
	SHORT_WAIT_MS,
} from "./rules.ts";

/** What a transaction came to. */
export type Ending =
	| { readonly state: "committed" }
	| {
			readonly state: "rolledBack";
			readonly error: unknown;
			/** The database went away meanwhile: the work may have failed for no other reason. */
			readonly gone?: boolean;
	  }
	/** COMMIT was issued, or the database committed by itself: what stands must be read (R8). */
	| { readonly state: "unclear"; readonly error: unknown };

/** How a transaction ended that did not simply commit. */
export type Lost = Exclude<Ending, { state: "committed" }>;

/** A transaction that is open, or one nested in it. */
export interface OpenTransaction extends TxBase {
	/** What the outermost transaction came to. Never rejects. */
	readonly ended: Promise<Ending>;
	/** How the database has ended the transaction by itself, if it has. */
	readonly lost: Lost | undefined;
	/** Ends the handle: nothing more can be done through it. */
	close(): void;
	/** Never rejects. */
	commit(): Promise<Ending>;
	/**
	 * Never rejects.
	 * @param cause why
	 * @returns whether the database answered
	 */
	rollback(cause: unknown): Promise<boolean>;
	/** Tells what the outermost transaction came to. */
	conclude(ending: Ending): void;
}

/** What a store must be able to do for the transactional guarantee. */
export interface TransactionalBackend<Tx extends OpenTransaction> extends RowBackend {
	readonly clock: Clock;
	/** Where it is, without secrets. */
	readonly place: string;
	/** Begins a transaction on a connection of its own. */
	begin(group: string): Promise<Tx>;
	/**
	 * Begins one inside a handler's (R11): rolled back alone if the database can do that.
	 * @throws LOTTOR_INVALID_REQUEST when `join` is no open transaction of this store
	 */
	nest(join: TxBase, group: string): Promise<Tx>;
	/** Runs `fn`, where the store must know what runs inside of the transaction (R12). */
	inside?<T>(tx: Tx, fn: () => Promise<T>): Promise<T>;
	/** Gives back what the outermost transaction had. */
	release(tx: Tx): void;

	/** Inserts the outcome into the transaction if there is none. @returns whether there was none */
	insertOutcome(tx: Tx, row: OutcomeRow): Promise<boolean>;
	/** Inserts the inbox row into the transaction. @returns why the handler must not run */
	claimInbox(tx: Tx, request: ConsumeRequest): Promise<ConsumeResult | undefined>;
	/**
	 * Inserts the outcome if there is none, at once, waiting shortly for whoever has one open (R14).
	 * @throws LOTTOR_STORE_BUSY when somebody has it too long
	 */
	fenceOutcome(row: OutcomeRow): Promise<void>;
	/**
	 * Replaces the inbox row by what `next` makes of it, at once.
	 * @param patiently waits longer where all that is written waits for one writer
	 * @throws LOTTOR_STORE_BUSY when somebody has it too long
	 */
	changeInbox(
		id: string,
		next: (before: InboxRow | undefined) => InboxRow | undefined,
		patiently?: boolean,
	): Promise<void>;
	/**
	 * The inbox row once no transaction that has it is left. Nothing is changed.
	 * @throws LOTTOR_STORE_BUSY when somebody has it too long
	 */
	settledInbox(id: string): Promise<InboxRow | undefined>;
}

/** Fences that run at the same time: each takes a connection. */
const FENCES = 4;

/**
 * The transactional guarantee on a database whose transactions run side by side: the outcome row
 * and the inbox row are the first statement of the business transaction.
 */
export class TransactionalParticipantStore<
	Tx extends OpenTransaction,
> implements ParticipantStore<Tx> {
	readonly #backend: TransactionalBackend<Tx>;
	readonly #calls = new Calls();
	/** Messages whose handler runs here, and when it ends. */
	readonly #running = new Map<string, { readonly owner: Owner; readonly ended: Promise<void> }>();
	/** Groups that are being fenced: one fence per group at a time (R14). */
	readonly #fences = new Map<string, Promise<Resolution>>();

	constructor(backend: TransactionalBackend<Tx>) {
		this.#backend = backend;
	}

	get description(): string {
		return this.#backend.description;
	}

	async open(): Promise<OpenedParticipantStore> {
		const { storeId } = await this.#backend.open();
		this.#calls.open();
		return { storeId, guarantee: "transactional" };
	}

	async close(): Promise<void> {
		await this.#calls.close();
		await this.#backend.close();
	}

	run<T>(request: RunRequest<Tx>, work: (tx: Tx) => Promise<T>): Promise<RunResult<T>> {
		return this.#calls.track(this.#run(request, work));
	}

	async #run<T>(request: RunRequest<Tx>, work: (tx: Tx) => Promise<T>): Promise<RunResult<T>> {
		const { id, coordinator, timeout, join } = request;
		let done: { readonly value: T } | undefined;
		let fenced = false;
		const body = async (tx: Tx) => {
			const at = this.#backend.now();
			const row = { id, coordinator, at, owner: null, confirmed: false };
			const outcome = { ...row, state: "committed" } as const;
			fenced = !(await this.#backend.insertOutcome(tx, outcome));
			if (fenced) {
				throw new LottorError("LOTTOR_FENCED", "The group was fenced", { group: id });
			}
			done = { value: await work(tx) };
		};
		const timeoutError = () =>
			new LottorError(
				"LOTTOR_WORK_TIMEOUT",
				`The local work took longer than ${timeout} ms and was rolled back`,
				{ group: id },
			);
		const limit = { timeout, timeoutError };
		try {
			this.#calls.mustBeOpen();
			if (join) {
				const { ended } = await this.#nested(join, id, limit, body);
				const joined = ended.then((ending) => this.#ended(id, ending, done));
				if (!done) throw new LottorError("LOTTOR_TX_CLOSED", "The nested work did not run");
				return { state: "joined", value: done.value, ended: this.#calls.track(joined) };
			}
			const ending = await this.#transaction(id, limit, body);
			if (fenced) return { state: "fenced" };
			return await this.#ended(id, ending, done);
		} catch (error) {
			return fenced ? { state: "fenced" } : { state: "rolledBack", error };
		}
	}

	async resolve(ids: readonly string[]): Promise<Resolution[]> {
		const rows = await this.#backend.outcomes(ids);
		const known = rows.map(resolution);
		let next = 0;
		const fence = async () => {
			while (next < ids.length) {
				const index = next++;
				const id = ids[index];
				known[index] ??= isId(id) ? await this.#fenceOnce(id) : { result: "running" };
			}
		};
		await Promise.all(Array.from({ length: FENCES }, fence));
		return known.map((one) => one ?? { result: "running" });
	}

	async force(id: string, to: Outcome): Promise<boolean> {
		if (!isId(id)) return false;
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

	consume(request: ConsumeRequest, handler: (tx: Tx) => Promise<void>): Promise<ConsumeResult> {
		return this.#calls.track(this.#consumeAlone(request, handler));
	}

	/** A copy of a message that runs here waits here, not on a connection. */
	async #consumeAlone(
		request: ConsumeRequest,
		handler: (tx: Tx) => Promise<void>,
	): Promise<ConsumeResult> {
		const { id, owner } = request;
		const deadline = this.#backend.clock.now() + SHORT_WAIT_MS;
		for (let other; (other = this.#running.get(id));) {
			const left = deadline - this.#backend.clock.now();
			if (left <= 0 || !(await this.#endsWithin(left, other.ended)))
				return { result: "busy" };
		}
		let end: () => void = () => undefined;
		const ended = new Promise<void>((resolve) => (end = resolve));
		this.#running.set(id, { owner, ended });
		try {
			return await this.#consume(request, handler);
		} finally {
			this.#running.delete(id);
			end();
		}
	}

	async #consume(
		request: ConsumeRequest,
		handler: (tx: Tx) => Promise<void>,
	): Promise<ConsumeResult> {
		const { id, group, timeout } = request;
		let refused: ConsumeResult | undefined;
		const progress = { begun: false, done: false };
		const body = async (tx: Tx) => {
			refused = await this.#backend.claimInbox(tx, request);
			if (refused) return;
			progress.begun = true;
			await handler(tx);
			progress.done = true;
		};
		const timeoutError = () =>
			new LottorError(
				"LOTTOR_HANDLER_TIMEOUT",
				`The handler took longer than ${timeout} ms and was rolled back`,
				{ group, message: id },
			);
		try {
			this.#calls.mustBeOpen();
			const ending = await this.#transaction(group, { timeout, timeoutError }, body);
			if (refused) return refused;
			if (ending.state === "committed") return { result: "consumed" };
			const { error } = ending;
			if (ending.state === "unclear") return await this.#consumedAfterUnclear(id, error);
			if (progress.begun && !ending.gone) return { result: "failed", error };
			// The store failed, not the handler: nothing stands, and no attempt is used up.
			return hasCode(error, "LOTTOR_STORE_BUSY")
				? { result: "busy" }
				: { result: "unknown", error };
		} catch (error) {
			return { result: "unknown", error };
		}
	}

	async fail(request: FailRequest): Promise<void> {
		const next = (before: InboxRow | undefined) =>
			failedRow(before, request, this.#backend.now(), false);
		await this.#backend.changeInbox(request.id, next, true);
	}

	async fence(id: string, minRevision: number): Promise<FenceResult> {
		let answer: FenceResult = { result: "busy" };
		try {
			await this.#backend.changeInbox(id, (before) => {
				const step = fencedRow(before, id, minRevision, this.#backend.now());
				answer = step.answer;
				return step.row;
			});
			return answer;
		} catch (error) {
			if (hasCode(error, "LOTTOR_STORE_BUSY")) return { result: "busy" };
			throw error;
		}
	}

	async look(ids: readonly string[]): Promise<InboxState[]> {
		const rows = await this.#backend.inbox(ids);
		return ids.map((id, index): InboxState => {
			const state = inboxState(rows[index]);
			const running = state.result === "consumed" ? undefined : this.#running.get(id);
			return running ? { result: "running", owner: running.owner } : state;
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

	/** Runs `body` in a transaction of its own, on a connection of its own. Never rejects. */
	async #transaction(
		group: string,
		limit: Limit,
		body: (tx: Tx) => Promise<void>,
	): Promise<Ending> {
		let tx: Tx | undefined;
		let ending: Ending;
		try {
			const begun = (tx = await this.#backend.begin(group));
			const work = () => body(begun);
			const running = this.#backend.inside?.(begun, work) ?? work();
			await limited(this.#backend.clock, limit, running);
			tx.close();
			ending = tx.lost ? await this.#undone(tx, tx.lost.error) : await tx.commit();
		} catch (error) {
			ending = tx ? await this.#undone(tx, error) : { state: "rolledBack", error };
		}
		if (!tx) return ending;
		tx.conclude(ending);
		this.#backend.release(tx);
		return ending;
	}

	/**
	 * Runs `body` nested in a handler's transaction (R11).
	 * @returns what the handler's transaction comes to
	 */
	async #nested(
		join: TxBase,
		group: string,
		limit: Limit,
		body: (tx: Tx) => Promise<void>,
	): Promise<{ readonly ended: Promise<Ending> }> {
		let tx: Tx | undefined;
		let over = false;
		const nested = (async () => {
			tx = await this.#backend.nest(join, group);
			// One that had to wait too long for its turn.
			if (over) await tx.rollback(undefined);
			else await body(tx);
			return tx;
		})();
		try {
			const inner = await limited(this.#backend.clock, limit, nested);
			inner.close();
			const released = await inner.commit();
			if (released.state === "unclear") throw released.error;
			return { ended: inner.ended };
		} catch (error) {
			over = true;
			tx?.close();
			await tx?.rollback(error);
			throw error;
		}
	}

	/** Rolls back. What the database committed by itself is for it to tell. */
	async #undone(tx: Tx, cause: unknown): Promise<Ending> {
		const { lost, group } = tx;
		const { place } = this.#backend;
		tx.close();
		const answered = await tx.rollback(cause);
		if (lost) return { state: lost.state, error: cause };
		if (answered || cause instanceof LottorError) return { state: "rolledBack", error: cause };
		const text = `${place} went away during the work, nothing of which stands`;
		const error = new LottorError("LOTTOR_STORE_UNAVAILABLE", text, { group }, cause);
		return { state: "rolledBack", error, gone: true };
	}

	async #ended<T>(
		id: string,
		ending: Ending,
		done: { readonly value: T } | undefined,
	): Promise<EndedRun<T>> {
		if (ending.state === "committed" && done) return { state: "committed", value: done.value };
		if (ending.state === "rolledBack") return { state: "rolledBack", error: ending.error };
		const error = ending.state === "unclear" ? ending.error : undefined;
		// Only the database knows (R8): fenced first, so that its answer is final.
		const stands = await this.#fenceOnce(id).catch(() => undefined);
		if (stands?.result === "rolledBack") return { state: "rolledBack", error };
		if (stands?.result === "committed" && done) {
			return { state: "committed", value: done.value };
		}
		return { state: "unknown", error };
	}

	#fenceOnce(id: string): Promise<Resolution> {
		let fence = this.#fences.get(id);
		if (!fence) {
			fence = this.#fence(id).finally(() => this.#fences.delete(id));
			this.#fences.set(id, fence);
		}
		return fence;
	}

	/** Fences the group where nothing stands, then reads what does (R14). */
	async #fence(id: string): Promise<Resolution> {
		const at = this.#backend.now();
		const row = { id, owner: null, coordinator: "", at, confirmed: true };
		try {
			await this.#backend.fenceOutcome({ ...row, state: "rolledBack" });
		} catch (error) {
			if (hasCode(error, "LOTTOR_STORE_BUSY")) return { result: "running" };
			throw error;
		}
		const [stands] = await this.#backend.outcomes([id]);
		return resolution(stands) ?? { result: "running" };
	}

	/** What the inbox holds once no transaction that has the row is left. */
	async #consumedAfterUnclear(id: string, error: unknown): Promise<ConsumeResult> {
		try {
			const row = await this.#backend.settledInbox(id);
			return row?.state === "consumed" ? { result: "consumed" } : { result: "failed", error };
		} catch {
			return { result: "unknown", error };
		}
	}

	async #endsWithin(ms: number, ended: Promise<void>): Promise<boolean> {
		let timer: Timer | undefined;
		const late = new Promise<false>((resolve) => {
			timer = this.#backend.clock.after(ms, () => resolve(false));
		});
		try {
			return await Promise.race([ended.then(() => true), late]);
		} finally {
			timer?.cancel();
		}
	}
}
