import type { ConsumeRequest } from "../../adapters/participant-store/contract.ts";
import {
	consumedRow,
	failedRow,
	fencedRow,
	type InboxRow,
	inboxState,
	refusal,
} from "../../adapters/participant-store/rules.ts";
import {
	applyChange,
	claimed,
	type Decision,
	decide,
	due,
	type Failure,
	type GroupEvent,
	type GroupRecord,
	type MessageEvent,
	prepared,
	type RetryTimes,
	type TransitionResult,
} from "../../protocol/index.ts";

/** All that happens, happens now: the model lets every timer fire at any time. */
const NOW = 1;
const OWNER = { nodeID: "node", instanceID: "instance" };
export const FAILURE: Failure = { code: "E", message: "the handler failed", retryable: true };
/** What a consumer reports of a copy below a fence. */
export const FENCED: Failure = { code: "LOTTOR_FENCED", message: "fenced", retryable: false };

/** What came of a transition: the number of the record that stands afterwards. */
export interface Result {
	readonly result: TransitionResult["result"];
	readonly group: number;
	/** The claims before this one are stale. */
	readonly newEpoch: boolean;
}

/** Numbers of the calls on one record: decisions first. */
const CLAIM = 32;
const EVENTS = 33;
const CALLS = 1024;

export type Event = MessageEvent | GroupEvent;

/** Objects by number: equal ones have the same. 0 stands for none. */
class Interned<T> {
	readonly #numbers = new Map<string, number>();
	readonly #values: (T | undefined)[] = [undefined];

	number(value: T | undefined): number {
		if (value === undefined) return 0;
		const key = JSON.stringify(value);
		let number = this.#numbers.get(key);
		if (number === undefined) {
			number = this.#values.length;
			this.#numbers.set(key, number);
			this.#values.push(value);
		}
		return number;
	}

	get(number: number): T | undefined {
		return this.#values[number];
	}

	/** @returns the value, which must be there */
	take(number: number): T {
		const value = this.#values[number];
		if (value === undefined) throw new Error(`nothing has the number ${number}`);
		return value;
	}
}

/**
 * The coordinator's records as the product's own state machine makes them. What only numbers,
 * times or tells is set to one value: versions, epochs (a claim is compared with its own record
 * only), dates, counters of backoff. Each call of the state machine is made once for each record
 * and then remembered.
 */
export class Groups {
	readonly #groups = new Interned<GroupRecord>();
	readonly #calls = new Map<number, Result>();
	readonly #events: Event[] = [];
	readonly #swapped: number[] = [];
	readonly #policy: RetryTimes;
	readonly #messages: number;
	/** Seeds the bug that a decision forgets to look at what stands. */
	readonly decidesTwice: boolean;

	constructor(messages: number, attempts: number, decidesTwice: boolean) {
		this.#messages = messages;
		this.#policy = { retries: attempts - 1, delay: 1, factor: 1, maxDelay: 1 };
		this.decidesTwice = decidesTwice;
	}

	get(number: number): GroupRecord | undefined {
		return this.#groups.get(number);
	}

	insert(): number {
		const message = {
			target: "target",
			type: "type",
			content: "{}",
			bytes: 2,
			delay: 0,
			maxAttempts: null,
			orderingKey: null,
			plain: false as const,
		};
		const { group } = prepared(
			{
				id: "group",
				source: "source",
				storeId: "source-store",
				guarantee: "transactional",
				owner: OWNER,
				hash: "",
				idempotencyKey: null,
				checkAfter: 0,
				context: "{}",
				messages: Array.from({ length: this.#messages }, () => message),
			},
			NOW,
		);
		return this.#groups.number(plain(group));
	}

	/** @param targets bits of the messages that are sent with the commit itself */
	decide(
		number: number,
		to: Decision["to"],
		by: Decision["by"],
		targets: number,
		coordinator: string,
	): Result {
		const what =
			(to === "committed" ? 1 : 0) | (by === "producer" ? 2 : by === "resolved" ? 4 : 6);
		return this.#remember(number, (what << 2) | targets, () => {
			const found = this.#groups.take(number);
			const group: GroupRecord = this.decidesTwice ? undecided(found) : found;
			const ready = new Map([["target", { storeId: "target-store" }]]);
			const named: GroupRecord = {
				...group,
				// A target that is not ready stays pending: told by its name alone.
				messages: group.messages.map((message, index) => ({
					...message,
					target: (targets >> index) & 1 ? "target" : "elsewhere",
				})),
			};
			const dispatch = { owner: coordinator, lease: 1, ackTimeout: 1, ready };
			const who = by;
			const decision = {
				id: "group",
				to,
				by,
				who,
				...(to === "committed" ? { dispatch } : {}),
			};
			return this.#result(named, decide(named, decision, NOW));
		});
	}

