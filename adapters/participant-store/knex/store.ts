import {
	hasCode,
	LottorError,
	type Outcome,
	type Owner,
	type Timer,
} from "../../../protocol/index.ts";
import { Calls } from "../calls.ts";
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
	UnsettledMessage,
} from "../contract.ts";
import {
	consumedRow,
	failedRow,
	type FailRequest,
	fencedRow,
	type InboxRow,
	inboxState,
	refusal,
	resolution,
	SHORT_WAIT_MS,
} from "../rules.ts";
import { KnexDatabase, type KnexStoreOptions } from "./database.ts";
import { isId } from "./rows.ts";
import type { Session } from "./session.ts";
import type { KnexSource } from "./source.ts";
import {
	begin,
	type Ending,
	KnexTransaction,
	type KnexTx,
	type Limit,
	limited,
	nest,
} from "./transaction.ts";

/** Fences that run at the same time: each takes a connection. */
const FENCES = 4;

/** The participant store inside the service's own SQL database, through Knex: transactional. */
export class KnexParticipantStore implements ParticipantStore<KnexTx> {
	readonly description: string;
	readonly #database: KnexDatabase;
	readonly #calls = new Calls();
	/** Messages whose handler runs here, and when it ends. */
	readonly #running = new Map<string, { readonly owner: Owner; readonly ended: Promise<void> }>();
	/** Groups that are being fenced: one fence per group at a time (R14). */
	readonly #fences = new Map<string, Promise<Resolution>>();

	constructor(source: KnexSource, options: KnexStoreOptions) {
		this.description = `${source.place} (transactional)`;
		this.#database = new KnexDatabase(source, options);
	}

	async open(): Promise<OpenedParticipantStore> {
		const storeId = await this.#database.open();
		this.#calls.open();
		return { storeId, guarantee: "transactional" };
	}

	async close(): Promise<void> {
		await this.#calls.close();
		await this.#database.close();
	}

	run<T>(request: RunRequest<KnexTx>, work: (tx: KnexTx) => Promise<T>): Promise<RunResult<T>> {
		return this.#calls.track(this.#run(request, work));
	}

