import { describe, expect, it } from "@jest/globals";

import {
	backoff,
	claimed,
	due,
	FENCED_ALL,
	needsFence,
	prepared,
	released,
	TIMELINE_LIMIT,
	woken,
} from "../../protocol/index.ts";
import {
	CONSUMER_STORE,
	dispatchTo,
	FAILURE,
	FATAL,
	GROUP_ID,
	newGroup,
	newMessage,
	PRODUCER_STORE,
	RETRY,
	Steps,
	T0,
} from "../support/groups.ts";

const HOUR = 3_600_000;

const committed = (fields = {}) => new Steps(fields).decide();
const delivering = (fields = {}) => committed(fields).on("sent");
const failed = (fields = {}) => delivering(fields).on("failed", { error: FATAL });
const rolledBack = () => new Steps().decide({ to: "rolledBack" });
const contradicted = (fields = {}) => new Steps(fields).decide({ to: "rolledBack" }).decide();
const inDoubt = (fields = {}) => new Steps(fields).own("checked", { maxChecks: 1 });

describe("prepare", () => {
	it("stores the group prepared, its messages held, and the first check-back due", () => {
		const { group, entries } = prepared(newGroup(), T0);

		expect(group).toMatchObject({
			state: "prepared",
			version: 1,
			epoch: 0,
			checkAt: 1_010_000,
		});
		expect(group.messages[0]).toMatchObject({ id: `${GROUP_ID}.0`, state: "held", sends: 0 });
		expect(due(group)).toEqual({ at: T0 + 10_000, kind: "check" });
		expect(entries).toMatchObject([{ event: "prepare", by: "user@node-user" }]);
	});
});

describe("deciding a group", () => {
	it("commits: held messages are pending, due after their delay", () => {
		const steps = committed({ messages: [newMessage(), newMessage({ delay: 60_000 })] });

		expect(steps.group).toMatchObject({ state: "committed", checkAt: null });
		expect(steps.at(0)).toMatchObject({ state: "pending", nextAt: T0 });
		expect(steps.at(1)).toMatchObject({ state: "pending", nextAt: T0 + 60_000 });
		expect(steps.told).toEqual(["commit: prepared -> committed"]);
	});

	it("rolls back: held messages are discarded, and the idempotency key is free again", () => {
		const steps = new Steps({ idempotencyKey: "order-1" }).decide({ to: "rolledBack" });

		expect(steps.group).toMatchObject({ state: "rolledBack", idempotencyKey: null });
		expect(steps.message).toMatchObject({ state: "discarded", nextAt: null });
		expect(due(steps.group)).toBeUndefined();
	});

	it("R21: a commit that dispatches stores `delivering` and the lease in the same write", () => {
		const steps = new Steps({
			messages: [newMessage(), newMessage({ target: "mail" }), newMessage({ delay: 1_000 })],
		}).decide({ dispatch: dispatchTo("auth") });

		expect(steps.at(0)).toMatchObject({
			state: "delivering",
			sends: 1,
			attempts: 0,
			storeId: CONSUMER_STORE,
			nextAt: T0 + 10_000,
		});
		expect(steps.at(1)).toMatchObject({ state: "pending", sends: 0, storeId: null });
		expect(steps.at(2)).toMatchObject({ state: "pending", nextAt: T0 + 1_000 });
		expect(steps.group).toMatchObject({
			epoch: 1,
			version: 2,
			leaseOwner: "lottor@node-1",
			leaseUntil: T0 + 5_000,
		});
	});

	it("takes no lease when nothing can be sent", () => {
		const steps = new Steps().decide({ dispatch: dispatchTo("mail") });

		expect(steps.group).toMatchObject({ epoch: 0, leaseOwner: null, leaseUntil: 0 });
	});

	it.each([
		["committed", "committed"],
		["rolledBack", "rolledBack"],
	] as const)("is a no-op when it is repeated: %s", (to, state) => {
		const steps = new Steps().decide({ to });
		const before = steps.group;
		for (const by of ["producer", "resolved", "operator"] as const) {
			steps.decide({ to, by, dispatch: dispatchTo("auth") });
			expect(steps.result).toBe("already");
			expect(steps.group).toBe(before);
		}
		expect(before.state).toBe(state);
	});

	it("is a no-op when a commit is repeated after the group has completed", () => {
		const steps = delivering().on("consumed").decide();

		expect(steps.result).toBe("already");
		expect(steps.group.state).toBe("completed");
	});
});

