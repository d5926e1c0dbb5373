import { messageId, type Owner, sameOwner } from "./ids.ts";
import {
	FENCED_ALL,
	type Failure,
	type Guarantee,
	type GroupRecord,
	type GroupState,
	type MessageRecord,
	type MessageState,
	type Outcome,
	type PlainRoute,
	type RetryTimes,
	TIMELINE_LIMIT,
	type TimelineEntry,
} from "./records.ts";

/** Who decides: the producer's call, the answer of its store to a check-back, or a person. */
export type DecidedBy = "producer" | "resolved" | "operator";

/** What delivery can be started with the commit itself (PROTOCOL 7, `decide`). */
export interface DispatchLease {
	/** The coordinator instance that takes the work. */
	readonly owner: string;
	/** Milliseconds. */
	readonly lease: number;
	/** Milliseconds from the send to the first ask. */
	readonly ackTimeout: number;
	/**
	 * Targets that can be sent to now, by {@link readyKey}, each with the store its messages get
	 * bound to and, where it differs, the time to the first ask.
	 */
	readonly ready: ReadonlyMap<
		string,
		{ readonly storeId: string | null; readonly ackTimeout?: number }
	>;
}

/** @returns the name under which {@link DispatchLease}'s `ready` lists the message's target */
export function readyKey(message: {
	readonly target: string;
	readonly plain: PlainRoute | false;
}): string {
	return message.plain ? `${message.plain}:${message.target}` : message.target;
}

export interface Decision {
	readonly id: string;
	readonly to: Outcome;
	readonly by: DecidedBy;
	/** Who exactly, for the timeline. */
	readonly who: string;
	readonly why?: string;
	/** The participant store that the decider speaks for; another than the group's is refused (R3). */
	readonly storeId?: string;
	readonly dispatch?: DispatchLease;
}

/** Events of the group itself: a scheduling write, and what an operator asks for. */
export type GroupEvent =
	| {
			readonly type: "checked";
			readonly answer: "running" | "unknown" | "none";
			/** Milliseconds until the next check. */
			readonly delay: number;
			readonly why?: string;
			readonly maxChecks: number;
			/** Milliseconds since prepare after which silence means doubt. */
			readonly doubtAfter: number;
	  }
	| { readonly type: "recheck"; readonly who: string; readonly why?: string };

/** Events that only schedule: fenced by the claim's epoch (R20). */
export type SchedulingEvent =
	| {
			readonly type: "sent";
			readonly storeId: string | null;
			readonly instance: Owner | null;
			readonly ackTimeout: number;
	  }
	| {
			readonly type: "refused";
			readonly delay: number;
			readonly why: string;
			readonly parked?: boolean;
	  }
	| {
			readonly type: "rescheduled";
			readonly delay: number;
			readonly parked: boolean;
			readonly why: string;
			/** To whom the message went, where that is known: it may be gone, which counts (R23). */
			readonly instance?: Owner | null;
	  }
	| { readonly type: "asked"; readonly answer: "running" | "none"; readonly delay: number }
	| { readonly type: "unseen"; readonly vanished: boolean }
	| { readonly type: "crashed"; readonly error: Failure }
	| {
			readonly type: "unanswered";
			readonly error: Failure;
			readonly policy: RetryTimes;
			readonly fraction: number;
	  };

/** Events that are true whoever tells them: no epoch needed (R20). */
export type FactEvent =
	| { readonly type: "consumed"; readonly revision: number; readonly who: string }
	| {
			readonly type: "failed";
			readonly attempt: number;
			readonly revision: number;
			readonly error: Failure;
			readonly policy: RetryTimes;
			/** 0 to 1, for jitter. */
			readonly fraction: number;
			readonly who: string;
	  }
	/** The copy was too old to be run, and was not (R34). */
	| {
			readonly type: "expired";
			readonly attempt: number;
			readonly revision: number;
			readonly who: string;
	  }
	/**
	 * A copy that was handed over before is about to run at `instance`. Whoever had it last, and is
	 * not living, ended while it ran there (R23).
	 */
	| {
			readonly type: "running";
			readonly attempt: number;
			readonly revision: number;
			readonly instance: Owner;
			readonly living: readonly Owner[];
			readonly maxVanished: number;
			/** Milliseconds to the next ask, where nobody thought that it was under way. */
			readonly ackTimeout: number;
	  }
	/** The inbox refuses copies below `minRevision`. */
	| { readonly type: "fenced"; readonly minRevision: number };

