import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";

import {
	applyChange,
	type Change,
	claimed,
	decide,
	type Decision,
	due,
	FENCED_ALL,
	type GroupRecord,
	type MessageEvent,
	type MessageRecord,
	type NewEntry,
	prepared,
	released,
	type TransitionResult,
	woken,
} from "../../protocol/index.ts";
import {
	CONSUMER_STORE,
	deepFreeze,
	decision,
	dispatchTo,
	FAILURE,
	FATAL,
	GROUP_ID,
	newGroup,
	newMessage,
	PRODUCER_STORE,
	RETRY,
	T0,
} from "../support/groups.ts";

const OTHER_STORE = "c".repeat(32);

const GROUP_EDGES = new Set([
	"prepared > committed",
	"prepared > rolledBack",
	"prepared > inDoubt",
	"inDoubt > committed",
	"inDoubt > rolledBack",
	"rolledBack > inDoubt",
	"committed > completed",
]);

const MESSAGE_EDGES = new Set([
	"held > pending",
	"held > delivering",
	"held > discarded",
	"discarded > held",
	"pending > delivering",
	"pending > consumed",
	"pending > discarded",
	"delivering > pending",
	"delivering > consumed",
	"delivering > failed",
	"delivering > discarded",
	"failed > pending",
	"failed > consumed",
	"failed > discarded",
	"discarded > consumed",
]);

const SCHEDULING = new Set<string>([
	"checked",
	"sent",
	"refused",
	"rescheduled",
	"asked",
	"unseen",
	"crashed",
	"unanswered",
]);

/** A step as generated: numbers are relative to the group that it meets. */
type Step =
	| { readonly kind: "decide"; readonly decision: Decision }
	| { readonly kind: "claim"; readonly owner: string }
	| { readonly kind: "release"; readonly epoch: number }
	| { readonly kind: "wake"; readonly what: { target: string } | { storeId: string } }
	| { readonly kind: "wait"; readonly ms: number }
	| {
			readonly kind: "own";
			readonly epoch: number;
			readonly event: "checked" | "recheck";
			readonly answer: "running" | "unknown" | "none";
	  }
	| {
			readonly kind: "message";
			readonly index: number;
			readonly epoch: number | undefined;
			readonly event: MessageEvent["type"];
			/** Off the current attempt, revision or version. */
			readonly off: number;
			readonly flag: boolean;
			readonly storeId: string;
	  }
	| { readonly kind: "again" };

const delay = fc.constantFrom(0, 1, 1_000, 20_000);
/** Mostly right: wrong numbers end in refusals, which lead nowhere. */
const off = fc.oneof(
	{ weight: 6, arbitrary: fc.constant(0) },
	{ weight: 1, arbitrary: fc.integer({ min: -2, max: 2 }) },
);