describe("contradictions", () => {
	it("R17: a commit that meets rolledBack puts the group in doubt and holds its messages again", () => {
		const steps = rolledBack();
		const { version } = steps.message;
		steps.wait(500).decide();

		expect(steps.last?.outcome).toMatchObject({ result: "conflict", state: "rolledBack" });
		expect(steps.group).toMatchObject({
			state: "inDoubt",
			conflict: "commit by producer met rolledBack",
			checkAt: T0 + 500,
		});
		expect(steps.message).toMatchObject({ state: "held", version: version + 1, nextAt: null });
		expect(steps.told).toEqual(["conflict: rolledBack -> inDoubt"]);
	});

	it("R17: repeating the contradicting commit changes nothing more", () => {
		const steps = contradicted();
		const before = steps.group;
		steps.decide();

		expect(steps.result).toBe("conflict");
		expect(steps.group).toBe(before);
	});

	it.each(["committed", "completed"] as const)(
		"R17: a rollback that meets %s sets the conflict once and changes nothing else",
		(state) => {
			const steps = delivering();
			if (state === "completed") steps.on("consumed");
			const { messages } = steps.group;
			steps.decide({ to: "rolledBack" });

			expect(steps.last?.outcome).toMatchObject({ result: "conflict", state });
			expect(steps.group).toMatchObject({
				state,
				conflict: `rollback by producer met ${state}`,
			});
			expect(steps.group.messages).toBe(messages);

			const before = steps.group;
			steps.decide({ to: "rolledBack" });
			expect(steps.result).toBe("conflict");
			expect(steps.group).toBe(before);
		},
	);

	it("R17: a conflict stays on the group after it is decided", () => {
		const steps = contradicted().decide({ by: "operator", who: "ann" });

		expect(steps.group.state).toBe("committed");
		expect(steps.group.conflict).not.toBeNull();
	});

	it("R16: a transactional store's answer ends a contradiction by itself", () => {
		expect(contradicted().decide({ by: "resolved" }).group.state).toBe("committed");
		expect(contradicted().decide({ by: "resolved", to: "rolledBack" }).group.state).toBe(
			"rolledBack",
		);
	});

	it("R17: a recorded store's answer does not end a contradiction: an operator does", () => {
		const steps = contradicted({ guarantee: "recorded" }).decide({ by: "resolved" });
		expect(steps.result).toBe("conflict");
		expect(steps.group.state).toBe("inDoubt");

		steps.decide({ by: "operator", to: "rolledBack" });
		expect(steps.group.state).toBe("rolledBack");
	});

	it("R17: a commit that comes after an operator's rollback brings the doubt back", () => {
		const steps = inDoubt().decide({ by: "operator", to: "rolledBack" }).decide();

		expect(steps.group.state).toBe("inDoubt");
		expect(steps.message.state).toBe("held");
	});
});

describe("operators' decisions", () => {
	it.each(["committed", "rolledBack"] as const)(
		"R18: an operator does not decide a group that is not in doubt: %s",
		(to) => {
			const steps = new Steps();
			const before = steps.group;
			steps.decide({ to, by: "operator" });
			expect(steps.result).toBe("conflict");
			expect(steps.group).toBe(before);

			const other = to === "committed" ? "rolledBack" : "committed";
			const decided = new Steps().decide({ to: other });
			const stands = decided.group;
			decided.decide({ to, by: "operator" });
			expect(decided.result).toBe("conflict");
			expect(decided.group).toBe(stands);
		},
	);

	it.each(["committed", "rolledBack"] as const)("R18: an operator ends doubt: %s", (to) => {
		const steps = inDoubt().decide({ to, by: "operator", who: "ann", why: "asked the bank" });

		expect(steps.group.state).toBe(to);
		expect(steps.last?.entries).toMatchObject([
			{ from: "inDoubt", by: "ann", why: "asked the bank", data: { decidedBy: "operator" } },
		]);
	});

	it.each(["producer", "resolved"] as const)(
		"R16: a late but sound answer ends doubt without contradictions: %s",
		(by) => {
			expect(inDoubt().decide({ by }).group.state).toBe("committed");
			expect(inDoubt().decide({ by, to: "rolledBack" }).group.state).toBe("rolledBack");
		},
	);
});