/** What an operator does. `version` is the message's version that the operator saw. */
export type OperatorEvent =
	| {
			readonly type: "retry";
			readonly who: string;
			readonly why?: string;
			readonly version?: number;
			/** Lets the message go to another store than the one it is bound to (R3). */
			readonly rebind?: boolean;
	  }
	| {
			readonly type: "edit";
			readonly content: string;
			readonly bytes: number;
			/** As of a new message. */
			readonly terms?: readonly string[];
			readonly who: string;
			readonly why?: string;
			readonly version?: number;
	  }
	| {
			readonly type: "discard";
			readonly who: string;
			readonly why?: string;
			readonly version?: number;
			/** Whether the inbox already refuses every copy. */
			readonly fenced: boolean;
	  };

export type MessageEvent = SchedulingEvent | FactEvent | OperatorEvent;

/** One change: an event of a group, or of its message at `index`. */
export type Change = { readonly id: string; readonly epoch?: number } & (
	{ readonly event: GroupEvent } | { readonly index: number; readonly event: MessageEvent }
);

/** A timeline entry before the store gives it its place. */
export type NewEntry = Omit<TimelineEntry, "group" | "at" | "version" | "place">;

/** A group as prepare hands it to the store. */
export interface NewGroup {
	readonly id: string;
	readonly source: string;
	readonly storeId: string;
	readonly guarantee: Guarantee;
	readonly owner: Owner;
	readonly hash: string;
	readonly idempotencyKey: string | null;
	/** Milliseconds from now to the first check-back. */
	readonly checkAfter: number;
	/** The caller's context (meta, requestID, tracing) as JSON text, handed to every handler. */
	readonly context: string;
	readonly messages: readonly NewMessage[];
}

export interface NewMessage {
	readonly target: string;
	readonly type: string;
	/** The payload as JSON text. */
	readonly content: string;
	/** Its length in bytes. */
	readonly bytes: number;
	readonly delay: number;
	readonly maxAttempts: number | null;
	readonly orderingKey: string | null;
	readonly plain: PlainRoute | false;
	/** Values of the payload that it can be found by, in lower case. */
	readonly terms?: readonly string[];
}

/** What came of a transition. Only `done` changes state; `stale` may leave a timeline entry. */
export type TransitionResult =
	| { readonly result: "done" }
	| { readonly result: "already" }
	| { readonly result: "stale" }
	| { readonly result: "fenced" }
	| { readonly result: "conflict"; readonly state: string; readonly why: string };

export interface Transition {
	readonly outcome: TransitionResult;
	/** The group as it stands afterwards; the same object when nothing changed. */
	readonly group: GroupRecord;
	readonly entries: readonly NewEntry[];
}

export type DueKind = "check" | "deliver" | "ask";

/** Why a decision for another participant store than the group's is refused. */
export const OTHER_STORE = "the group belongs to another participant store";

const SCHEDULING: ReadonlySet<string> = new Set<SchedulingEvent["type"] | GroupEvent["type"]>([
	"checked",
	"sent",
	"refused",
	"rescheduled",
	"asked",
	"unseen",
	"crashed",
	"unanswered",
]);

const OPERATOR: ReadonlySet<string> = new Set<OperatorEvent["type"]>(["retry", "edit", "discard"]);

const BARRED = "its inbox refuses every copy: it can only be discarded";

