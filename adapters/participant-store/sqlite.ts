import { hasCode, LottorError, type Outcome, type Owner } from "../../protocol/index.ts";
import { isUnclear, type SqliteTx } from "../sqlite/index.ts";
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
} from "./contract.ts";
import { Calls } from "./calls.ts";
import {
	consumedRow,
	failedRow,
	type FailRequest,
	fencedRow,
	inboxState,
	refusal,
	resolution,
	SHORT_WAIT_MS,
} from "./rules.ts";
import { SQL } from "./sqlite-schema.ts";
import {
	insertInbox,
	insertOutcome,
	isText,
	readInbox,
	readOutcome,
	replaceInbox,
	SqliteTables,
	type SqliteStoreOptions,
} from "./sqlite-tables.ts";

/** The participant store inside the service's own SQLite file: transactional. */
export class SqliteParticipantStore implements ParticipantStore<SqliteTx> {
	readonly description: string;
	readonly #tables: SqliteTables;
	readonly #options: SqliteStoreOptions;
	readonly #calls = new Calls();
	/** Messages whose handler runs here. */
	readonly #running = new Map<string, Owner>();

	constructor(path: string, options: SqliteStoreOptions) {
		this.description = `sqlite:${path} (transactional)`;
		this.#options = options;
		this.#tables = new SqliteTables(path, options);
	}

	async open(): Promise<OpenedParticipantStore> {
		const storeId = await this.#tables.open();
		this.#calls.open();
		return { storeId, guarantee: "transactional" };
	}

	async close(): Promise<void> {
		await this.#calls.close();
		await this.#tables.close();
	}

	async run<T>(
		request: RunRequest<SqliteTx>,
		work: (tx: SqliteTx) => Promise<T>,
	): Promise<RunResult<T>> {
		return this.#calls.track(this.#run(request, work));
	}