describe("check-back", () => {
	it("R16: only unknown answers count towards maxChecks", () => {
		const steps = new Steps();
		for (const answer of ["running", "none", "running", "none"] as const) {
			steps.own("checked", { answer, maxChecks: 2 });
		}
		expect(steps.group).toMatchObject({ state: "prepared", checks: 4, unknowns: 0 });

		steps.own("checked", { maxChecks: 2 });
		expect(steps.group).toMatchObject({ state: "prepared", unknowns: 1 });
		steps.wait(5).own("checked", { maxChecks: 2 });
		expect(steps.group).toMatchObject({ state: "inDoubt", stateAt: T0 + 5 });
		expect(steps.told).toEqual(["doubt: prepared -> inDoubt"]);
	});

	it("R16: silence leads to doubt by age", () => {
		const steps = new Steps().wait(HOUR - 1).own("checked", { answer: "none" });
		expect(steps.group).toMatchObject({ state: "prepared", waiting: "nobody answered" });

		steps.wait(1).own("checked", { answer: "none" });
		expect(steps.group.state).toBe("inDoubt");
	});

	it.each([
		["transactional", "prepared"],
		["recorded", "inDoubt"],
		["memory", "inDoubt"],
	] as const)("R10: work that runs for an hour on a %s store: %s", (guarantee, state) => {
		const steps = new Steps({ guarantee }).wait(HOUR).own("checked", { answer: "running" });

		expect(steps.group.state).toBe(state);
	});

	it("R16: a group in doubt is still checked", () => {
		const steps = inDoubt().own("checked", { delay: 300_000 });

		expect(steps.group).toMatchObject({ state: "inDoubt", checkAt: T0 + 300_000 });
		expect(due(steps.group)).toEqual({ at: T0 + 300_000, kind: "check" });
	});

	it("ends its lease and says so only when there is news", () => {
		const steps = new Steps().set(claimed(new Steps().group, "k1", 5_000, T0));
		steps.own("checked", { answer: "none", why: "no instance" });
		expect(steps.group).toMatchObject({ leaseOwner: null, leaseUntil: 0 });
		expect(steps.told).toHaveLength(1);

		expect(steps.own("checked", { answer: "none", why: "no instance" }).told).toEqual([]);
		expect(steps.own("checked", { answer: "running" }).told).toHaveLength(1);
		expect(steps.group.waiting).toBeNull();
	});

	it("tells of doubt however many checks went before", () => {
		const steps = new Steps();
		for (let i = 0; i < TIMELINE_LIMIT; i++) steps.own("checked", { answer: "running" });
		steps.own("checked", { maxChecks: 1 });

		expect(steps.told).toEqual(["doubt: prepared -> inDoubt"]);
	});

	it("is possible only while the group is undecided", () => {
		for (const steps of [committed(), rolledBack(), delivering().on("consumed")]) {
			const before = steps.group;
			expect(steps.own("checked").result).toBe("conflict");
			expect(steps.own("recheck").result).toBe("conflict");
			expect(steps.group).toBe(before);
		}
	});

	it("is made due now by an operator, whom a check under way can't put off again", () => {
		const steps = new Steps();
		steps.set(claimed(steps.group, "k1", 5_000, T0));
		const { epoch } = steps.group;
		steps.wait(100).own("recheck", { why: "it is back" });
		expect(due(steps.group)).toEqual({ at: T0 + 100, kind: "check" });

		const event = { type: "checked", answer: "none", delay: HOUR, maxChecks: 15 } as const;
		steps.change({ id: GROUP_ID, epoch, event: { ...event, doubtAfter: HOUR } });
		expect(steps.result).toBe("fenced");
		expect(due(steps.group)).toEqual({ at: T0 + 100, kind: "check" });
	});
});

describe("claims", () => {
	it("R20: a claim raises epoch and version and leases the group", () => {
		const { group } = committed();
		const taken = claimed(group, "k1", 5_000, T0);

		expect(taken).toEqual({
			...group,
			epoch: group.epoch + 1,
			version: group.version + 1,
			leaseOwner: "k1",
			leaseUntil: T0 + 5_000,
		});
	});

	it("R20: scheduling writes of a former owner are fenced", () => {
		const steps = delivering();
		const { epoch } = steps.group;
		steps.set(claimed(steps.group, "k2", 5_000, T0));
		const before = steps.group;
		const writes = [
			{ type: "sent", storeId: CONSUMER_STORE, instance: null, ackTimeout: 1 },
			{ type: "refused", delay: 1, why: "full" },
			{ type: "rescheduled", delay: 1, parked: false, why: "later" },
			{ type: "asked", answer: "running", delay: 1 },
			{ type: "unseen", vanished: true },
			{ type: "crashed", error: FATAL },
			{ type: "unanswered", error: FAILURE, policy: RETRY, fraction: 0 },
		] as const;
		for (const event of writes) {
			steps.change({ id: GROUP_ID, epoch, index: 0, event });
			expect(steps.result).toBe("fenced");
			steps.change({ id: GROUP_ID, index: 0, event });
			expect(steps.result).toBe("fenced");
		}
		expect(steps.group).toBe(before);
	});

	it("R20: facts and operators' actions need no epoch", () => {
		const steps = delivering();
		steps.set(claimed(steps.group, "k2", 5_000, T0));
		const { epoch } = steps.group;
		const who = "auth";
		steps.change({
			id: GROUP_ID,
			epoch: epoch - 1,
			index: 0,
			event: {
				type: "failed",
				attempt: 1,
				revision: 0,
				error: FATAL,
				policy: RETRY,
				fraction: 0,
				who,
			},
		});
		expect(steps.message.state).toBe("failed");
		steps.change({ id: GROUP_ID, index: 0, event: { type: "retry", who: "ann" } });
		expect(steps.message.state).toBe("pending");
		steps.change({ id: GROUP_ID, index: 0, event: { type: "consumed", revision: 0, who } });
		expect(steps.message.state).toBe("consumed");
	});

	it("R21: a lease ends early by release, and only by that of its own epoch", () => {
		const group = claimed(committed().group, "k1", 5_000, T0);

		expect(released(group, group.epoch - 1).outcome.result).toBe("fenced");
		const { outcome, group: free } = released(group, group.epoch);
		expect(outcome.result).toBe("done");
		expect(free).toMatchObject({ leaseOwner: null, leaseUntil: 0, version: group.version + 1 });
		expect(released(free, free.epoch)).toMatchObject({ outcome: { result: "already" } });
	});

	it("R21: a group is due with its earliest live message, but not before its lease ends", () => {
		const messages = [newMessage({ delay: 9_000 }), newMessage({ delay: 3_000 }), newMessage()];
		const steps = committed({ messages }).on("sent", {}, 2).on("consumed", {}, 2);
		expect(due(steps.group)).toEqual({ at: T0 + 3_000, kind: "deliver" });

		const leased = claimed(steps.group, "k1", 5_000, T0);
		expect(due(leased)).toEqual({ at: T0 + 5_000, kind: "deliver" });

		steps.on("sent", { ackTimeout: 1_000 }, 0);
		expect(due(steps.group)).toEqual({ at: T0 + 1_000, kind: "ask" });
	});

	it("is not due when all that is left waits for an operator", () => {
		const steps = failed();
		expect(due(steps.group)).toBeUndefined();
		expect(due(claimed(steps.group, "k1", 5_000, T0))).toBeUndefined();
	});

	it("R21: a lease ends with the write that leaves nothing due, not before", () => {
		const steps = committed({ messages: [newMessage(), newMessage()] });
		steps.set(claimed(steps.group, "k1", 5_000, T0)).on("sent");
		expect(steps.group.leaseUntil).toBe(T0 + 5_000);

		steps.on("sent", {}, 1);
		expect(steps.group).toMatchObject({ leaseOwner: null, leaseUntil: 0 });
	});

	it("R21: a report that leaves nothing due ends the lease; one that counts for nothing doesn't", () => {
		const steps = new Steps().decide({ dispatch: dispatchTo("auth") });
		const lease = steps.group.leaseUntil;
		steps.on("failed", { attempt: 7 });
		expect(steps.result).toBe("stale");
		expect(steps.group.leaseUntil).toBe(lease);

		steps.on("failed");
		expect(steps.group).toMatchObject({ leaseOwner: null, leaseUntil: 0 });
	});
});