/** The group as it is first stored: prepared, its messages held. */
export function prepared(
	group: NewGroup,
	now: number,
): { group: GroupRecord; entries: NewEntry[] } {
	const messages = group.messages.map((message, index): MessageRecord => ({
		id: messageId(group.id, index),
		index,
		target: message.target,
		type: message.type,
		state: "held",
		version: 1,
		revision: 0,
		bytes: message.bytes,
		delay: message.delay,
		maxAttempts: message.maxAttempts,
		orderingKey: message.orderingKey,
		plain: message.plain,
		nextAt: null,
		parked: false,
		waiting: null,
		sends: 0,
		attempts: 0,
		budgetFrom: 0,
		storeId: null,
		instance: null,
		asks: 0,
		vanished: 0,
		fenced: 0,
		consumedRevision: null,
		consumedAfterDiscard: false,
		error: null,
		entries: 0,
		stateAt: now,
	}));
	const record: GroupRecord = {
		id: group.id,
		version: 1,
		epoch: 0,
		state: "prepared",
		source: group.source,
		storeId: group.storeId,
		guarantee: group.guarantee,
		owner: group.owner,
		hash: group.hash,
		idempotencyKey: group.idempotencyKey,
		createdAt: now,
		stateAt: now,
		checkAt: now + group.checkAfter,
		checks: 0,
		unknowns: 0,
		waiting: null,
		conflict: null,
		leaseOwner: null,
		leaseUntil: 0,
		messages,
	};
	const entry: NewEntry = {
		message: null,
		event: "prepare",
		from: null,
		to: "prepared",
		by: `${group.source}@${group.owner.nodeID}`,
		why: null,
		data: null,
	};
	return { group: record, entries: [entry] };
}

/**
 * When a group is next due, and for what: the minimum over its live messages, but not
 * before its lease ends.
 */
export function due(group: GroupRecord): { at: number; kind: DueKind } | undefined {
	let at = Number.POSITIVE_INFINITY;
	let kind: DueKind = "check";
	if (group.state === "prepared" || group.state === "inDoubt") {
		if (group.checkAt !== null) at = group.checkAt;
	} else {
		for (const message of group.messages) {
			if (message.nextAt === null || message.nextAt >= at) continue;
			at = message.nextAt;
			kind = message.state === "pending" ? "deliver" : "ask";
		}
	}
	return at === Number.POSITIVE_INFINITY
		? undefined
		: { at: Math.max(at, group.leaseUntil), kind };
}

/** @returns whether the message's older copies must be fenced before it is sent again (R27) */
export function needsFence(message: MessageRecord): boolean {
	return !message.plain && message.sends > 0 && message.revision > message.fenced;
}

/**
 * @returns milliseconds until the next try after the `attempt`-th failure, jittered by up to a
 *   tenth either way, never above `maxDelay`
 */
export function backoff(times: RetryTimes, attempt: number, fraction: number): number {
	const growth = Math.min(times.factor ** Math.max(attempt - 1, 0), Number.MAX_VALUE);
	const capped = Math.min(times.delay * growth, times.maxDelay);
	return Math.round(Math.min(capped * (0.9 + 0.2 * fraction), times.maxDelay));
}

/** Gives the group to a coordinator: a new epoch and a lease (R20, R21). */
export function claimed(
	group: GroupRecord,
	owner: string,
	lease: number,
	now: number,
): GroupRecord {
	return {
		...group,
		version: group.version + 1,
		epoch: group.epoch + 1,
		leaseOwner: owner,
		leaseUntil: now + lease,
	};
}

/** Ends the lease of the claim with this epoch. */
export function released(group: GroupRecord, epoch: number): Transition {
	if (group.epoch !== epoch) return unchanged(group, { result: "fenced" });
	if (group.leaseUntil === 0) return unchanged(group, { result: "already" });
	return {
		outcome: { result: "done" },
		group: { ...group, version: group.version + 1, leaseOwner: null, leaseUntil: 0 },
		entries: [],
	};
}

/** Makes due what waits for its target, or a check-back that waits for its source (PROTOCOL 7, `wake`). */
export function woken(
	group: GroupRecord,
	what: { readonly target: string } | { readonly storeId: string },
	now: number,
): GroupRecord {
	if ("storeId" in what) {
		const waits = group.state === "inDoubt" || group.waiting !== null;
		if (group.storeId !== what.storeId || !waits) return group;
		if (group.checkAt === null || group.checkAt <= now) return group;
		return { ...group, version: group.version + 1, checkAt: now, waiting: null };
	}
	const parked = (message: MessageRecord) => message.parked && message.target === what.target;
	if (!group.messages.some(parked)) return group;
	const messages = group.messages.map((message) =>
		parked(message)
			? {
					...message,
					version: message.version + 1,
					parked: false,
					waiting: null,
					nextAt: now,
				}
			: message,
	);
	return { ...group, version: group.version + 1, messages };
}