	claim(number: number, coordinator: string): Result {
		return this.#remember(number, CLAIM, () => {
			const group = this.#groups.take(number);
			const next = claimed(group, coordinator, 1, NOW);
			return {
				result: "done",
				group: this.#groups.number(plain(next)),
				newEpoch: next.epoch !== group.epoch,
			};
		});
	}

	/** Registers an event. @returns the number to {@link apply} it by */
	event(event: Event): number {
		return this.#events.push(event) - 1;
	}

	/**
	 * @param index the message; undefined for the group itself
	 * @param event as {@link event} numbered it
	 * @param fresh whether the claim that it belongs to is the last one
	 */
	apply(number: number, index: number | undefined, event: number, fresh: boolean): Result {
		const call = EVENTS + ((event << 3) | ((index ?? 2) << 1) | (fresh ? 1 : 0));
		return this.#remember(number, call, () => {
			const happened = this.#events[event];
			const group = this.#groups.take(number);
			const epoch = fresh ? group.epoch : group.epoch - 1;
			const change =
				index === undefined
					? { id: "group", epoch, event: happened as GroupEvent }
					: { id: "group", epoch, index, event: happened as MessageEvent };
			return this.#result(group, applyChange(group, change, NOW));
		});
	}

	failed(attempt: number, revision: number, error: Failure): MessageEvent {
		const policy = this.#policy;
		return { type: "failed", attempt, revision, error, policy, fraction: 0, who: "consumer" };
	}

	/** @returns the record with its messages in the other order */
	swapped(number: number): number {
		if (number === 0) return 0;
		const known = this.#swapped[number];
		if (known !== undefined) return known;
		const group = this.#groups.take(number);
		const messages = group.messages
			.toReversed()
			.map((message, index) => ({ ...message, index, id: `group.${index}` }));
		const other = this.#groups.number({ ...group, messages });
		this.#swapped[number] = other;
		this.#swapped[other] = number;
		return other;
	}

	#remember(number: number, what: number, call: () => Result): Result {
		return remember(this.#calls, number * CALLS + what, call);
	}

	#result(before: GroupRecord, after: ReturnType<typeof decide>): Result {
		const { group } = after;
		if (
			(group.state === "completed" || group.state === "rolledBack") &&
			(group.leaseUntil !== 0 || due(group)?.kind === "deliver")
		)
			throw new Error(`a ${group.state} group is leased or still to be delivered`);
		return {
			result: after.outcome.result,
			group: this.#groups.number(plain(group)),
			newEpoch: group.epoch !== before.epoch,
		};
	}
}

/** What a decision that does not look would take the group for. */
function undecided(group: GroupRecord): GroupRecord {
	return {
		...group,
		state: "prepared",
		messages: group.messages.map((message) => ({ ...message, state: "held" })),
	};
}

/** The record without what only numbers, times or tells. */
function plain(group: GroupRecord): GroupRecord {
	return {
		...group,
		version: 0,
		epoch: 0,
		createdAt: 0,
		stateAt: 0,
		checks: 0,
		unknowns: 0,
		waiting: null,
		conflict: group.conflict === null ? null : "conflict",
		checkAt: group.checkAt === null ? null : NOW,
		leaseOwner: null,
		leaseUntil: 0,
		messages: group.messages.map((message) => ({
			...message,
			target: "target",
			version: 0,
			nextAt: message.nextAt === null ? null : NOW,
			parked: false,
			waiting: null,
			sends: Math.min(message.sends, 2),
			asks: 0,
			error: null,
			entries: 0,
			stateAt: 0,
		})),
	};
}