describe("waking", () => {
	const parked = () =>
		committed({ messages: [newMessage(), newMessage({ target: "mail" })] })
			.on("rescheduled", { delay: HOUR })
			.on("rescheduled", { delay: HOUR }, 1);

	it("R23: makes due what is parked for a target, and is a no-op when it is repeated", () => {
		const { group } = parked();
		const awake = woken(group, { target: "auth" }, T0 + 9);

		expect(awake.version).toBe(group.version + 1);
		expect(awake.messages[0]).toMatchObject({
			version: (group.messages[0]?.version ?? 0) + 1,
			nextAt: T0 + 9,
			parked: false,
			waiting: null,
		});
		expect(awake.messages[1]).toBe(group.messages[1]);
		expect(woken(awake, { target: "auth" }, T0 + 10)).toBe(awake);
	});

	it("leaves alone what waits for its own time", () => {
		const { group } = committed({ messages: [newMessage({ delay: HOUR })] });
		expect(woken(group, { target: "auth" }, T0)).toBe(group);
	});

	it("R16: makes due the check of a group that waits for its producer's store", () => {
		const steps = new Steps().own("checked", { answer: "none", delay: HOUR });
		const what = { storeId: PRODUCER_STORE };
		const awake = woken(steps.group, what, T0 + 9);

		expect(awake).toMatchObject({ checkAt: T0 + 9, waiting: null });
		expect(woken(awake, what, T0 + 10)).toBe(awake);
		expect(woken(steps.group, { storeId: CONSUMER_STORE }, T0)).toBe(steps.group);
	});

	it("R16: makes due the check of a group in doubt, once", () => {
		const { group } = inDoubt();
		const what = { storeId: PRODUCER_STORE };
		const awake = woken(group, what, T0 + 9);

		expect(awake).toMatchObject({ state: "inDoubt", checkAt: T0 + 9 });
		expect(woken(awake, what, T0 + 10)).toBe(awake);
	});

	it("leaves alone a check that waits for its own time, and decided groups", () => {
		for (const { group } of [new Steps(), committed(), rolledBack()]) {
			expect(woken(group, { storeId: PRODUCER_STORE }, T0)).toBe(group);
		}
	});
});