/** Decides a group (R17, R18): the first sound decision wins, its repeat is a no-op. */
export function decide(group: GroupRecord, decision: Decision, now: number): Transition {
	const { to, by } = decision;
	if (decision.storeId !== undefined && decision.storeId !== group.storeId) {
		return conflict(group, OTHER_STORE);
	}
	if (group.state === "prepared" && by !== "operator") return decided(group, decision, now);
	if (group.state === "inDoubt") {
		return endsDoubt(group, by)
			? decided(group, decision, now)
			: conflict(group, "the group is in doubt after contradicting decisions");
	}
	const stands: Outcome | undefined =
		group.state === "committed" || group.state === "completed"
			? "committed"
			: group.state === "rolledBack"
				? "rolledBack"
				: undefined;
	if (stands === to) return unchanged(group, { result: "already" });
	if (by === "operator")
		return conflict(group, "only a group in doubt is decided by an operator");
	return to === "committed"
		? contradictRollback(group, decision, now)
		: contradictCommit(group, decision);
}

function endsDoubt(group: GroupRecord, by: DecidedBy): boolean {
	if (by === "operator" || group.conflict === null) return true;
	return by === "resolved" && group.guarantee === "transactional";
}

function decided(group: GroupRecord, decision: Decision, now: number): Transition {
	const { to, dispatch } = decision;
	const entries: NewEntry[] = [
		{
			message: null,
			event: to === "committed" ? "commit" : "rollback",
			from: group.state,
			to,
			by: decision.who,
			why: decision.why ?? null,
			data: decision.by === "producer" ? null : { decidedBy: decision.by },
		},
	];
	let sending = false;
	const messages = group.messages.map((message) => {
		if (message.state !== "held") return message;
		const version = message.version + 1;
		if (to === "rolledBack") return moved(message, "discarded", now, { nextAt: null, version });
		const pending = moved(message, "pending", now, { nextAt: now + message.delay, version });
		const ready = message.delay === 0 ? dispatch?.ready.get(readyKey(message)) : undefined;
		if (!dispatch || !ready) return pending;
		sending = true;
		const ackTimeout = ready.ackTimeout ?? dispatch.ackTimeout;
		const sent = sendOf(pending, ready.storeId, null, now, ackTimeout);
		entries.push({ ...entryOf(sent, "sent", "pending", dispatch.owner), why: null });
		return { ...sent, entries: sent.entries + 1 };
	});
	return {
		outcome: { result: "done" },
		entries,
		group: {
			...group,
			version: group.version + 1,
			state: to,
			stateAt: now,
			checkAt: null,
			waiting: null,
			idempotencyKey: to === "rolledBack" ? null : group.idempotencyKey,
			epoch: sending ? group.epoch + 1 : group.epoch,
			leaseOwner: sending && dispatch ? dispatch.owner : null,
			leaseUntil: sending && dispatch ? now + dispatch.lease : 0,
			messages,
		},
	};
}

function contradictRollback(group: GroupRecord, decision: Decision, now: number): Transition {
	const why = `commit by ${decision.by} met rolledBack`;
	return {
		outcome: { result: "conflict", state: "rolledBack", why },
		entries: [{ ...groupEntry(group, "conflict", "inDoubt", decision.who), why }],
		group: {
			...group,
			version: group.version + 1,
			state: "inDoubt",
			stateAt: now,
			conflict: why,
			checkAt: now,
			messages: group.messages.map((message) =>
				message.state === "discarded"
					? moved(message, "held", now, {
							nextAt: null,
							version: message.version + 1,
						})
					: message,
			),
		},
	};
}

