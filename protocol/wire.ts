import type { Owner } from "./ids.ts";
import type { Failure, GroupState, Guarantee, Outcome, PlainRoute, RetryTimes } from "./records.ts";

/** Version of the envelope and of the calls below. */
export const WIRE_VERSION = 1;

/** Most items that one call carries; callers split above it. */
export const BATCH_ITEMS = 1_000;

/** Most bytes of content that one call carries (R29). */
export const BATCH_BYTES = 512 * 1_024;

/** What a service that uses the mixin says of itself in its Moleculer metadata, under `lottor`. */
export interface ParticipantMetadata {
	readonly wire: number;
	readonly roles: readonly ("producer" | "consumer")[];
	readonly storeId: string;
	readonly guarantee: Guarantee;
	readonly instanceID: string;
	/** Former names that this service also answers for (R4). */
	readonly aliases: readonly string[];
	/** Message types that it handles. */
	readonly types: readonly string[];
	/** Instances may have stores of their own (R3). */
	readonly partitioned: boolean;
	/** Takes messages from a broker, and not by calls alone. */
	readonly receives?: boolean;
}

/** What a coordinator says of itself in its metadata, under `lottor`. */
export interface CoordinatorMetadata {
	readonly wire: number;
	readonly roles: readonly ["coordinator"];
	readonly storeId: string;
	readonly instanceID: string;
	readonly ready: boolean;
}

export interface PrepareMessage {
	readonly target: string;
	readonly type: string;
	/** The payload as text of `encodePayload`: the coordinator never looks into it. */
	readonly content: string;
	/** Milliseconds between commit and first delivery. @default 0 */
	readonly delay?: number;
	/** Limit of attempts, over every policy. */
	readonly maxAttempts?: number;
	/** Messages of one key prefer one partition or instance. A hint. */
	readonly orderingKey?: string;
	/**
	 * For a target without the mixin (R25). `"action"`: call its action of the message's type;
	 * `"channel"`: it consumes the broker's channel `tx-<target>`, and reports by `lottor.report`.
	 */
	readonly deliver?: PlainRoute;
}

/** One item of `lottor.prepare`. */
export interface PrepareItem {
	readonly id: string;
	readonly source: string;
	readonly storeId: string;
	readonly guarantee: Guarantee;
	readonly owner: Owner;
	readonly idempotencyKey?: string;
	/** Milliseconds to the first check-back, when the producer wants another than the coordinator's. */
	readonly checkAfter?: number;
	/** A {@link CallContext} as JSON text. */
	readonly context?: string;
	readonly messages: readonly PrepareMessage[];
}

/** What of the producer's ctx reaches the handler's. */
export interface CallContext {
	readonly requestID?: string;
	readonly parentID?: string;
	readonly level?: number;
	readonly tracing?: boolean;
	readonly caller?: string;
	readonly meta?: Record<string, unknown>;
}

/** Why one item of a batch was refused. Final, unless `retryable`. */
export interface ItemError {
	readonly code: string;
	readonly message: string;
	readonly retryable: boolean;
	readonly data?: Record<string, unknown>;
}

export type PrepareAnswer =
	| {
			/** `existing`: the idempotency key, or this very id, was prepared before. */
			readonly result: "prepared" | "existing";
			readonly id: string;
			readonly state: GroupState;
			/** The coordinator store's id (R3). */
			readonly coordinator: string;
	  }
	| { readonly result: "refused"; readonly error: ItemError };

/** One item of `lottor.commit` and `lottor.rollback`. */
export interface DecideItem {
	readonly id: string;
	/** The group's participant store, which proves that the caller can know (R3). */
	readonly storeId: string;
	readonly why?: string;
}

/** Answer to one item of a commit, rollback or report (R26): all final. */
export interface ItemAnswer {
	readonly result: "ok" | "already" | "stale" | "conflict" | "unknown" | "invalid";
	readonly state?: string;
	readonly error?: ItemError;
}

/** A message on its way to a consumer. */
export interface Envelope {
	readonly v: number;
	readonly id: string;
	readonly group: string;
	readonly source: string;
	readonly target: string;
	readonly type: string;
	/** The attempt that this send is part of, from 1. */
	readonly attempt: number;
	readonly revision: number;
	/** MAC of the id; a report must bring it back (R5). */
	readonly receipt: string;
	/** The coordinator store's id; reports go there (R3). */
	readonly coordinator: string;
	/** The participant store that the message is bound to; null for a plain target. */
	readonly storeId: string | null;
	/** When the group was prepared, and when this copy was sent: milliseconds since 1970. */
	readonly createdAt: number;
	readonly sentAt: number;
	readonly orderingKey: string | null;
	/** A {@link CallContext} as JSON text. */
	readonly context: string;
	/** The payload as text of `encodePayload`. */
	readonly content: string;
}