	async #run<T>(
		request: RunRequest<SqliteTx>,
		work: (tx: SqliteTx) => Promise<T>,
	): Promise<RunResult<T>> {
		const { id, coordinator, timeout, join } = request;
		let done: { readonly value: T } | undefined;
		let fenced = false;
		const inTransaction = async (tx: SqliteTx) => {
			const at = this.#options.clock.now();
			const row = { id, coordinator, at, owner: null, confirmed: false };
			fenced = !insertOutcome(tx, { ...row, state: "committed" });
			if (fenced)
				throw new LottorError("LOTTOR_FENCED", "The group was fenced", { group: id });
			done = { value: await work(tx) };
			return done.value;
		};
		const timeoutError = () =>
			new LottorError(
				"LOTTOR_WORK_TIMEOUT",
				`The local work took longer than ${timeout} ms and was rolled back`,
				{ group: id },
			);
		const limit = { group: id, timeout, timeoutError };
		try {
			this.#calls.mustBeOpen();
			const file = this.#tables.file;
			if (!join) return { state: "committed", value: await file.write(inTransaction, limit) };
			const { value, ended } = await file.nest(join, inTransaction, limit);
			return {
				state: "joined",
				value,
				ended: this.#calls.track(
					ended.then((ending): EndedRun<T> | Promise<EndedRun<T>> => {
						if (ending.state === "committed") return { state: "committed", value };
						if (ending.state === "rolledBack") return ending;
						return this.#afterUnclear(id, ending.error, { value });
					}),
				),
			};
		} catch (error) {
			if (fenced) return { state: "fenced" };
			return isUnclear(error)
				? this.#afterUnclear(id, error, done)
				: { state: "rolledBack", error };
		}
	}

	async resolve(ids: readonly string[]): Promise<Resolution[]> {
		const known = await this.#tables.file.read((reader) =>
			ids.map((id) => resolution(isText(id) ? readOutcome(reader, id) : undefined)),
		);
		return Promise.all(ids.map(async (id, index) => known[index] ?? this.#fenceGroup(id)));
	}

	async force(id: string, to: Outcome): Promise<boolean> {
		const at = this.#options.clock.now();
		return this.#tables.change((tx) => {
			if (tx.run(SQL.endOutcome, to, at, id).changes === 1) return true;
			return readOutcome(tx, id)?.state === to;
		});
	}

	confirm(ids: readonly string[]): Promise<void> {
		return this.#tables.confirm(ids);
	}

	unconfirmed(age: number, limit: number) {
		return this.#tables.unconfirmed(this.#options.clock.now() - age, limit);
	}

	consume(
		request: ConsumeRequest,
		handler: (tx: SqliteTx) => Promise<void>,
	): Promise<ConsumeResult> {
		return this.#calls.track(this.#consume(request, handler));
	}

	async #consume(
		request: ConsumeRequest,
		handler: (tx: SqliteTx) => Promise<void>,
	): Promise<ConsumeResult> {
		const { id, group, timeout } = request;
		const copy = this.#running.has(id);
		let refused: ConsumeResult | undefined;
		const progress = { begun: false, done: false };
		const inTransaction = async (tx: SqliteTx) => {
			refused = this.#claim(tx, request);
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
		const limit = { group, timeout, timeoutError };
		if (!copy) this.#running.set(id, request.owner);
		try {
			this.#calls.mustBeOpen();
			const wait = copy ? { lockTimeout: SHORT_WAIT_MS } : {};
			await this.#tables.file.write(inTransaction, { ...limit, ...wait });
			return refused ?? { result: "consumed" };
		} catch (error) {
			if (refused) return refused;
			if (isUnclear(error)) return await this.#consumedAfterUnclear(id, error);
			if (progress.begun && !progress.done) return { result: "failed", error };
			// The store failed, not the handler: nothing stands, and no attempt is used up.
			return hasCode(error, "LOTTOR_STORE_BUSY")
				? { result: "busy" }
				: { result: "unknown", error };
		} finally {
			if (!copy) this.#running.delete(id);
		}
	}

	async fail(request: FailRequest): Promise<void> {
		await this.#tables.change((tx) => {
			const before = readInbox(tx, request.id);
			const after = failedRow(before, request, this.#options.clock.now(), false);
			if (after) replaceInbox(tx, after);
		});
	}

	async fence(id: string, minRevision: number): Promise<FenceResult> {
		try {
			return await this.#tables.change(
				(tx) => {
					const now = this.#options.clock.now();
					const { answer, row } = fencedRow(readInbox(tx, id), id, minRevision, now);
					if (row) replaceInbox(tx, row);
					return answer;
				},
				{ lockTimeout: SHORT_WAIT_MS },
			);
		} catch (error) {
			if (hasCode(error, "LOTTOR_STORE_BUSY")) return { result: "busy" };
			throw error;
		}
	}

	async look(ids: readonly string[]): Promise<InboxState[]> {
		return this.#tables.file.read((reader) =>
			ids.map((id): InboxState => {
				const state = inboxState(isText(id) ? readInbox(reader, id) : undefined);
				const owner = state.result === "consumed" ? undefined : this.#running.get(id);
				return owner ? { result: "running", owner } : state;
			}),
		);
	}

	settled(reports: readonly { readonly id: string; readonly attempt: number }[]): Promise<void> {
		return this.#tables.settled(reports);
	}

	unsettled(age: number, limit: number): Promise<UnsettledMessage[]> {
		return this.#tables.unsettled(this.#options.clock.now() - age, limit);
	}

	purge(age: number, limit: number): Promise<number> {
		return this.#tables.purge(this.#options.clock.now() - age, limit);
	}

	/** Inserts the inbox row. @returns why the handler must not run */
	#claim(tx: SqliteTx, request: ConsumeRequest): ConsumeResult | undefined {
		const now = this.#options.clock.now();
		if (insertInbox(tx, consumedRow(request, now))) return undefined;
		const before = readInbox(tx, request.id);
		const refused = refusal(before, request, now);
		if (!refused) replaceInbox(tx, consumedRow(request, now, before));
		return refused;
	}

	/** Fences the group where nothing stands, then reads what does (R14). */
	async #fenceGroup(id: string): Promise<Resolution> {
		if (!isText(id)) return { result: "running" };
		const at = this.#options.clock.now();
		const row = { id, owner: null, coordinator: "", at, confirmed: true };
		try {
			return await this.#tables.change(
				(tx) => {
					insertOutcome(tx, { ...row, state: "rolledBack" });
					return resolution(readOutcome(tx, id)) ?? { result: "running" };
				},
				{ lockTimeout: SHORT_WAIT_MS },
			);
		} catch (error) {
			if (hasCode(error, "LOTTOR_STORE_BUSY")) return { result: "running" };
			throw error;
		}
	}

	/** After an unclear COMMIT only the store knows (R8): fenced first, so that its answer is final. */
	async #afterUnclear<T>(
		id: string,
		error: unknown,
		done: { readonly value: T } | undefined,
	): Promise<EndedRun<T>> {
		const stands = await this.#fenceGroup(id).catch(() => undefined);
		if (stands?.result === "rolledBack") return { state: "rolledBack", error };
		if (stands?.result === "committed" && done)
			return { state: "committed", value: done.value };
		return { state: "unknown", error };
	}

	async #consumedAfterUnclear(id: string, error: unknown): Promise<ConsumeResult> {
		try {
			const row = await this.#tables.change((tx) => readInbox(tx, id));
			return row?.state === "consumed" ? { result: "consumed" } : { result: "failed", error };
		} catch {
			return { result: "unknown", error };
		}
	}
}
