import type {
	Change,
	Decision,
	DueKind,
	GroupRecord,
	GroupState,
	MessageRecord,
	MessageState,
	NewGroup,
	PayloadRecord,
	TimelineEntry,
	TransitionResult,
} from "../../protocol/index.ts";

/**
 * Where the coordinator keeps groups. The rules for every call (PROTOCOL, section 7): arrays in,
 * per-item results out, in order; a bad item never affects others; a call resolves only when
 * durable; LOTTOR_STORE_UNAVAILABLE means *may or may not have happened*, and every call is safe
 * to repeat; durations, not instants; primary reads only; a failed fsync closes the store until
 * it is opened again. Transitions are those of the pure state machine.
 */
export interface CoordinatorStore {
	/** For logs and `lottor.coordinators`: what and where, without secrets. */
	readonly description: string;
	/**
	 * Opens the store, making or migrating its schema.
	 * @throws LOTTOR_STORE_UNUSABLE when it is corrupt, read-only, unsafe or of a newer schema
	 * @throws LOTTOR_STORE_UNAVAILABLE when it can't be reached
	 */
	open(): Promise<OpenedCoordinatorStore>;
	/** Stores what is queued, refuses new calls, closes. */
	close(): Promise<void>;
	/** The store's clock, milliseconds since 1970 (R19). */
	now(): number;

	insert(groups: readonly NewGroup[]): Promise<InsertResult[]>;
	decide(decisions: readonly Decision[]): Promise<DecideResult[]>;
	/** Takes groups that are due and whose lease is over, oldest first; each goes to one claimer. */
	claim(request: ClaimRequest): Promise<Claimed[]>;
	/** Ends leases early. */
	release(
		items: readonly { readonly id: string; readonly epoch: number }[],
	): Promise<ApplyResult[]>;
	apply(changes: readonly Change[]): Promise<ApplyResult[]>;
	/**
	 * Makes due at once up to `limit` groups that wait for a target, or for an instance with a
	 * participant store.
	 * @returns how many it made due; fewer than `limit` means that none is left
	 */
	wake(
		what: { readonly target: string } | { readonly storeId: string },
		limit: number,
	): Promise<number>;

	get(ids: readonly string[]): Promise<(GroupRecord | undefined)[]>;
	/** Every payload of the group, former revisions too, by message and revision. */
	payloads(id: string): Promise<PayloadRecord[]>;
	/** The caller's context of the group, as JSON text. */
	context(id: string): Promise<string | undefined>;
	timeline(id: string): Promise<TimelineEntry[]>;
	/** Newest first, by keyset on created and id: stable under writes. */
	list(filter: GroupFilter, page: PageRequest): Promise<Page<GroupRecord>>;
	/** Newest first by group. */
	listMessages(filter: MessageFilter, page: PageRequest): Promise<Page<MessageRow>>;
	/** How many match, at the price of a glance: stops at `most`, or earlier where counting is dear. */
	countGroups(filter: GroupFilter, most: number): Promise<Total>;
	countMessages(filter: MessageFilter, most: number): Promise<Total>;
	/** What there is to filter by, in order, the first 1,000 of each. */
	facets(): Promise<Facets>;
	/** Failed messages by target, type and error code, most first, the first 1,000. */
	failures(): Promise<FailureKind[]>;
	/**
	 * What happened from `since` to before `until`, by minutes (kept for a day) or days of UTC (kept
	 * for a year). Figures for people: a store may lose some when its process dies.
	 */
	activity(step: ActivityStep, since: number, until: number): Promise<Activity[]>;
	/** Adds to the audit log, which is never purged. */
	record(entries: readonly NewAuditEntry[]): Promise<void>;
	/** The audit log, newest first. */
	audits(filter: AuditFilter, page: PageRequest): Promise<Page<AuditEntry>>;
	stats(): Promise<StoreStats>;
	/**
	 * Deletes groups whose last transition is older than `age`. Only `completed` and `rolledBack`,
	 * never with a conflict (R30).
	 * @returns how many were deleted; fewer than `limit` means that none is left
	 */
	purge(request: {
		readonly state: "completed" | "rolledBack";
		/** Milliseconds. */
		readonly age: number;
		readonly limit: number;
	}): Promise<number>;
}

export interface OpenedCoordinatorStore {
	readonly storeId: string;
	readonly schema: number;
	/** Key of the receipts (R5); lives in the store only. */
	readonly key: Uint8Array;
}

export type InsertResult =
	| { readonly result: "created" }
	/** Same id and same content, or the idempotency key's group. */
	| { readonly result: "exists"; readonly id: string; readonly state: GroupState }
	| { readonly result: "differs"; readonly state: GroupState };

export type DecideResult =
	/** `payloads` are those of the messages that went to `delivering` in this write. */
	| {
			readonly result: "done";
			readonly group: GroupRecord;
			readonly payloads: readonly PayloadRecord[];
			readonly context: string;
	  }
	| {
			readonly result: "already";
			readonly state: GroupState;
			readonly owner: string | null;
			readonly epoch: number;
	  }
	| { readonly result: "conflict"; readonly state: GroupState; readonly why: string }
	| { readonly result: "unknown" };

export interface ClaimRequest {
	readonly kind: DueKind;
	readonly owner: string;
	/** Milliseconds. */
	readonly lease: number;
	readonly limit: number;
	/**
	 * Only groups whose slot (0 to 255) is listed, or that are overdue by `after` milliseconds:
	 * how several coordinators spread the work.
	 */
	readonly share?: { readonly slots: readonly number[]; readonly after: number };
}