interface ReportBase {
	readonly id: string;
	readonly receipt: string;
	/** The reporter's participant store; null for a plain target. */
	readonly storeId: string | null;
	readonly attempt: number;
	readonly revision: number;
}

/** How a consumption ended: one item of `lottor.report`. */
export type Report =
	| (ReportBase & { readonly result: "consumed" })
	| (ReportBase & {
			readonly result: "failed";
			readonly error: Failure;
			/** The consumer's policy for this type, where it has one. */
			readonly policy?: RetryTimes;
	  })
	/** The copy was too old to be run safely (R34). */
	| (ReportBase & { readonly result: "expired" })
	/**
	 * No end: a copy that the broker has handed over before is about to run, at `owner` (R23). The
	 * answer `stale` says that it must not, `conflict` that somebody living has it.
	 */
	| (ReportBase & { readonly result: "running"; readonly owner: Owner });

/** Params of `<service>.reliable.consume`. */
export interface ConsumeCall {
	readonly items: readonly Envelope[];
	/** Reports that came as answers to earlier calls, and are stored by now: they need no repeat. */
	readonly settled: readonly SettledReport[];
}

export interface SettledReport {
	readonly id: string;
	readonly attempt: number;
}

/** Answer of `<service>.reliable.consume` to one envelope. */
export type ConsumeAnswer =
	/** Its end, in the same call. */
	| { readonly result: "reported"; readonly report: Report }
	/** Taken; a report follows through `lottor.report`. */
	| { readonly result: "accepted" }
	/** Certainly not taken, nor will it be. */
	| { readonly result: "refused"; readonly error: ItemError };

/** One item of `<service>.reliable.check` (R13). */
export interface CheckItem {
	readonly id: string;
	readonly storeId: string;
	readonly owner: Owner;
	/** How long the asking coordinator has seen the owner gone, in milliseconds; null while it lives. */
	readonly ownerGoneMs: number | null;
	readonly createdAt: number;
	/** For `resolveTransaction`; only where the guarantee is not transactional. */
	readonly messages?: readonly {
		readonly target: string;
		readonly type: string;
		readonly content: string;
	}[];
}

export type CheckAnswer =
	| { readonly result: Outcome; readonly why?: string }
	| { readonly result: "running" | "unknown"; readonly why?: string }
	/** Its store has another id, or cannot be reached now. */
	| { readonly result: "none"; readonly why?: string };

/** One item of `<service>.reliable.ask` (R23). */
export interface AskItem {
	readonly id: string;
	readonly storeId: string;
	/** The message's type, whose policy goes with a failure (R22). */
	readonly type: string;
	readonly attempt: number;
	readonly revision: number;
}

export type AskAnswer =
	| { readonly result: "consumed"; readonly revision: number }
	| { readonly result: "failed"; readonly report: Extract<Report, { result: "failed" }> | null }
	| { readonly result: "running" | "unseen" }
	/** Its store has another id, or cannot be reached now. */
	| { readonly result: "none" };

/** One item of `<service>.reliable.fence` (R27). */
export interface FenceItem {
	readonly id: string;
	readonly storeId: string;
	/** Copies of a revision below this must never run. */
	readonly minRevision: number;
}

export type FenceAnswer =
	| { readonly result: "fenced" }
	| { readonly result: "consumed"; readonly revision: number }
	| { readonly result: "busy" }
	| { readonly result: "none" };

/** Actions of the coordinator service, relative to its name. */
export const COORDINATOR_SERVICE = "lottor";

/** Broadcast by coordinators while somebody listens: what changed since the last one. */
export const CHANGED_EVENT = "lottor.changed";

export interface Changed {
	readonly id: string;
	readonly state: GroupState;
}

/** Data of {@link CHANGED_EVENT}. */
export interface ChangedNotice {
	/** The groups that changed last. */
	readonly changed: readonly Changed[];
	/** Whether others changed, too. */
	readonly more: boolean;
}

/** Actions that the mixin adds to a service, relative to the service's name. */
export const PARTICIPANT_ACTIONS = {
	consume: "reliable.consume",
	check: "reliable.check",
	ask: "reliable.ask",
	fence: "reliable.fence",
	status: "reliable.status",
} as const;

/** Answer of `<service>.reliable.status`. */
export interface ParticipantStatus {
	readonly service: string;
	readonly roles: readonly string[];
	readonly serializer: string;
	/** Null in a single node. */
	readonly transporter: string | null;
	/** Lottor's and Moleculer's versions. */
	readonly version: string;
	readonly moleculer: string;
	readonly running: number;
	readonly queued: number;
	readonly unconfirmed: number;
	readonly unreported: number;
	readonly confirmsUnknown: number;
}