function contradictCommit(group: GroupRecord, decision: Decision): Transition {
	const why = `rollback by ${decision.by} met ${group.state}`;
	const outcome: TransitionResult = { result: "conflict", state: group.state, why };
	if (group.conflict !== null) return unchanged(group, outcome);
	return {
		outcome,
		entries: [{ ...groupEntry(group, "conflict", group.state, decision.who), why }],
		group: { ...group, version: group.version + 1, conflict: why },
	};
}

/** Applies one event: the only way that a stored group or message changes after it is decided. */
export function applyChange(group: GroupRecord, change: Change, now: number): Transition {
	if (SCHEDULING.has(change.event.type) && change.epoch !== group.epoch) {
		return unchanged(group, { result: "fenced" });
	}
	if (!("index" in change)) return applyToGroup(group, change.event, now);
	const message = group.messages[change.index];
	if (!message) return conflict(group, "the group has no such message");
	const step = applyToMessage(group, message, change.event, now);
	if (!step.message) return { outcome: step.outcome, group, entries: [] };

	const entry = step.entry;
	const next = {
		...step.message,
		// A report that counts for nothing must not take the message from under an operator.
		version: message.version + (step.outcome.result === "done" ? 1 : 0),
		entries: message.entries + (entry ? 1 : 0),
	};
	const messages = group.messages.with(change.index, next);
	// What a person did is told however long the history is.
	const told = next.entries <= TIMELINE_LIMIT || OPERATOR.has(change.event.type);
	const entries: NewEntry[] = entry && told ? [entry] : [];
	let after: GroupRecord = { ...group, version: group.version + 1, messages };
	if (step.outcome.result === "done") after = withoutIdleLease(after, now);
	if (after.state === "committed" && messages.every(isSettled)) {
		entries.push(groupEntry(after, "complete", "completed", "coordinator"));
		after = { ...after, state: "completed", stateAt: now, leaseOwner: null, leaseUntil: 0 };
	}
	return { outcome: step.outcome, group: after, entries };
}

function applyToGroup(group: GroupRecord, event: GroupEvent, now: number): Transition {
	if (group.state !== "prepared" && group.state !== "inDoubt") {
		return conflict(group, "the group is decided");
	}
	if (event.type === "recheck") {
		return {
			outcome: { result: "done" },
			entries: [
				{ ...groupEntry(group, "recheck", group.state, event.who), why: event.why ?? null },
			],
			group: {
				...group,
				version: group.version + 1,
				// A check under way must not put off the one that was asked for.
				epoch: group.epoch + 1,
				checkAt: now,
				leaseUntil: 0,
				leaseOwner: null,
			},
		};
	}
	const unknowns = group.unknowns + (event.answer === "unknown" ? 1 : 0);
	const age = now - group.createdAt;
	// A recorded store cannot abort work that runs for ever (R10); a transactional one does.
	const silent =
		event.answer === "none" ||
		(event.answer === "running" && group.guarantee !== "transactional");
	const doubt =
		group.state === "prepared" &&
		(unknowns >= event.maxChecks || (silent && age >= event.doubtAfter));
	const waiting = event.answer === "none" ? (event.why ?? "nobody answered") : null;
	const news = waiting !== group.waiting || event.answer === "unknown";
	return {
		outcome: { result: "done" },
		entries:
			doubt || (news && group.checks < TIMELINE_LIMIT)
				? [
						{
							...groupEntry(
								group,
								doubt ? "doubt" : "check",
								doubt ? "inDoubt" : group.state,
								"coordinator",
							),
							why: event.why ?? null,
							data: { answer: event.answer },
						},
					]
				: [],
		group: {
			...group,
			version: group.version + 1,
			state: doubt ? "inDoubt" : group.state,
			stateAt: doubt ? now : group.stateAt,
			checks: group.checks + 1,
			unknowns,
			waiting,
			checkAt: now + event.delay,
			leaseOwner: null,
			leaseUntil: 0,
		},
	};
}