describe("sending", () => {
	it("R21: stores `delivering`, and the time to the first ask", () => {
		const steps = committed().on("sent");

		expect(steps.message).toMatchObject({
			state: "delivering",
			sends: 1,
			attempts: 0,
			nextAt: T0 + 10_000,
			instance: { nodeID: "node-auth" },
		});
		expect(steps.told).toEqual(["sent: pending -> delivering"]);
	});

	it("is possible only from pending, in a committed group", () => {
		for (const steps of [new Steps(), rolledBack(), delivering(), failed()]) {
			const before = steps.group;
			expect(steps.on("sent").result).toBe("conflict");
			expect(steps.group).toBe(before);
		}
	});

	it("R3: binds the message to a store with its first send; only an operator unbinds it", () => {
		const steps = delivering().on("unseen");
		expect(steps.message.storeId).toBe(CONSUMER_STORE);
		expect(steps.on("sent", { storeId: "c".repeat(32) }).result).toBe("conflict");
		expect(steps.message.state).toBe("pending");

		steps.on("retry", { rebind: true }).on("sent", { storeId: "c".repeat(32) });
		expect(steps.message).toMatchObject({ state: "delivering", storeId: "c".repeat(32) });
	});

	it("R22: a send that was certainly refused uses no attempt and binds to no store", () => {
		const steps = delivering().on("refused", { delay: 700 });

		expect(steps.message).toMatchObject({
			state: "pending",
			sends: 0,
			attempts: 0,
			storeId: null,
			nextAt: T0 + 700,
			waiting: "queue is full",
		});
	});

	it("R22: a refused second send leaves the first one's binding", () => {
		const steps = delivering().on("unseen").on("sent").on("refused");

		expect(steps.message).toMatchObject({ sends: 1, storeId: CONSUMER_STORE });
	});

	it("waits where it is, and says why once", () => {
		const steps = committed().on("rescheduled", { delay: 700 });
		expect(steps.message).toMatchObject({ state: "pending", parked: true, nextAt: T0 + 700 });
		expect(steps.told).toEqual(["wait: pending -> pending"]);
		expect(steps.wait(1).on("rescheduled", { delay: 700 }).told).toEqual([]);
		expect(steps.message).toMatchObject({ nextAt: T0 + 701, stateAt: T0 });

		for (const idle of [new Steps(), failed(), delivering().on("consumed")]) {
			expect(idle.on("rescheduled").result).toBe("conflict");
		}
	});
});

describe("asking", () => {
	it("R23: running and silence ask again later, told once a send", () => {
		const steps = delivering().on("asked", { answer: "none", delay: 700 });
		expect(steps.message).toMatchObject({ state: "delivering", asks: 1, nextAt: T0 + 700 });
		expect(steps.told).toEqual(["asked: delivering -> delivering"]);
		expect(steps.on("asked").told).toEqual([]);
		expect(steps.message).toMatchObject({ asks: 2, attempts: 0 });
	});

	it("R24: an unseen message is due to be sent again, without using an attempt", () => {
		const steps = delivering().on("asked").wait(60_000).on("unseen");

		expect(steps.message).toMatchObject({
			state: "pending",
			nextAt: T0 + 60_000,
			asks: 0,
			attempts: 0,
			vanished: 0,
		});
	});

	it("R22: no number of sends, asks or missing reports makes a message failed", () => {
		const steps = committed();
		for (let i = 0; i < 100; i++) {
			steps.on("sent").on("asked").on("asked", { answer: "none" }).on("unseen");
			expect(steps.on("unanswered").result).toBe("conflict");
		}
		expect(steps.message).toMatchObject({ state: "pending", sends: 100, attempts: 0 });
	});

	it("R23: sends whose owner vanished are counted; a crash is fenced and failed", () => {
		const steps = committed();
		for (let i = 1; i <= 5; i++) {
			steps.on("sent").on("unseen", { vanished: true });
			expect(steps.message.vanished).toBe(i);
		}
		steps.on("sent").on("crashed");

		expect(steps.message).toMatchObject({
			state: "failed",
			nextAt: null,
			attempts: 0,
			fenced: 1,
			error: { code: "LOTTOR_CONSUMER_CRASHED" },
		});
	});

	it("R23: a retry after a crash is sent above the fence", () => {
		const steps = delivering().on("crashed").on("retry");

		expect(steps.message).toMatchObject({ state: "pending", revision: 1, vanished: 0 });
		expect(needsFence(steps.message)).toBe(false);
		expect(steps.on("sent").result).toBe("done");
	});

	it("R23: to whom a message went is kept while it waits, and forgotten by its next send", () => {
		const instance = { nodeID: "c1", instanceID: "1" };
		const steps = committed().on("sent", { instance: null }).on("rescheduled", { instance });
		expect(steps.message.instance).toEqual(instance);
		expect(steps.on("rescheduled").message.instance).toEqual(instance);
		steps.on("unseen", { vanished: true }).on("sent", { instance: null });
		expect(steps.message).toMatchObject({ instance: null, vanished: 1 });
	});

	it("R23: a copy that runs again counts whom it has killed, and fails once they are too many", () => {
		const at = (nodeID: string) => ({ nodeID, instanceID: "1" });
		const steps = committed().on("sent", { instance: null });
		steps.on("running", { instance: at("c1") });
		expect(steps.message).toMatchObject({ instance: at("c1"), vanished: 0 });
		expect(steps.on("running", { instance: at("c1") }).result).toBe("already");
		// Whoever has it lives: it has only lost the broker.
		const living = [at("c1")];
		expect(steps.on("running", { instance: at("c2"), living }).result).toBe("conflict");
		const before = steps.message.nextAt;
		steps.on("running", { instance: at("c2"), living: [at("c2")] });
		expect(steps.message).toMatchObject({ instance: at("c2"), vanished: 1, nextAt: before });
		steps.wait(5).on("running", { instance: at("c3") });
		expect(steps.message).toMatchObject({ vanished: 2, nextAt: steps.now });
		expect(steps.on("running", { instance: at("c4") }).result).toBe("stale");
		// One that was taken for lost is under way after all.
		const lost = delivering().on("unseen").wait(5).on("running");
		expect(lost.message).toMatchObject({
			state: "delivering",
			sends: 1,
			nextAt: lost.now + 10_000,
		});
		// Another attempt's copy is another matter, and so is one of a message that is settled.
		expect(delivering().on("running", { attempt: 2 }).result).toBe("already");
		expect(delivering().on("consumed").on("running").result).toBe("already");
		expect(committed().on("running").result).toBe("conflict");
	});

	it("R34: an expired copy's report sends the message again, if it is the current one's", () => {
		const steps = delivering().wait(50).on("expired");
		expect(steps.message).toMatchObject({ state: "pending", nextAt: T0 + 50, attempts: 0 });
		const before = steps.group;
		expect(steps.on("expired").result).toBe("already");
		expect(steps.on("expired", { attempt: 2 }).result).toBe("stale");
		expect(steps.group).toBe(before);
		expect(committed().on("expired").result).toBe("conflict");
	});
});