/** What a copy in an inbox came to. */
export type Consumption =
	| { readonly result: "runs" }
	| { readonly result: "duplicate"; readonly revision: number }
	| { readonly result: "failed"; readonly attempt: number; readonly revision: number }
	| { readonly result: "fenced" }
	| { readonly result: "dropped" };

/** What the inbox knows of a message, as the coordinator takes it. */
export type Answer =
	| { readonly result: "consumed"; readonly revision: number }
	| { readonly result: "failed"; readonly attempt: number; readonly revision: number }
	| { readonly result: "unseen" };

/** The consumers' inbox rows as the product's own rules make them. */
export class Inbox {
	readonly #rows = new Interned<InboxRow>();
	readonly #copies = new Map<number, Consumption>();
	readonly #consumed = new Map<number, number>();
	readonly #failed = new Map<number, number>();

	get(number: number): InboxRow | undefined {
		return this.#rows.get(number);
	}

	/** A copy comes: what its transaction can end with. */
	take(number: number, attempt: number, revision: number): Consumption {
		return remember(this.#copies, keyOf(number, attempt, revision), () =>
			this.#take(this.#rows.get(number), attempt, revision),
		);
	}

	#take(row: InboxRow | undefined, attempt: number, revision: number): Consumption {
		const refused = refusal(row, requestOf(attempt, revision), NOW);
		if (!refused) return { result: "runs" };
		if (refused.result === "duplicate") return refused;
		const stands = inboxState(row);
		if (stands.result === "failed" && stands.attempt === attempt) {
			return { result: "failed", attempt, revision: stands.revision };
		}
		const earlier = stands.result === "failed" && stands.attempt < attempt;
		return stands.result === "unseen" || earlier ? { result: "fenced" } : { result: "dropped" };
	}

	/** The handler's transaction commits. @returns the row that stands then */
	consume(number: number, attempt: number, revision: number): number {
		return remember(this.#consumed, keyOf(number, attempt, revision), () => {
			const row = this.#rows.get(number);
			return this.#number(consumedRow(requestOf(attempt, revision), NOW, row));
		});
	}

	/** The failure is noted, apart from the transaction. @returns the row that stands then */
	fail(number: number, attempt: number, revision: number): number {
		return remember(this.#failed, keyOf(number, attempt, revision), () => {
			const row = this.#rows.get(number);
			const request = { ...requestOf(attempt, revision), error: FAILURE };
			return this.#number(failedRow(row, request, NOW, false) ?? row);
		});
	}

	/** @param attempt the one under way, as the coordinator has it */
	look(number: number, attempt: number): Answer {
		const stands = inboxState(this.#rows.get(number));
		if (stands.result === "consumed") return stands;
		if (stands.result === "failed" && stands.attempt >= attempt) return stands;
		return { result: "unseen" };
	}

	/** @returns what stands afterwards, and the revision that was consumed before, if one was */
	fence(number: number, minRevision: number): { row: number; consumed: number | undefined } {
		const before = this.#rows.get(number);
		const { answer, row } = fencedRow(before, "message", minRevision, NOW);
		return {
			row: row ? this.#number(row) : number,
			consumed: answer.result === "consumed" ? answer.revision : undefined,
		};
	}

	#number(row: InboxRow | undefined): number {
		return this.#rows.number(row && { ...row, receipt: "", coordinator: "", at: 0 });
	}
}

function keyOf(number: number, attempt: number, revision: number): number {
	return (number << 8) | (attempt << 4) | revision;
}

function remember<T>(known: Map<number, T>, key: number, call: () => T): T {
	let result = known.get(key);
	if (result === undefined) {
		result = call();
		known.set(key, result);
	}
	return result;
}

function requestOf(attempt: number, revision: number): ConsumeRequest {
	return {
		id: "message",
		group: "group",
		attempt,
		revision,
		receipt: "",
		coordinator: "",
		owner: OWNER,
		isAlive: () => false,
		timeout: 1,
	};
}
