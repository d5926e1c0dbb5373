import type { Owner } from "./ids.ts";

export const GROUP_STATES = [
	"prepared",
	"committed",
	"completed",
	"rolledBack",
	"inDoubt",
] as const;
export type GroupState = (typeof GROUP_STATES)[number];

export const MESSAGE_STATES = [
	"held",
	"pending",
	"delivering",
	"consumed",
	"failed",
	"discarded",
] as const;
export type MessageState = (typeof MESSAGE_STATES)[number];

/** What a participant store can promise (PROTOCOL, section 1). */
export const GUARANTEES = ["transactional", "recorded", "memory"] as const;
export type Guarantee = (typeof GUARANTEES)[number];

/** How a local transaction ended. */
export type Outcome = "committed" | "rolledBack";

/** Why a consumption failed, as reported. */
export interface Failure {
	readonly code: string;
	readonly message: string;
	/** Cut at {@link STACK_LIMIT} characters. */
	readonly stack?: string;
	readonly retryable: boolean;
}

/**
 * How a message reaches a target without the mixin (R25): a call of the action `<target>.<type>`, or
 * the broker's channel `tx-<target>`.
 */
export type PlainRoute = "action" | "channel";

/** Longest stack that is stored, in characters (R29). */
export const STACK_LIMIT = 4_096;

/** Timeline entries kept a message; later ones are only counted (R29). */
export const TIMELINE_LIMIT = 50;

/** `fenced` of a message whose inbox refuses every copy, whatever its revision. */
export const FENCED_ALL = 2 ** 31 - 1;

/** When and how often a failed message is tried again. Durations in milliseconds. */
export interface RetryTimes {
	/** Tries after the first. */
	readonly retries: number;
	readonly delay: number;
	readonly factor: number;
	readonly maxDelay: number;
}

/** One message of a group, without its payload. Times are of the store's clock. */
export interface MessageRecord {
	readonly id: string;
	readonly index: number;
	readonly target: string;
	readonly type: string;
	readonly state: MessageState;
	/** Rises with each change of this message; operators send back the one they saw. */
	readonly version: number;
	/** Rises with each edit of the payload. */
	readonly revision: number;
	/** Bytes of the current payload. */
	readonly bytes: number;
	/** Milliseconds between commit and first delivery. */
	readonly delay: number;
	/** The producer's own limit of attempts, which beats every policy. */
	readonly maxAttempts: number | null;
	readonly orderingKey: string | null;
	/** How it reaches a target without the mixin, which can't be asked (R25); false: the target has it. */
	readonly plain: PlainRoute | false;
	/** When this message is due: to be sent (pending), asked about (delivering) or fenced (discarded). */
	readonly nextAt: number | null;
	/** Waits for its target to come alive; `wake` makes it due. */
	readonly parked: boolean;
	/** Why it waits, when the reason is not its own schedule. */
	readonly waiting: string | null;
	/** Times it was sent, or may have been. */
	readonly sends: number;
	/** Failures reported. The attempt under way is `attempts + 1`. */
	readonly attempts: number;
	/** `attempts` when an operator last granted a new budget. */
	readonly budgetFrom: number;
	/** The participant store it is bound to since its first send (R3). */
	readonly storeId: string | null;
	/** The instance it was last sent to, where delivery knows. */
	readonly instance: Owner | null;
	/** Asks since the last send that did not settle it. */
	readonly asks: number;
	/** Sends whose instance ended without a report (R23). */
	readonly vanished: number;
	/** Its inbox refuses copies of a revision below this. */
	readonly fenced: number;
	/** Revision that took effect. */
	readonly consumedRevision: number | null;
	readonly consumedAfterDiscard: boolean;
	readonly error: Failure | null;
	/** Timeline entries so far, the uncut number. */
	readonly entries: number;
	/** When it was last in another state. */
	readonly stateAt: number;
}

/** One transaction group, without payloads. Times are of the store's clock. */
export interface GroupRecord {
	readonly id: string;
	/** Rises with each write. */
	readonly version: number;
	/** Rises with each claim; fences scheduling writes (R20). */
	readonly epoch: number;
	readonly state: GroupState;
	/** Full name of the producer service. */
	readonly source: string;
	/** The producer's participant store (R3). */
	readonly storeId: string;
	readonly guarantee: Guarantee;
	/** The instance that prepared it (R2). */
	readonly owner: Owner;
	/** Hash of source, storeId, messages and options (R6). */
	readonly hash: string;
	readonly idempotencyKey: string | null;
	readonly createdAt: number;
	/** When it was last in another state; retention counts from here. */
	readonly stateAt: number;
	/** When check-back is due; null once decided. */
	readonly checkAt: number | null;
	/** Check-backs so far. */
	readonly checks: number;
	/** Check-backs answered "unknown" (R16). */
	readonly unknowns: number;
	/** Why check-back waits; `wake` makes it due. */
	readonly waiting: string | null;
	/** Two sound decisions that contradict each other (R17); never purged. */
	readonly conflict: string | null;
	readonly leaseOwner: string | null;
	/** End of the lease; 0 when there is none. */
	readonly leaseUntil: number;
	readonly messages: readonly MessageRecord[];
}

/** One line of a group's history. */
export interface TimelineEntry {
	readonly group: string;
	/** The message concerned; null for the group itself. */
	readonly message: string | null;
	readonly at: number;
	/** The group's version that this entry belongs to, and its place within it. */
	readonly version: number;
	readonly place: number;
	readonly event: string;
	readonly from: string | null;
	readonly to: string | null;
	/** `producer`, `resolved`, a node, or the operator's name. */
	readonly by: string;
	readonly why: string | null;
	readonly data: Readonly<Record<string, unknown>> | null;
}

/** A message's payload as it is stored and sent: JSON text. */
export interface PayloadRecord {
	readonly message: string;
	readonly revision: number;
	readonly content: string;
}