describe("plain targets", () => {
	const plain = (fields = {}) =>
		committed({ messages: [newMessage({ plain: "action", ...fields })] }).on("sent", {
			storeId: null,
		});

	it("R25: each unanswered send counts as an attempt and backs off", () => {
		const steps = plain().on("unanswered");
		expect(steps.message).toMatchObject({ state: "pending", attempts: 1, nextAt: T0 + 1_000 });

		steps.on("sent", { storeId: null }).on("unanswered");
		expect(steps.message).toMatchObject({ attempts: 2, nextAt: T0 + 2_000 });

		steps.on("sent", { storeId: null }).on("unanswered");
		expect(steps.message).toMatchObject({ state: "failed", attempts: 3, nextAt: null });
	});

	it("R25: can't be asked", () => {
		const steps = plain();
		const before = steps.group;
		for (const type of ["asked", "unseen", "crashed"] as const) {
			expect(steps.on(type).result).toBe("conflict");
		}
		expect(steps.group).toBe(before);
		expect(steps.on("consumed").group.state).toBe("completed");
	});

	it("R25: are edited and discarded without a fence, having no inbox", () => {
		const edited = plain().on("failed", { error: FATAL }).on("edit").on("retry");
		expect(needsFence(edited.message)).toBe(false);
		expect(edited.on("sent", { storeId: null }).result).toBe("done");

		const steps = plain().on("discard", { fenced: false });
		expect(steps.message).toMatchObject({ state: "discarded", nextAt: null, waiting: null });
		expect(due(steps.group)).toBeUndefined();
	});
});

describe("failures", () => {
	it("R22: a failed report raises attempts and backs off until the budget is used up", () => {
		const steps = delivering().on("failed");
		expect(steps.message).toMatchObject({
			state: "pending",
			attempts: 1,
			nextAt: T0 + 1_000,
			error: FAILURE,
		});
		expect(steps.told).toEqual(["attempt failed: delivering -> pending"]);

		steps.on("sent").on("failed", { attempt: 2 });
		expect(steps.message).toMatchObject({ state: "pending", attempts: 2, nextAt: T0 + 2_000 });

		steps.on("sent").on("failed", { attempt: 3 });
		expect(steps.message).toMatchObject({ state: "failed", attempts: 3, nextAt: null });
		expect(steps.told).toEqual(["failed: delivering -> failed"]);
		expect(steps.group.state).toBe("committed");
	});

	it("fails at once when the error is not retryable", () => {
		expect(failed().message).toMatchObject({ state: "failed", attempts: 1 });
	});

	it("R22: the message's maxAttempts beats the policy", () => {
		const once = delivering({ messages: [newMessage({ maxAttempts: 1 })] }).on("failed");
		expect(once.message.state).toBe("failed");

		const steps = committed({ messages: [newMessage({ maxAttempts: 5 })] });
		for (let attempt = 1; attempt <= 5; attempt++) {
			expect(steps.message.state).toBe("pending");
			steps.on("sent").on("failed", { attempt });
		}
		expect(steps.message.state).toBe("failed");
	});

	it("R22: attempt never restarts: an operator's retry adds budget and restarts the backoff", () => {
		const steps = failed().wait(100).on("retry");
		expect(steps.message).toMatchObject({
			state: "pending",
			attempts: 1,
			budgetFrom: 1,
			nextAt: T0 + 100,
		});

		steps.on("sent").on("failed", { attempt: 2 });
		expect(steps.message).toMatchObject({ state: "pending", nextAt: T0 + 1_100 });
		steps.on("sent").on("failed", { attempt: 3 }).on("sent").on("failed", { attempt: 4 });
		expect(steps.message).toMatchObject({ state: "failed", attempts: 4 });
	});

	it.each([
		[1, 0.5, 1_000],
		[2, 0.5, 2_000],
		[3, 0.5, 4_000],
		[9, 0.5, 256_000],
		[10, 0.5, 300_000],
		[2_000, 0.5, 300_000],
		[1, 0, 900],
		[1, 1, 1_100],
		[10, 1, 300_000],
	])("backs off after failure %d with jitter %d by %d ms", (attempt, fraction, ms) => {
		expect(backoff(RETRY, attempt, fraction)).toBe(ms);
	});

	it("backs off by a number of milliseconds even where delay is nothing and growth is endless", () => {
		expect(backoff({ ...RETRY, delay: 0 }, 5_000, 0.5)).toBe(0);
	});
});

