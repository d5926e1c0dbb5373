import type { Failure, Guarantee, Outcome, Owner } from "../../protocol/index.ts";

/**
 * Where a producer keeps the outcomes of its local transactions and a consumer its inbox, best
 * inside the service's own business database. The rules of the coordinator store's contract hold
 * here too. A store that keeps rows inside the business transaction is *transactional*.
 */
export interface ParticipantStore<Tx extends TxBase = TxBase> {
	/** What and where, without secrets. */
	readonly description: string;
	/**
	 * Opens the store, making or migrating its schema.
	 * @throws LOTTOR_STORE_UNUSABLE when it is corrupt, read-only, unsafe or of a newer schema
	 * @throws LOTTOR_STORE_UNAVAILABLE when it can't be reached
	 */
	open(): Promise<OpenedParticipantStore>;
	/** Waits for what runs, refuses new calls, closes. */
	close(): Promise<void>;

	/**
	 * Runs the producer's local work once, under the store's guarantee (R7).
	 * Transactional: the outcome row is the first statement of the transaction that `work` gets.
	 * Recorded: `started` before, the outcome by compare-and-set after.
	 * Never rejects because of `work`; the result says what stands.
	 */
	run<T>(request: RunRequest<Tx>, work: (tx: Tx) => Promise<T>): Promise<RunResult<T>>;
	/** What stands for a group; fences it with `rolledBack` where nothing does (R14). */
	resolve(ids: readonly string[]): Promise<Resolution[]>;
	/** Recorded stores: replaces `started` by an outcome (R15); false when something else stands. */
	force(id: string, to: Outcome): Promise<boolean>;
	/** The coordinator has acknowledged these outcomes: they may be purged in time (R34). */
	confirm(ids: readonly string[]): Promise<void>;
	/** Outcomes `committed` that the coordinator has not acknowledged, older than `age` ms, oldest first. */
	unconfirmed(
		age: number,
		limit: number,
	): Promise<{ readonly id: string; readonly coordinator: string }[]>;

	/**
	 * Runs a handler exactly once for a message (R32): the inbox row goes into the transaction
	 * that the handler gets, or, recorded, is claimed before it.
	 * Never rejects because of the handler.
	 */
	consume(request: ConsumeRequest, handler: (tx: Tx) => Promise<void>): Promise<ConsumeResult>;
	/** Notes a failed attempt; never overwrites consumed, a fence or a higher attempt. */
	fail(request: {
		readonly id: string;
		readonly attempt: number;
		readonly revision: number;
		readonly receipt: string;
		readonly coordinator: string;
		readonly error: Failure;
	}): Promise<void>;
	/** Refuses every copy of a revision below `minRevision`, for good (R27). */
	fence(id: string, minRevision: number): Promise<FenceResult>;
	/** What the inbox knows of messages. Reads only. */
	look(ids: readonly string[]): Promise<InboxState[]>;
	/**
	 * The coordinator has acknowledged the report of these attempts. A row of a later attempt stays
	 * open: its own report is not acknowledged yet.
	 */
	settled(reports: readonly { readonly id: string; readonly attempt: number }[]): Promise<void>;
	/** Consumed messages whose report the coordinator has not acknowledged, older than `age` ms. */
	unsettled(age: number, limit: number): Promise<UnsettledMessage[]>;
	/**
	 * Deletes acknowledged outcomes and inbox rows, and fences, older than `age` milliseconds (R34).
	 * @returns how many rows were deleted; fewer than `limit` means that none is left
	 */
	purge(age: number, limit: number): Promise<number>;
}

export interface OpenedParticipantStore {
	readonly storeId: string;
	readonly guarantee: Guarantee;
	/** What the user has to know of it, and may not have asked for. */
	readonly notice?: string;
}

/** What every transaction handle has; each store adds its own (`db`, `trx`, `session`). */
export interface TxBase {
	/** The group that the work, or the handled message, belongs to. */
	readonly group: string;
}

export interface RunRequest<Tx extends TxBase> {
	readonly id: string;
	readonly owner: Owner;
	/** Id of the coordinator store that has the group. */
	readonly coordinator: string;
	/** Milliseconds; then the transaction is rolled back and its handle refuses use (R10). */
	readonly timeout: number;
	/** Joins this handler's transaction instead of beginning one (R11). */
	readonly join?: Tx;
}

/** What came of local work. */
export type RunResult<T> =
	| EndedRun<T>
	/**
	 * `work` is done inside the transaction that it joined (R11), and its value goes back to the
	 * handler. What stands is told by `ended` once that transaction has ended; it never rejects.
	 * Waiting for it inside the handler would be waiting for oneself.
	 */
	| { readonly state: "joined"; readonly value: T; readonly ended: Promise<EndedRun<T>> };

export type EndedRun<T> =
	| { readonly state: "committed"; readonly value: T }
	/** `work` threw, or the time limit passed, and nothing of it stands. */
	| { readonly state: "rolledBack"; readonly error: unknown }
	/** The group was fenced before `work` could run (LOTTOR_FENCED). */
	| { readonly state: "fenced" }
	/** The end of COMMIT is unclear and the store can't tell (R8); or recorded work outlived its limit. */
	| { readonly state: "unknown"; readonly error: unknown }
	/** Recorded: `work` took effect, but its group had been rolled back meanwhile. */
	| { readonly state: "conflict"; readonly value: T };

export type Resolution =
	| { readonly result: Outcome }
	| { readonly result: "running" }
	| { readonly result: "started"; readonly owner: Owner };

export interface ConsumeRequest {
	readonly id: string;
	readonly group: string;
	readonly attempt: number;
	readonly revision: number;
	readonly receipt: string;
	/** Id of the coordinator store that sent it. */
	readonly coordinator: string;
	readonly owner: Owner;
	/** Recorded: whether the owner of a claim may still be running (R32). */
	readonly isAlive: (owner: Owner) => boolean;
	/** Milliseconds; then the transaction is rolled back and its handle refuses use (R35). */
	readonly timeout: number;
}

export type ConsumeResult =
	| { readonly result: "consumed" }
	/** It took effect before: the handler did not run. */
	| { readonly result: "duplicate"; readonly revision: number }
	/** Another copy is at it: this one is dropped, and the coordinator asks later. */
	| { readonly result: "busy" }
	/** A fence, or a failure of this or a later attempt, stands: the handler did not run. */
	| { readonly result: "stale" }
	/** The handler threw, or the time limit passed; `lasting`: on a recorded store it still runs (R35). */
	| { readonly result: "failed"; readonly error: unknown; readonly lasting?: Promise<unknown> }
	/** COMMIT did not return and the store can't tell: nothing is reported. */
	| { readonly result: "unknown"; readonly error: unknown };

export type FenceResult =
	| { readonly result: "fenced" }
	| { readonly result: "consumed"; readonly revision: number }
	| { readonly result: "busy" };

export type InboxState =
	| { readonly result: "consumed"; readonly revision: number }
	| {
			readonly result: "failed";
			readonly attempt: number;
			readonly revision: number;
			readonly error: Failure;
	  }
	| { readonly result: "running"; readonly owner: Owner }
	| { readonly result: "unseen" };

export interface UnsettledMessage {
	readonly id: string;
	readonly attempt: number;
	readonly revision: number;
	readonly receipt: string;
	readonly coordinator: string;
}