	async #run<T>(
		request: RunRequest<KnexTx>,
		work: (tx: KnexTx) => Promise<T>,
	): Promise<RunResult<T>> {
		const { id, coordinator, timeout, join } = request;
		let done: { readonly value: T } | undefined;
		let fenced = false;
		const body = async (tx: KnexTransaction) => {
			const at = this.#database.now();
			const row = { id, coordinator, at, owner: null, confirmed: false };
			const outcome = { ...row, state: "committed" } as const;
			fenced = !(await this.#database.insertOutcome(tx.session, outcome));
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
		const rows = await this.#database.outcomes(ids);
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
		if (await this.#database.endOutcome(id, to, this.#database.now())) return true;
		const [row] = await this.#database.outcomes([id]);
		return row?.state === to;
	}

	confirm(ids: readonly string[]): Promise<void> {
		return this.#database.confirm(ids);
	}

	unconfirmed(age: number, limit: number) {
		return this.#database.unconfirmed(this.#database.now() - age, limit);
	}

	consume(
		request: ConsumeRequest,
		handler: (tx: KnexTx) => Promise<void>,
	): Promise<ConsumeResult> {
		return this.#calls.track(this.#consumeAlone(request, handler));
	}

	/** A copy of a message that runs here waits here, not on a connection. */
	async #consumeAlone(
		request: ConsumeRequest,
		handler: (tx: KnexTx) => Promise<void>,
	): Promise<ConsumeResult> {
		const { id, owner } = request;
		const deadline = this.#database.clock.now() + SHORT_WAIT_MS;
		for (let other; (other = this.#running.get(id));) {
			const left = deadline - this.#database.clock.now();
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
		handler: (tx: KnexTx) => Promise<void>,
	): Promise<ConsumeResult> {
		const { id, group, timeout } = request;
		let refused: ConsumeResult | undefined;
		const progress = { begun: false, done: false };
		const body = async (tx: KnexTransaction) => {
			refused = await this.#claim(tx, request);
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
		await this.#change(request.id, (before) =>
			failedRow(before, request, this.#database.now(), false),
		);
	}

	async fence(id: string, minRevision: number): Promise<FenceResult> {
		let answer: FenceResult = { result: "busy" };
		try {
			await this.#change(id, (before) => {
				const step = fencedRow(before, id, minRevision, this.#database.now());
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
		const rows = await this.#database.inbox(ids);
		return ids.map((id, index): InboxState => {
			const state = inboxState(rows[index]);
			const running = state.result === "consumed" ? undefined : this.#running.get(id);
			return running ? { result: "running", owner: running.owner } : state;
		});
	}

	settled(reports: readonly { readonly id: string; readonly attempt: number }[]): Promise<void> {
		return this.#database.settle(reports);
	}

	unsettled(age: number, limit: number): Promise<UnsettledMessage[]> {
		return this.#database.unsettled(this.#database.now() - age, limit);
	}

	purge(age: number, limit: number): Promise<number> {
		return this.#database.purge(this.#database.now() - age, limit);
	}

	/** Runs `body` in a transaction of its own, on a connection of its own. Never rejects. */
	async #transaction(
		group: string,
		limit: Limit,
		body: (tx: KnexTransaction) => Promise<void>,
	): Promise<Ending> {
		let session: Session | undefined;
		let tx: KnexTransaction | undefined;
		let ending: Ending;
		try {
			session = await this.#database.acquire();
			tx = await begin(this.#database, session, group);
			await limited(this.#database, limit, body(tx));
			tx.close();
			ending = tx.lost ? await undone(tx, tx.lost.error) : await tx.commit();
		} catch (error) {
			ending = tx ? await undone(tx, error) : { state: "rolledBack", error };
			if (!tx) session?.destroy();
		}
		tx?.conclude(ending);
		if (session) this.#database.release(session);
		return ending;
	}

	/**
	 * Runs `body` in a savepoint of a handler's transaction (R11): rolled back alone when it throws.
	 * @returns what the handler's transaction comes to
	 */
	async #nested(
		join: KnexTx,
		group: string,
		limit: Limit,
		body: (tx: KnexTransaction) => Promise<void>,
	): Promise<{ readonly ended: Promise<Ending> }> {
		if (!(join instanceof KnexTransaction) || join.database !== this.#database) {
			throw new LottorError(
				"LOTTOR_INVALID_REQUEST",
				`The transaction to join is not one of ${this.#database.place}`,
				{ group, field: "join" },
			);
		}
		let tx: KnexTransaction | undefined;
		let over = false;
		const nested = (async () => {
			tx = await nest(join, group);
			// One that had to wait too long for its turn.
			if (over) await tx.rollback();
			else await body(tx);
		})();
		try {
			await limited(this.#database, limit, nested);
			tx?.close();
			const released = await tx?.commit();
			if (released?.state === "unclear") throw released.error;
		} catch (error) {
			over = true;
			tx?.close();
			await tx?.rollback();
			throw error;
		}
		return { ended: join.ended };
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
		const at = this.#database.now();
		const row = { id, owner: null, coordinator: "", at, confirmed: true };
		try {
			await this.#database.change((session) =>
				this.#database.insertOutcome(session, { ...row, state: "rolledBack" }),
			);
		} catch (error) {
			if (hasCode(error, "LOTTOR_STORE_BUSY")) return { result: "running" };
			throw error;
		}
		const [stands] = await this.#database.outcomes([id]);
		return resolution(stands) ?? { result: "running" };
	}

	/** Inserts the inbox row. @returns why the handler must not run */
	async #claim(tx: KnexTransaction, request: ConsumeRequest): Promise<ConsumeResult | undefined> {
		const database = this.#database;
		const now = database.now();
		if (await database.insertInbox(tx.session, consumedRow(request, now))) return undefined;
		return database.dialect.briefly(tx.session, async () => {
			const before = await database.lockInbox(tx.session, request.id);
			const refused = refusal(before, request, now);
			if (!refused)
				await database.replaceInbox(tx.session, consumedRow(request, now, before));
			return refused;
		});
	}

	/** Replaces the row by what `next` makes of it. */
	async #change(
		id: string,
		next: (before: InboxRow | undefined) => InboxRow | undefined,
	): Promise<void> {
		const database = this.#database;
		await database.change(async (session) => {
			for (;;) {
				const before = await database.lockInbox(session, id);
				const after = next(before);
				if (!after) return;
				if (before) return database.replaceInbox(session, after);
				// Somebody else's may have come meanwhile.
				if (await database.insertInbox(session, after)) return;
			}
		});
	}

	/**
	 * What the inbox holds once no transaction that has the row is left: to insert it oneself waits
	 * for such a one. Nothing is changed.
	 */
	async #consumedAfterUnclear(id: string, error: unknown): Promise<ConsumeResult> {
		const database = this.#database;
		const probe = fencedRow(undefined, id, 0, 0).row;
		try {
			const row = await database.change(async (session) => {
				if (probe && (await database.insertInbox(session, probe))) return undefined;
				return database.lockInbox(session, id);
			}, "ROLLBACK");
			return row?.state === "consumed" ? { result: "consumed" } : { result: "failed", error };
		} catch {
			return { result: "unknown", error };
		}
	}

	async #endsWithin(ms: number, ended: Promise<void>): Promise<boolean> {
		let timer: Timer | undefined;
		const late = new Promise<false>((resolve) => {
			timer = this.#database.clock.after(ms, () => resolve(false));
		});
		try {
			return await Promise.race([ended.then(() => true), late]);
		} finally {
			timer?.cancel();
		}
	}
}

/** Rolls back. What the database committed by itself is for it to tell. */
async function undone(tx: KnexTransaction, cause: unknown): Promise<Ending> {
	const { lost, database, group } = tx;
	tx.close();
	const answered = await tx.rollback();
	if (lost) return { state: lost.state, error: cause };
	if (answered || cause instanceof LottorError) return { state: "rolledBack", error: cause };
	const text = `${database.place} went away during the work, nothing of which stands`;
	const error = new LottorError("LOTTOR_STORE_UNAVAILABLE", text, { group }, cause);
	return { state: "rolledBack", error, gone: true };
}