describe("late reports", () => {
	it.each([
		["pending", () => delivering().on("unseen")],
		["delivering", () => delivering()],
		["failed", () => failed()],
	] as const)("R26: consumed is legal from %s", (state, make) => {
		const steps = make();
		expect(steps.message.state).toBe(state);
		steps.on("consumed");

		expect(steps.message).toMatchObject({
			state: "consumed",
			consumedRevision: 0,
			consumedAfterDiscard: false,
			error: null,
			nextAt: null,
		});
		expect(steps.group.state).toBe("completed");
	});

	it("R26: consumed is legal from discarded, and flagged", () => {
		const steps = delivering().on("discard");
		expect(steps.group.state).toBe("completed");
		steps.on("consumed");

		expect(steps.message).toMatchObject({ state: "consumed", consumedAfterDiscard: true });
		expect(steps.last?.entries).toMatchObject([{ why: "consumed after discard" }]);
		expect(steps.group.state).toBe("completed");
	});

	it("R26: consumed absorbs whatever comes after it", () => {
		const steps = delivering().on("consumed");
		const { message } = steps;
		expect(steps.on("consumed", { revision: 3 }).result).toBe("already");
		expect(steps.on("fenced").result).toBe("already");
		expect(steps.on("failed").result).toBe("stale");
		for (const type of ["retry", "edit", "discard", "sent", "unseen", "crashed"] as const) {
			expect(steps.on(type).result).toBe("conflict");
		}
		expect(steps.message).toEqual({ ...message, entries: message.entries + 1 });
	});

	it("R26: a report for a message that was never sent is refused", () => {
		for (const steps of [new Steps(), rolledBack(), committed()]) {
			const before = steps.group;
			expect(steps.on("consumed").result).toBe("conflict");
			expect(steps.on("failed").result).toBe("conflict");
			expect(steps.group).toBe(before);
		}
	});

	it.each([
		["of an older attempt", 1, 0],
		["of an attempt that has not begun", 3, 0],
		["of another revision", 2, 1],
	])("R26: a failure %s is a timeline entry and no more", (_, attempt, revision) => {
		const steps = delivering().on("failed").on("sent").on("failed", { attempt: 2 }).on("sent");
		const older = attempt === 1 ? steps : delivering().on("failed").on("sent");
		const { message, group } = older;
		older.on("failed", { attempt, revision });

		expect(older.result).toBe("stale");
		expect(older.message).toEqual({ ...message, entries: message.entries + 1 });
		expect(older.group).toEqual({
			...group,
			version: group.version + 1,
			messages: [older.message],
		});
		expect(older.told).toEqual(["late failure: delivering -> delivering"]);
	});

	it("R26: a failure outside delivering is a timeline entry and no more", () => {
		const steps = delivering().on("unseen");
		steps.on("failed");

		expect(steps.result).toBe("stale");
		expect(steps.message).toMatchObject({ state: "pending", attempts: 0 });
	});

	it("R26: a failure told twice counts once", () => {
		const steps = delivering().on("failed");
		const before = steps.group;
		expect(steps.on("failed").result).toBe("already");
		expect(steps.group).toBe(before);

		steps.on("consumed");
		const consumed = steps.group;
		expect(steps.on("failed").result).toBe("already");
		expect(steps.group).toBe(consumed);
	});

	it("completes the group with its last message, in the same write", () => {
		const steps = committed({ messages: [newMessage(), newMessage(), newMessage()] });
		for (const index of [0, 1, 2]) steps.on("sent", {}, index);
		steps.on("consumed", {}, 2).on("failed", { error: FATAL }, 1).wait(5).on("consumed", {}, 0);
		expect(steps.group.state).toBe("committed");
		const { version } = steps.group;
		steps.wait(5).on("discard", {}, 1);

		expect(steps.group).toMatchObject({
			state: "completed",
			version: version + 1,
			stateAt: T0 + 10,
			leaseUntil: 0,
		});
		expect(steps.told).toEqual([
			"discard: failed -> discarded",
			"complete: committed -> completed",
		]);
	});

	it("R30: retention counts from the last transition, not from a late report", () => {
		const steps = delivering().on("discard").wait(HOUR).on("consumed");

		expect(steps.group.stateAt).toBe(T0);
		expect(steps.message.stateAt).toBe(T0 + HOUR);
	});
});