/** Ends a lease that protects nothing any more: all that was due is stored as taken care of (R21). */
function withoutIdleLease(group: GroupRecord, now: number): GroupRecord {
	if (group.leaseUntil === 0) return group;
	const due = group.messages.some((message) => message.nextAt !== null && message.nextAt <= now);
	return due ? group : { ...group, leaseOwner: null, leaseUntil: 0 };
}

interface Step {
	readonly outcome: TransitionResult;
	readonly message?: MessageRecord;
	readonly entry?: NewEntry;
}

function applyToMessage(
	group: GroupRecord,
	message: MessageRecord,
	event: MessageEvent,
	now: number,
): Step {
	switch (event.type) {
		case "sent":
		case "refused":
		case "rescheduled":
		case "asked":
		case "unseen":
		case "crashed":
		case "unanswered":
			return schedule(group, message, event, now);
		case "consumed":
		case "failed":
		case "expired":
		case "running":
		case "fenced":
			return settle(message, event, now);
		default:
			return operate(message, event, now);
	}
}

function schedule(
	group: GroupRecord,
	message: MessageRecord,
	event: SchedulingEvent,
	now: number,
): Step {
	if (event.type === "rescheduled") {
		if (message.nextAt === null) return illegal(message, event.type);
		const next = {
			...message,
			nextAt: now + event.delay,
			parked: event.parked,
			waiting: event.why,
			instance: event.instance ?? message.instance,
		};
		if (message.waiting === event.why) return { outcome: { result: "done" }, message: next };
		return done(next, {
			...entryOf(next, "wait", message.state, "coordinator"),
			why: event.why,
		});
	}
	if (event.type === "sent") {
		if (message.state !== "pending" || group.state !== "committed")
			return illegal(message, event.type);
		if (message.fenced === FENCED_ALL) return refuse(message, BARRED);
		if (needsFence(message)) return refuse(message, "older copies are not fenced yet");
		if (message.storeId !== null && message.storeId !== event.storeId) {
			return refuse(message, "the message is bound to another store");
		}
		const next = sendOf(message, event.storeId, event.instance, now, event.ackTimeout);
		return done(next, {
			...entryOf(next, "sent", "pending", "coordinator"),
			data: {
				send: next.sends,
				attempt: next.attempts + 1,
				to: event.instance?.nodeID ?? null,
			},
		});
	}
	if (message.state !== "delivering") return illegal(message, event.type);
	if (event.type !== "refused" && (message.plain !== false) !== (event.type === "unanswered")) {
		return refuse(
			message,
			`${event.type} is not for a target that can${message.plain ? "not" : ""} be asked`,
		);
	}
	switch (event.type) {
		case "refused": {
			const next = moved(message, "pending", now, {
				nextAt: now + event.delay,
				parked: event.parked === true,
				sends: message.sends - 1,
				storeId: message.sends === 1 ? null : message.storeId,
				waiting: event.why,
			});
			return done(next, {
				...entryOf(next, "refused", "delivering", "coordinator"),
				why: event.why,
			});
		}
		case "asked": {
			const next = { ...message, nextAt: now + event.delay, asks: message.asks + 1 };
			if (message.asks > 0) return { outcome: { result: "done" }, message: next };
			return done(next, {
				...entryOf(next, "asked", "delivering", "coordinator"),
				data: { answer: event.answer },
			});
		}
		case "unseen": {
			const next = moved(message, "pending", now, {
				nextAt: now,
				asks: 0,
				vanished: message.vanished + (event.vanished ? 1 : 0),
			});
			return done(next, {
				...entryOf(next, "unseen", "delivering", "coordinator"),
				data: { vanished: next.vanished },
			});
		}
		case "crashed": {
			const next = moved(message, "failed", now, {
				nextAt: null,
				error: event.error,
				fenced: Math.max(message.fenced, message.revision + 1),
			});
			return done(next, {
				...entryOf(next, "failed", "delivering", "coordinator"),
				data: { error: event.error },
			});
		}
		case "unanswered":
			return failedAttempt(message, event, "coordinator", now);
	}
}