const step: fc.Arbitrary<Step> = fc.oneof(
	{
		weight: 3,
		arbitrary: fc.record({
			kind: fc.constant("decide" as const),
			decision: fc
				.record({
					to: fc.constantFrom("committed" as const, "committed", "rolledBack"),
					by: fc.constantFrom("producer" as const, "resolved", "operator"),
					ready: fc.subarray(["auth", "mail"]),
					dispatches: fc.boolean(),
				})
				.map(({ to, by, ready, dispatches }) =>
					decision({ to, by, ...(dispatches ? { dispatch: dispatchTo(...ready) } : {}) }),
				),
		}),
	},
	{
		weight: 2,
		arbitrary: fc.record({
			kind: fc.constant("claim" as const),
			owner: fc.constantFrom("k1", "k2"),
		}),
	},
	{ weight: 1, arbitrary: fc.record({ kind: fc.constant("release" as const), epoch: off }) },
	{
		weight: 1,
		arbitrary: fc.record({
			kind: fc.constant("wake" as const),
			what: fc.constantFrom<{ target: string } | { storeId: string }>(
				{ target: "auth" },
				{ target: "mail" },
				{ storeId: PRODUCER_STORE },
				{ storeId: OTHER_STORE },
			),
		}),
	},
	{ weight: 1, arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: delay }) },
	{
		weight: 2,
		arbitrary: fc.record({
			kind: fc.constant("own" as const),
			epoch: off,
			event: fc.constantFrom("checked" as const, "checked", "recheck"),
			answer: fc.constantFrom("running" as const, "unknown", "none"),
		}),
	},
	{
		weight: 24,
		arbitrary: fc.record({
			kind: fc.constant("message" as const),
			index: fc.integer({ min: 0, max: 3 }),
			epoch: fc.oneof(
				{ weight: 12, arbitrary: off },
				{ weight: 1, arbitrary: fc.constant(undefined) },
			),
			event: fc.constantFrom<MessageEvent["type"]>(
				...(["sent", "sent", "sent", "refused", "rescheduled", "asked", "unseen"] as const),
				...(["crashed", "unanswered", "consumed", "failed", "failed", "expired"] as const),
				...(["running", "fenced", "retry", "edit", "discard"] as const),
			),
			off,
			flag: fc.boolean(),
			storeId: fc.oneof(
				{ weight: 6, arbitrary: fc.constant(CONSUMER_STORE) },
				{ weight: 1, arbitrary: fc.constant(OTHER_STORE) },
			),
		}),
	},
	{ weight: 4, arbitrary: fc.constant({ kind: "again" as const }) },
);

/** Long enough to come deep: left alone, fast-check makes arrays of ten. */
const steps = fc.array(step, { maxLength: 80, size: "max" });

const group: fc.Arbitrary<GroupRecord> = fc
	.record({
		guarantee: fc.constantFrom("transactional" as const, "recorded", "memory"),
		messages: fc.array(
			fc
				.record({
					target: fc.constantFrom("auth", "mail"),
					delay,
					maxAttempts: fc.constantFrom(null, 1, 2),
					plain: fc.constantFrom(false as const, false as const, "action" as const),
				})
				.map(newMessage),
			{ minLength: 1, maxLength: 3 },
		),
	})
	.map((fields) => deepFreeze(prepared(newGroup(fields), T0).group));

/** What one step did. */
interface Seen {
	readonly before: GroupRecord;
	readonly after: GroupRecord;
	readonly now: number;
	readonly outcome?: TransitionResult;
	readonly entries: readonly NewEntry[];
	readonly decision?: Decision;
	readonly change?: Change;
}

function eventOf(message: MessageRecord | undefined, given: Step & { kind: "message" }) {
	const { off, flag, storeId } = given;
	const attempt = (message?.attempts ?? 0) + 1 + off;
	const revision = Math.max((message?.revision ?? 0) + off, 0);
	const version = flag ? { version: (message?.version ?? 0) + off } : {};
	const error = flag ? FAILURE : FATAL;
	const who = "somebody";
	const events: { [T in MessageEvent["type"]]: Extract<MessageEvent, { type: T }> } = {
		sent: {
			type: "sent",
			storeId: message?.plain ? null : storeId,
			instance: null,
			ackTimeout: 10_000,
		},
		refused: { type: "refused", delay: 1_000, why: "full" },
		rescheduled: { type: "rescheduled", delay: 20_000, parked: flag, why: "nobody there" },
		asked: { type: "asked", answer: flag ? "running" : "none", delay: 1_000 },
		unseen: { type: "unseen", vanished: flag },
		crashed: { type: "crashed", error: FATAL },
		unanswered: { type: "unanswered", error, policy: RETRY, fraction: 0.5 },
		consumed: { type: "consumed", revision, who },
		failed: { type: "failed", attempt, revision, error, policy: RETRY, fraction: 0.5, who },
		expired: { type: "expired", attempt, revision, who },
		running: {
			type: "running",
			attempt,
			revision,
			instance: { nodeID: `c${off + 3}`, instanceID: "1" },
			living: flag ? [{ nodeID: "c3", instanceID: "1" }] : [],
			maxVanished: 2,
			ackTimeout: 10_000,
		},
		fenced: {
			type: "fenced",
			minRevision: message?.state === "discarded" || off === 2 ? FENCED_ALL : revision,
		},
		retry: { type: "retry", who, ...version, rebind: flag },
		edit: { type: "edit", who, ...version, content: "{}", bytes: 3 },
		discard: { type: "discard", who, ...version, fenced: flag },
	};
	return events[given.event];
}