describe("operators' actions", () => {
	it("R27: carry the version that the operator saw", () => {
		const steps = failed();
		const { version } = steps.message;
		const before = steps.group;
		for (const type of ["retry", "edit", "discard"] as const) {
			expect(steps.on(type, { version: version - 1 }).result).toBe("conflict");
		}
		expect(steps.group).toBe(before);
		expect(steps.on("edit", { version }).result).toBe("done");
		expect(steps.on("retry", { version }).result).toBe("conflict");
		expect(steps.on("retry", { version: version + 1 }).result).toBe("done");
	});

	it("R27: are not refused because of a report that counted for nothing", () => {
		const steps = failed().on("retry").on("sent").on("failed", { attempt: 2, error: FATAL });
		const { version } = steps.message;
		expect(steps.on("failed").result).toBe("stale");

		expect(steps.on("retry", { version }).result).toBe("done");
	});

	it("R27: edit only in failed, raising the revision", () => {
		for (const steps of [new Steps(), committed(), delivering()]) {
			expect(steps.on("edit").result).toBe("conflict");
		}
		const steps = failed().on("edit");
		expect(steps.message).toMatchObject({ state: "failed", revision: 1, bytes: 16 });
		expect(steps.on("edit").message.revision).toBe(2);
	});

	it("R27: an edited message is sent only once older copies are fenced", () => {
		const steps = failed().on("edit").on("retry");
		expect(needsFence(steps.message)).toBe(true);
		expect(steps.on("sent").result).toBe("conflict");

		steps.on("fenced", { minRevision: 1 });
		expect(needsFence(steps.message)).toBe(false);
		expect(steps.on("sent").result).toBe("done");
		expect(steps.on("fenced", { minRevision: 1 }).result).toBe("already");
	});

	it("R27: a fence that finds a consumed row makes the message consumed with that revision", () => {
		const steps = failed().on("edit").on("retry").on("consumed", { revision: 0 });

		expect(steps.message).toMatchObject({
			state: "consumed",
			revision: 1,
			consumedRevision: 0,
		});
	});

	it.each([
		["failed", () => failed()],
		["pending", () => delivering().on("unseen")],
		["delivering", () => delivering()],
	] as const)("R27: discard is legal from %s, and repeated is a no-op", (_, make) => {
		const steps = make().on("discard", { why: "obsolete" });
		expect(steps.message).toMatchObject({
			state: "discarded",
			fenced: FENCED_ALL,
			nextAt: null,
		});
		expect(steps.group.state).toBe("completed");

		const before = steps.group;
		expect(steps.on("discard").result).toBe("already");
		expect(steps.group).toBe(before);
	});

	it("R27: a discard whose copies can't be fenced now says so, and stays due until they are", () => {
		const steps = delivering().wait(9).on("discard", { fenced: false });
		expect(steps.message).toMatchObject({ state: "discarded", waiting: "not fenced yet" });
		expect(due(steps.group)).toEqual({ at: T0 + 9, kind: "ask" });

		steps.on("rescheduled", { delay: 700 });
		expect(due(steps.group)?.at).toBe(T0 + 709);
		steps.set(woken(steps.group, { target: "auth" }, T0 + 10));
		expect(due(steps.group)?.at).toBe(T0 + 10);

		steps.on("fenced", { minRevision: FENCED_ALL });
		expect(steps.message).toMatchObject({ state: "discarded", waiting: null, nextAt: null });
		expect(due(steps.group)).toBeUndefined();
	});

	it("R27: what was never sent needs no fence to be discarded", () => {
		const steps = committed().on("discard", { fenced: false });

		expect(steps.message).toMatchObject({ state: "discarded", nextAt: null, waiting: null });
	});

	it("R27: a message whose inbox refuses every copy can only be discarded", () => {
		const steps = failed().on("fenced", { minRevision: FENCED_ALL });
		expect(steps.on("retry").result).toBe("conflict");
		expect(steps.on("edit").result).toBe("conflict");
		expect(steps.on("discard", { fenced: false }).message).toMatchObject({ nextAt: null });

		const pending = delivering().on("unseen").on("fenced", { minRevision: FENCED_ALL });
		expect(pending.on("sent").result).toBe("conflict");
	});

	it("retry makes a waiting message due now, and is a no-op when it is repeated", () => {
		const steps = delivering().on("failed").wait(100);
		const { stateAt } = steps.message;
		steps.on("retry");
		expect(steps.message).toMatchObject({ nextAt: T0 + 100, budgetFrom: 1, stateAt });

		const before = steps.group;
		expect(steps.wait(5).on("retry").result).toBe("already");
		expect(steps.group).toBe(before);
	});

	it("retry is not possible while the message is under way or settled", () => {
		const all = [new Steps(), rolledBack(), delivering(), delivering().on("discard")];
		for (const steps of all) expect(steps.on("retry").result).toBe("conflict");
	});

	it("are told however long the message's history is; all else is only counted", () => {
		const steps = delivering();
		for (let i = 0; i < TIMELINE_LIMIT; i++) steps.on("failed", { attempt: 9 });
		expect(steps.told).toEqual([]);
		expect(steps.message.entries).toBe(TIMELINE_LIMIT + 1);
		expect(steps.on("discard").told).toContain("discard: delivering -> discarded");
	});
});

it("refuses an event for a message that the group does not have", () => {
	const steps = committed();
	const before = steps.group;
	expect(steps.on("consumed", {}, 1).result).toBe("conflict");
	expect(steps.on("consumed", {}, -1).result).toBe("conflict");
	expect(steps.group).toBe(before);
});