function settle(message: MessageRecord, event: FactEvent, now: number): Step {
	if (event.type === "fenced") {
		if (message.state === "consumed" || message.fenced >= event.minRevision) {
			return { outcome: { result: "already" } };
		}
		const idle = message.state === "discarded" && event.minRevision === FENCED_ALL;
		const next = {
			...message,
			fenced: event.minRevision,
			...(idle ? { nextAt: null, parked: false, waiting: null } : {}),
		};
		return done(next, {
			...entryOf(next, "fenced", message.state, "coordinator"),
			data: { below: event.minRevision === FENCED_ALL ? "all" : event.minRevision },
		});
	}
	if (event.type === "consumed") {
		if (message.state === "consumed") return { outcome: { result: "already" } };
		if (message.sends === 0 || message.state === "held")
			return refuse(message, "it was never sent");
		const next = moved(message, "consumed", now, {
			nextAt: null,
			consumedRevision: event.revision,
			consumedAfterDiscard: message.state === "discarded",
			error: null,
		});
		return done(next, {
			...entryOf(next, "consumed", message.state, event.who),
			why: next.consumedAfterDiscard ? "consumed after discard" : null,
			data: { revision: event.revision, attempt: message.attempts + 1 },
		});
	}
	if (message.sends === 0) return refuse(message, "it was never sent");
	const current = event.attempt === message.attempts + 1 && event.revision === message.revision;
	if (event.type === "running") {
		const open = message.state === "delivering" || message.state === "pending";
		if (!current || !open) return { outcome: { result: "already" } };
		return runsAgain(message, event, now);
	}
	if (event.type === "expired") {
		if (current && message.state === "pending") return { outcome: { result: "already" } };
		if (!current || message.state !== "delivering") return { outcome: { result: "stale" } };
		const next = moved(message, "pending", now, { nextAt: now, asks: 0 });
		return done(next, entryOf(next, "expired", "delivering", event.who));
	}
	if (message.state === "delivering" && current)
		return failedAttempt(message, event, event.who, now);
	if (event.attempt === message.attempts) return { outcome: { result: "already" } };
	return {
		outcome: { result: "stale" },
		message,
		entry: {
			...entryOf(message, "late failure", message.state, event.who),
			why: event.error.message,
			data: { attempt: event.attempt, revision: event.revision },
		},
	};
}

function runsAgain(
	message: MessageRecord,
	event: Extract<FactEvent, { type: "running" }>,
	now: number,
): Step {
	const { instance: before } = message;
	if (message.vanished >= event.maxVanished) return { outcome: { result: "stale" } };
	if (sameOwner(before, event.instance)) return { outcome: { result: "already" } };
	if (event.living.some((owner) => sameOwner(owner, before))) {
		return refuse(message, `it runs on ${before?.nodeID}`);
	}
	const vanished = message.vanished + (before === null ? 0 : 1);
	const due = message.state === "delivering" ? message.nextAt : now + event.ackTimeout;
	const next = moved(message, "delivering", now, {
		instance: event.instance,
		vanished,
		// Too often: it is fenced and fails at once.
		nextAt: vanished >= event.maxVanished ? now : due,
	});
	return done(next, {
		...entryOf(next, "running again", message.state, event.instance.nodeID),
		data: { vanished },
	});
}

function failedAttempt(
	message: MessageRecord,
	event: { readonly error: Failure; readonly policy: RetryTimes; readonly fraction: number },
	who: string,
	now: number,
): Step {
	const attempts = message.attempts + 1;
	const allowed = message.maxAttempts ?? event.policy.retries + 1;
	const again = event.error.retryable && attempts - message.budgetFrom < allowed;
	const delay = backoff(event.policy, attempts - message.budgetFrom, event.fraction);
	const next = moved(message, again ? "pending" : "failed", now, {
		attempts,
		asks: 0,
		error: event.error,
		nextAt: again ? now + delay : null,
	});
	return done(next, {
		...entryOf(next, again ? "attempt failed" : "failed", "delivering", who),
		why: event.error.message,
		data: { attempt: attempts, code: event.error.code, ...(again ? { retryIn: delay } : {}) },
	});
}