export interface Claimed {
	readonly group: GroupRecord;
	/** Current payloads of the messages that are due to be sent. */
	readonly payloads: readonly PayloadRecord[];
	readonly context: string;
}

export type ApplyResult =
	(TransitionResult & { readonly group: GroupRecord }) | { readonly result: "unknown" };

export interface GroupFilter {
	readonly states?: readonly GroupState[];
	readonly source?: string;
	/** Groups with a message to this target. */
	readonly target?: string;
	readonly type?: string;
	/** Groups with a message whose last error has this code. */
	readonly errorCode?: string;
	/** Groups with a message whose type, target, error code or search term equals one of these. */
	readonly terms?: readonly string[];
	readonly idPrefix?: string;
	readonly conflict?: boolean;
	/** Milliseconds since 1970: created at or after, and before. */
	readonly since?: number;
	readonly until?: number;
}

export interface MessageFilter {
	readonly states?: readonly MessageState[];
	readonly target?: string;
	readonly type?: string;
	readonly source?: string;
	readonly errorCode?: string;
	/** Messages whose type, target, error code or search term equals one of these. */
	readonly terms?: readonly string[];
	readonly groupPrefix?: string;
	/** Place of the message in its group. */
	readonly index?: number;
	readonly since?: number;
	readonly until?: number;
}

export interface MessageRow extends MessageRecord {
	readonly group: string;
	readonly groupState: GroupState;
	readonly source: string;
	readonly createdAt: number;
}

export interface PageRequest {
	readonly limit: number;
	/** `next` of the page before. */
	readonly cursor?: string;
	/** @default "newest" */
	readonly order?: "newest" | "oldest";
	/**
	 * About how many rows to look at where conditions filter on top of an index; then the page
	 * ends, short or even empty, and `next` goes on from there. @default no limit
	 */
	readonly scan?: number;
}

export interface Page<T> {
	readonly items: readonly T[];
	/** Undefined on the last page. */
	readonly next?: string;
}

export interface StoreStats {
	readonly groups: Readonly<Record<GroupState, number>>;
	readonly messages: Readonly<Record<MessageState, number>>;
	readonly conflicts: number;
	/** When the oldest group that is still prepared was made; and the oldest in doubt. */
	readonly oldestPrepared: number | null;
	readonly oldestInDoubt: number | null;
	/** Pending and delivering messages by target. */
	readonly backlog: readonly {
		readonly target: string;
		readonly messages: number;
		/** When the oldest of them came into its state. */
		readonly since: number;
	}[];
}

export interface Total {
	readonly count: number;
	/** False: there are at least that many. */
	readonly exact: boolean;
}

export interface Facets {
	readonly sources: readonly string[];
	readonly targets: readonly string[];
	readonly types: readonly string[];
	readonly errorCodes: readonly string[];
}

export interface FailureKind {
	readonly target: string;
	readonly type: string;
	readonly errorCode: string;
	readonly messages: number;
	/** The one of the newest group. */
	readonly newest: MessageRow;
}

export const ACTIVITIES = [
	"prepared",
	"committed",
	"rolledBack",
	"inDoubt",
	"completed",
	"consumed",
	"failed",
	"latency",
] as const;

export type ActivityStep = "minute" | "day";

/** How often something happened within a minute or a day. */
export interface Activity {
	/** Begin of the minute or day, milliseconds since 1970. */
	readonly at: number;
	/** States that groups and messages came into; `latency` of groups from prepare to completed. */
	readonly what: (typeof ACTIVITIES)[number];
	/** Source of groups, target of messages; of `latency` its {@link latencyBound}, as text. */
	readonly part: string;
	readonly count: number;
}

/** Milliseconds of each step of activity. */
export const ACTIVITY_MS: Readonly<Record<ActivityStep, number>> = {
	minute: 60_000,
	day: 86_400_000,
};

/** How long activity is kept at least, in milliseconds. */
export const ACTIVITY_KEPT_MS: Readonly<Record<ActivityStep, number>> = {
	minute: 25 * 3_600_000,
	day: 370 * 86_400_000,
};

/** @returns the upper bound of the class that a latency falls into: 1, 2, 3, 4, 6, 8, 12, 16, … ms */
export function latencyBound(ms: number): number {
	let bound = 1;
	while (bound < ms) {
		const between = (bound * 3) / 2;
		if (bound >= 2 && between >= ms) return between;
		bound *= 2;
	}
	return bound;
}

/** What an operator, or somebody who tried to be one, did. */
export interface NewAuditEntry {
	readonly who: string;
	readonly action: string;
	readonly result: string;
	readonly why: string | null;
	/** A group, message or job. */
	readonly subject: string | null;
	readonly data: Readonly<Record<string, unknown>> | null;
}

export interface AuditEntry extends NewAuditEntry {
	readonly id: string;
	readonly at: number;
}

export interface AuditFilter {
	readonly who?: string;
	readonly action?: string;
}

/** The slot (0 to 255) of a group, which spreads work over coordinators. */
export function slotOf(groupId: string): number {
	let hash = 0;
	for (let i = 0; i < groupId.length; i++) hash = (hash * 31 + groupId.charCodeAt(i)) >>> 0;
	return (hash ^ (hash >>> 8) ^ (hash >>> 16)) & 255;
}