function changeOf(before: GroupRecord, given: Step & { kind: "own" | "message" }): Change {
	const at = {
		id: GROUP_ID,
		...(given.epoch === undefined ? {} : { epoch: before.epoch + given.epoch }),
	};
	if (given.kind === "message") {
		return { ...at, index: given.index, event: eventOf(before.messages[given.index], given) };
	}
	if (given.event === "recheck") return { ...at, event: { type: "recheck", who: "ann" } };
	const { answer } = given;
	const limits = { delay: 20_000, maxChecks: 3, doubtAfter: 60_000 };
	return { ...at, event: { type: "checked", answer, ...limits } };
}

/** Runs the steps and tells each; every record handed to the machine is frozen. */
function run(start: GroupRecord, steps: readonly Step[], see: (seen: Seen) => void): GroupRecord {
	let now = T0;
	let current = start;
	let last: Pick<Seen, "decision" | "change"> = {};
	const took = (seen: Omit<Seen, "before" | "now">) => {
		see(deepFreeze({ ...seen, before: current, now }));
		current = seen.after;
	};
	for (const given of steps) {
		switch (given.kind) {
			case "wait":
				now += given.ms;
				continue;
			case "claim":
				took({ after: claimed(current, given.owner, 5_000, now), entries: [] });
				continue;
			case "wake":
				took({ after: woken(current, given.what, now), entries: [] });
				continue;
			case "release": {
				const { group: after, ...rest } = released(current, current.epoch + given.epoch);
				took({ after, ...rest });
				continue;
			}
			case "decide":
				last = { decision: given.decision };
				break;
			case "own":
			case "message":
				last = { change: deepFreeze(changeOf(current, given)) };
		}
		const transition = last.decision
			? decide(current, last.decision, now)
			: last.change && applyChange(current, last.change, now);
		if (!transition) continue;
		const { group: after, ...rest } = transition;
		took({ after, ...rest, ...last });
	}
	return current;
}

/** Runs random sequences and holds each step to `check`. */
function always(check: (seen: Seen) => void, runs = 150): void {
	fc.assert(
		fc.property(group, steps, (start, taken) => {
			run(start, taken, check);
		}),
		{ numRuns: runs },
	);
}

/** Each message before and after. */
function pairs({ before, after }: Seen): (readonly [MessageRecord, MessageRecord])[] {
	return before.messages.map((message, index) => {
		const next = after.messages[index];
		if (!next) throw new Error(`message ${index} is gone`);
		return [message, next] as const;
	});
}

/** The event, if this step was one of the message. */
function eventAt(seen: Seen, index: number): MessageEvent | undefined {
	const { change } = seen;
	return change && "index" in change && change.index === index ? change.event : undefined;
}

const isSettled = ({ state }: MessageRecord) => state === "consumed" || state === "discarded";