function operate(message: MessageRecord, event: OperatorEvent, now: number): Step {
	if (fulfilled(message, event, now)) return { outcome: { result: "already" } };
	if (event.version !== undefined && event.version !== message.version) {
		return refuse(message, `version ${event.version} is not the current ${message.version}`);
	}
	const why = event.why ?? null;
	switch (event.type) {
		case "retry": {
			if (message.state !== "failed" && message.state !== "pending")
				return illegal(message, "retry");
			if (message.fenced === FENCED_ALL) return refuse(message, BARRED);
			const next = moved(message, "pending", now, {
				nextAt: now,
				budgetFrom: message.attempts,
				vanished: 0,
				asks: 0,
				revision: Math.max(message.revision, message.fenced),
				storeId: event.rebind ? null : message.storeId,
			});
			return done(next, { ...entryOf(next, "retry", message.state, event.who), why });
		}
		case "edit": {
			if (message.state !== "failed") return illegal(message, "edit");
			if (message.fenced === FENCED_ALL) return refuse(message, BARRED);
			const next = {
				...message,
				revision: Math.max(message.revision + 1, message.fenced),
				bytes: event.bytes,
			};
			return done(next, {
				...entryOf(next, "edit", "failed", event.who),
				why,
				data: { revision: next.revision },
			});
		}
		case "discard": {
			if (!["failed", "pending", "delivering"].includes(message.state))
				return illegal(message, "discard");
			const fenced = event.fenced || message.sends === 0 || message.fenced === FENCED_ALL;
			// A plain target has no inbox that could refuse what is under way to it.
			const open = !fenced && !message.plain;
			const next = moved(message, "discarded", now, {
				fenced: fenced ? FENCED_ALL : message.fenced,
				nextAt: open ? now : null,
				waiting: open ? "not fenced yet" : null,
			});
			return done(next, {
				...entryOf(next, "discard", message.state, event.who),
				why,
				data: fenced ? null : { fenced: false },
			});
		}
	}
}

/** @returns whether the operator's wish is fulfilled already */
function fulfilled(message: MessageRecord, event: OperatorEvent, now: number): boolean {
	if (event.type === "discard") return message.state === "discarded";
	if (event.type === "edit" || message.state !== "pending") return false;
	const due = message.nextAt !== null && message.nextAt <= now;
	const fresh = message.budgetFrom === message.attempts && message.vanished === 0;
	return due && fresh && (!event.rebind || message.storeId === null);
}

function sendOf(
	message: MessageRecord,
	storeId: string | null,
	instance: Owner | null,
	now: number,
	ackTimeout: number,
): MessageRecord {
	return moved(message, "delivering", now, {
		sends: message.sends + 1,
		asks: 0,
		storeId: message.storeId ?? storeId,
		instance,
		nextAt: now + ackTimeout,
	});
}

function moved(
	message: MessageRecord,
	state: MessageState,
	now: number,
	fields: Partial<MessageRecord>,
): MessageRecord {
	const stateAt = state === message.state ? message.stateAt : now;
	return { ...message, state, stateAt, parked: false, waiting: null, ...fields };
}

function isSettled(message: MessageRecord): boolean {
	return message.state === "consumed" || message.state === "discarded";
}

function done(message: MessageRecord, entry: NewEntry): Step {
	return { outcome: { result: "done" }, message, entry };
}

function illegal(message: MessageRecord, event: string): Step {
	return refuse(message, `${event} is not possible while the message is ${message.state}`);
}

function refuse(message: MessageRecord, why: string): Step {
	return { outcome: { result: "conflict", state: message.state, why } };
}

function conflict(group: GroupRecord, why: string): Transition {
	return unchanged(group, { result: "conflict", state: group.state, why });
}

function unchanged(group: GroupRecord, outcome: TransitionResult): Transition {
	return { outcome, group, entries: [] };
}

function entryOf(message: MessageRecord, event: string, from: MessageState, by: string): NewEntry {
	return { message: message.id, event, from, to: message.state, by, why: null, data: null };
}

function groupEntry(group: GroupRecord, event: string, to: GroupState, by: string): NewEntry {
	return { message: null, event, from: group.state, to, by, why: null, data: null };
}