describe("any sequence of decisions, claims, reports and operators' actions", () => {
	it("takes only legal edges", () => {
		always((seen) => {
			const { before, after } = seen;
			if (before.state !== after.state) {
				expect(GROUP_EDGES).toContain(`${before.state} > ${after.state}`);
			}
			for (const [message, next] of pairs(seen)) {
				if (message.state === next.state) continue;
				expect(MESSAGE_EDGES).toContain(`${message.state} > ${next.state}`);
			}
		});
	});

	it("reaches every legal edge, so that the other properties are about something", () => {
		const edges = { group: new Set<string>(), message: new Set<string>() };
		const cases = fc.sample(fc.tuple(group, steps), {
			numRuns: 1_000,
			seed: 1,
		});
		for (const [start, taken] of cases) {
			run(start, taken, (seen) => {
				const { before, after } = seen;
				if (before.state !== after.state)
					edges.group.add(`${before.state} > ${after.state}`);
				for (const [message, next] of pairs(seen)) {
					if (message.state !== next.state) {
						edges.message.add(`${message.state} > ${next.state}`);
					}
				}
			});
		}
		expect([...edges.group].sort()).toEqual([...GROUP_EDGES].sort());
		expect([...edges.message].sort()).toEqual([...MESSAGE_EDGES].sort());
	});

	it("never reaches an illegal state", () => {
		always(({ after }) => {
			const undecided = after.state === "prepared" || after.state === "inDoubt";
			expect(after.checkAt !== null).toBe(undecided);
			for (const message of after.messages) {
				expect(message.state === "held").toBe(undecided);
				const open = message.state === "discarded" && message.waiting === "not fenced yet";
				const live = message.state === "pending" || message.state === "delivering";
				if (live || open) expect(message.nextAt).not.toBeNull();
				if (["held", "consumed", "failed"].includes(message.state)) {
					expect(message.nextAt).toBeNull();
				}
				if (message.fenced === FENCED_ALL && message.state === "discarded") {
					expect(message.nextAt).toBeNull();
				}
				if (message.parked) expect(message.nextAt).not.toBeNull();
				expect(message.consumedRevision !== null).toBe(message.state === "consumed");
				if (message.state === "failed") expect(message.error).not.toBeNull();
				expect(message.sends).toBeGreaterThanOrEqual(0);
				expect(message.budgetFrom).toBeLessThanOrEqual(message.attempts);
				if (after.state === "rolledBack") expect(message.state).toBe("discarded");
			}
		});
	});

	it("sends only what is committed", () => {
		always((seen) => {
			for (const [message, next] of pairs(seen)) {
				if (next.sends > 0) expect(["committed", "completed"]).toContain(seen.after.state);
				if (next.state === "delivering") expect(seen.after.state).toBe("committed");
				if (next.state === "consumed") expect(next.sends).toBeGreaterThan(0);
				const type = eventAt(seen, message.index)?.type;
				if (next.sends > message.sends) {
					expect(next.sends).toBe(message.sends + 1);
					expect(next.state).toBe("delivering");
					expect(type === "sent" || seen.decision?.to === "committed").toBe(true);
				}
				if (next.sends < message.sends) expect(type).toBe("refused");
			}
		});
	});

	it("completes a committed group exactly when every message is consumed or discarded", () => {
		always(({ after }) => {
			if (after.state === "completed") expect(after.messages.every(isSettled)).toBe(true);
			if (after.state === "committed") expect(after.messages.every(isSettled)).toBe(false);
		});
	});

	it("lets the first sound decision win, until a contradiction puts it in doubt", () => {
		always(({ before, after, decision: given }) => {
			const was = before.state === "completed" ? "committed" : before.state;
			const is = after.state === "completed" ? "committed" : after.state;
			if (was === "committed") expect(is).toBe("committed");
			if (was === "rolledBack" && is !== "rolledBack") {
				expect(is).toBe("inDoubt");
				expect(given).toMatchObject({ to: "committed" });
				expect(after.conflict).not.toBeNull();
			}
			if (was === "prepared") expect(given?.by === "operator" && is !== was).toBe(false);
			if (before.conflict !== null) expect(after.conflict).not.toBeNull();
		});
	});

	it("makes every repeated decision and report a no-op", () => {
		always(({ after, now, outcome, decision: given, change }) => {
			// What the store of a group in contradiction says ends its doubt, said again too (R16).
			const answers = given?.by === "resolved" && after.state === "inDoubt";
			if (given && !answers) {
				const again = decide(after, given, now);
				expect(again.group).toBe(after);
				expect(again.entries).toEqual([]);
				if (outcome?.result !== "conflict") expect(again.outcome.result).toBe("already");
			}
			const type = change?.event.type;
			if (
				!change ||
				!["consumed", "failed", "expired", "running", "fenced"].includes(type ?? "")
			)
				return;
			const again = applyChange(after, change, now);
			if (outcome?.result === "done" || outcome?.result === "already") {
				expect(again.outcome.result).toBe("already");
				expect(again.group).toBe(after);
			} else {
				expect(again.outcome.result).toBe(outcome?.result);
			}
		});
	});

	it("answers a repeated wish of an operator without changing state", () => {
		always(({ after, now, outcome, change }) => {
			const type = change?.event.type;
			if (!change || (type !== "retry" && type !== "discard")) return;
			if (outcome?.result !== "done") return;
			const again = applyChange(after, change, now);
			expect(again.outcome.result).toBe("already");
			expect(again.group).toBe(after);
		});
	});

	it("changes nothing unless it answers done, stale or conflict", () => {
		always(({ before, after, entries, outcome }) => {
			if (outcome?.result === "already" || outcome?.result === "fenced") {
				expect(after).toBe(before);
				expect(entries).toEqual([]);
			}
			if (after !== before) expect(after.version).toBe(before.version + 1);
			if (entries.length > 0) expect(after).not.toBe(before);
		});
	});

	it("never lets a consumed message change again", () => {
		always((seen) => {
			for (const [message, next] of pairs(seen)) {
				if (message.state !== "consumed") continue;
				expect(next).toEqual({ ...message, entries: next.entries });
			}
		});
	});

	it("takes consumed for every message that was sent, whatever its state, attempt or revision", () => {
		always(({ after, now }) => {
			for (const message of after.messages) {
				const event = { type: "consumed", revision: 0, who: "auth" } as const;
				const { index } = message;
				const { group: next } = applyChange(after, { id: GROUP_ID, index, event }, now);
				const taken = message.sends > 0 || message.state === "consumed";
				expect(next.messages[index]?.state).toBe(taken ? "consumed" : message.state);
			}
		});
	});

	it("lets a failure that is not of the attempt under way change nothing but the timeline", () => {
		always((seen) => {
			for (const [message, next] of pairs(seen)) {
				const event = eventAt(seen, message.index);
				if (event?.type !== "failed") continue;
				const current =
					event.attempt === message.attempts + 1 && event.revision === message.revision;
				if (current && message.state === "delivering") continue;
				expect(next).toEqual({ ...message, entries: next.entries });
				expect(seen.after.state).toBe(seen.before.state);
				expect(due(seen.after)).toEqual(due(seen.before));
			}
		});
	});

	it("raises attempts only by a failed report, or an unanswered send of a plain target", () => {
		always((seen) => {
			for (const [message, next] of pairs(seen)) {
				if (next.attempts === message.attempts) continue;
				expect(next.attempts).toBe(message.attempts + 1);
				const event = eventAt(seen, message.index);
				expect(message.state).toBe("delivering");
				if (event?.type === "failed") expect(event.attempt).toBe(next.attempts);
				else expect([event?.type, message.plain]).toEqual(["unanswered", "action"]);
			}
		});
	});

	it("makes a message failed only by a failed report, a crash, or a plain target's silence", () => {
		always((seen) => {
			for (const [message, next] of pairs(seen)) {
				if (next.state !== "failed" || message.state === "failed") continue;
				const type = eventAt(seen, message.index)?.type;
				expect(["failed", "crashed", "unanswered"]).toContain(type);
			}
		});
	});

	it("takes scheduling writes only under the current epoch", () => {
		always(({ before, after, outcome, change }) => {
			if (!change || !SCHEDULING.has(change.event.type)) return;
			if (change.epoch === before.epoch) {
				expect(outcome?.result).not.toBe("fenced");
			} else {
				expect(outcome?.result).toBe("fenced");
				expect(after).toBe(before);
			}
		});
	});

	it("only ever raises epoch, version, revision, fence, attempts and the count of entries", () => {
		always((seen) => {
			const { before, after } = seen;
			expect(after.epoch).toBeGreaterThanOrEqual(before.epoch);
			expect(after.version).toBeGreaterThanOrEqual(before.version);
			expect(after.checks).toBeGreaterThanOrEqual(before.checks);
			for (const [message, next] of pairs(seen)) {
				for (const field of [
					"revision",
					"fenced",
					"attempts",
					"entries",
					"version",
				] as const) {
					expect(next[field]).toBeGreaterThanOrEqual(message[field]);
				}
				const { version, entries, ...rest } = next;
				const changed = { ...rest, version: message.version, entries: message.entries };
				if (version === message.version) expect(changed).toEqual(message);
				else expect(version).toBe(message.version + 1);
				expect(entries - message.entries).toBeLessThanOrEqual(1);
			}
		});
	});

	it("keeps a message bound to its store, unless nothing was sent or an operator says so", () => {
		always((seen) => {
			for (const [message, next] of pairs(seen)) {
				if (message.storeId === null || next.storeId === message.storeId) continue;
				expect(next.storeId).toBeNull();
				const event = eventAt(seen, message.index);
				if (event?.type === "refused") expect(next.sends).toBe(0);
				else expect(event).toMatchObject({ type: "retry", rebind: true });
			}
		});
	});

	it("never sends an edited message before its older copies are fenced", () => {
		always((seen) => {
			for (const [message, next] of pairs(seen)) {
				if (next.sends <= message.sends || message.sends === 0 || message.plain) continue;
				expect(message.fenced).toBeGreaterThanOrEqual(message.revision);
				expect(message.fenced).toBeLessThan(FENCED_ALL);
			}
		});
	});

	it("makes a group due with its earliest live message, never before its lease ends", () => {
		always(({ after }) => {
			const times =
				after.checkAt === null
					? after.messages.flatMap(({ nextAt }) => (nextAt === null ? [] : [nextAt]))
					: [after.checkAt];
			const next = due(after);
			if (times.length === 0) {
				expect(next).toBeUndefined();
				return;
			}
			expect(next?.at).toBe(Math.max(Math.min(...times), after.leaseUntil));
			if (after.checkAt !== null) {
				expect(next?.kind).toBe("check");
				return;
			}
			const first = after.messages.filter(({ nextAt }) => nextAt === Math.min(...times));
			const kinds = first.map(({ state }) => (state === "pending" ? "deliver" : "ask"));
			expect(kinds).toContain(next?.kind);
		});
	});

	it("tells each change of state in an entry that names both states", () => {
		always((seen) => {
			const { before, after, entries } = seen;
			if (before.state !== after.state) {
				const own = entries.filter(({ message }) => message === null);
				expect(own[0]?.from).toBe(before.state);
				expect(own.at(-1)?.to).toBe(after.state);
			}
			for (const [message, next] of pairs(seen)) {
				const decided = seen.decision !== undefined;
				if (message.state === next.state || decided || next.entries > 50) continue;
				const own = entries.filter((entry) => entry.message === message.id);
				expect(own).toMatchObject([{ from: message.state, to: next.state }]);
			}
		});
	});

	it("completes a committed group once all that was sent is reported consumed, unless some never was", () => {
		fc.assert(
			fc.property(group, steps, (start, taken) => {
				const end = run(start, taken, () => undefined);
				if (end.state !== "committed") return;
				let current = end;
				for (const { index } of end.messages) {
					const event = { type: "consumed", revision: 0, who: "auth" } as const;
					const change = { id: GROUP_ID, index, event };
					current = applyChange(current, change, T0).group;
				}
				const open = current.messages.filter((message) => !isSettled(message));
				expect(open.every(({ sends }) => sends === 0)).toBe(true);
				if (open.length === 0) expect(current.state).toBe("completed");
			}),
		);
	});
});
