import type { GroupRecord } from "../../protocol/index.ts";
import { Breach, type Emit, type Step, type Vector } from "./explorer.ts";
import {
	CLAIM,
	COORDINATORS,
	COPIES,
	copyBit,
	GROUP,
	handOf,
	type InHand,
	INBOX,
	isFresh,
	NET,
	PRODUCER,
	REPORTS,
	SENDING,
	stale,
	WIDTH,
	withHand,
	withoutFlags,
} from "./layout.ts";
import type { Parts } from "./protocol-model.ts";
import type { Result } from "./records.ts";

export const NAMES = ["K0", "K1"] as const;

/** What a step of a coordinator changes. Pairs: which coordinator or message, and its new value. */
export interface Change {
	readonly group?: number;
	readonly net?: number;
	readonly producer?: number;
	readonly claim?: readonly [number, number];
	readonly sending?: readonly [number, number];
	readonly inbox?: readonly [number, number];
	/** Bits that come to be under way. */
	readonly copies?: readonly [number, number];
	/** Bits that come to be under way. */
	readonly reports?: readonly [number, number];
}

interface Sent {
	readonly index: number;
	readonly claim: number;
	readonly hand: InHand;
}

const CRASHES: readonly Step[] = NAMES.map((name) => ({
	name: `${name} stores it, and crashes before it has sent anything`,
	fault: "crash",
}));

/** The coordinators' writes to their store, and what must be true of each. */
export class Writes {
	readonly #parts: Parts;
	readonly #next = new Uint16Array(WIDTH);

	constructor(parts: Parts) {
		this.#parts = parts;
	}

	/** A step that stores nothing of the group, or what {@link apply} has checked. */
	go(state: Vector, emit: Emit, step: Step, change: Change): void {
		this.#prepare(state, change);
		emit(this.#next, step);
	}

	/** @param claim the claim that a scheduling write belongs to; left out: a fact */
	apply(
		state: Vector,
		result: Result,
		step: Step,
		emit: Emit,
		change: Change,
		claim?: number,
	): void {
		this.#mayWrite(state, result, step, claim);
		this.#prepare(state, { ...change, group: result.group });
		if (result.newEpoch) this.#outdate();
		emit(this.#next, step);
	}

	/**
	 * Stores a decision; what went out with it, `k` has to send.
	 *
	 * @param ends whether `k` stores the answer of its own check-back
	 */
	decide(state: Vector, result: Result, step: Step, emit: Emit, k: number, ends: boolean): void {
		if (result.result === "conflict")
			throw new Breach(step, "invariant 6: a sound decision met its opposite");
		const { groups } = this.#parts;
		const before = groups.get(state[GROUP] as number);
		this.#mustKeep(state[GROUP] as number, result.group, step);
		const due = (groups.get(result.group)?.messages ?? []).filter(
			({ state, index }) =>
				state === "delivering" && before?.messages[index]?.state !== "delivering",
		);
		this.#prepare(state, { group: result.group, ...(ends && { claim: [k, 0] }) });
		if (result.newEpoch) this.#outdate();
		if (this.#parts.sendsAtOnce && due.length > 0) this.#crashFirst(emit, k);
		for (const { index, attempts, revision } of due)
			this.#toSend(k, index, { attempt: attempts + 1, revision, flag: true });
		emit(this.#next, step);
	}

	/** Stores a message as sent, which `k` then has to send. */
	sent(state: Vector, result: Result, step: Step, emit: Emit, k: number, sent: Sent): void {
		const { index, claim, hand } = sent;
		this.#mayWrite(state, result, step, claim);
		this.#prepare(state, { group: result.group });
		if (this.#parts.sendsAtOnce) this.#crashFirst(emit, k);
		this.#toSend(k, index, hand);
		emit(this.#next, step);
	}

	#toSend(k: number, index: number, hand: InHand): void {
		const next = this.#next;
		if (this.#parts.sendsAtOnce) {
			const copies = next[COPIES + index] as number;
			next[COPIES + index] = copies | copyBit(hand.attempt, hand.revision);
		} else {
			next[SENDING + k] = withHand(next[SENDING + k] as number, index, hand);
		}
	}

	/** It is stored, and the coordinator dies before it has sent anything. */
	#crashFirst(emit: Emit, k: number): void {
		const claim = this.#next[CLAIM + k] as number;
		this.#next[CLAIM + k] = 0;
		emit(this.#next, CRASHES[k] as Step);
		this.#next[CLAIM + k] = claim;
	}

	/** Claims the group: whoever had it may store no schedule any more. */
	claim(state: Vector, result: Result, step: Step, emit: Emit, k: number, claim: number): void {
		this.#prepare(state, { group: result.group });
		if (result.newEpoch) this.#outdate();
		this.#next[CLAIM + k] = claim;
		emit(this.#next, step);
	}

	/** @returns how many messages a decision may send at once: none while `k` still sends others */
	room(state: Vector, k: number): boolean {
		return state[SENDING + k] === 0;
	}

	/** The copy leaves the coordinator. */
	send(state: Vector, k: number, index: number, hand: InHand, step: Step, emit: Emit): void {
		this.#prepare(state, {
			copies: [index, copyBit(hand.attempt, hand.revision)],
			sending: [k, withHand(state[SENDING + k] as number, index, undefined)],
		});
		emit(this.#next, step);
	}

	/** @returns the copy that the coordinator still has to send */
	sending(state: Vector, k: number, index: number): InHand | undefined {
		return handOf(state[SENDING + k] as number, index);
	}

	#prepare(state: Vector, change: Change): void {
		const next = this.#next;
		next.set(state);
		if (change.group !== undefined) next[GROUP] = change.group;
		if (change.net !== undefined) next[NET] = change.net;
		if (change.producer !== undefined) next[PRODUCER] = change.producer;
		if (change.claim) next[CLAIM + change.claim[0]] = change.claim[1];
		if (change.sending) next[SENDING + change.sending[0]] = change.sending[1];
		if (change.inbox) next[INBOX + change.inbox[0]] = change.inbox[1];
		if (change.copies) {
			const at = COPIES + change.copies[0];
			next[at] = (state[at] as number) | change.copies[1];
		}
		if (change.reports) {
			const at = REPORTS + change.reports[0];
			next[at] = (state[at] as number) | change.reports[1];
		}
	}

	/** All claims until now are stale. */
	#outdate(): void {
		for (let k = 0; k < COORDINATORS; k++) {
			this.#next[CLAIM + k] = stale(this.#next[CLAIM + k] as number);
			this.#next[SENDING + k] = withoutFlags(this.#next[SENDING + k] as number);
		}
	}

	#mayWrite(state: Vector, result: Result, step: Step, claim: number | undefined): void {
		const before = state[GROUP] as number;
		if (claim !== undefined && !isFresh(claim) && result.group !== before)
			throw new Breach(
				step,
				"R20: a coordinator whose claim was taken over changes the group",
			);
		this.#mustKeep(before, result.group, step);
	}

	/** Invariant 6: what is consumed stays so, and so does what is completed. */
	#mustKeep(before: number, after: number, step: Step): void {
		if (before === after || before === 0) return;
		const was = this.#parts.groups.get(before) as GroupRecord;
		const is = this.#parts.groups.get(after) as GroupRecord;
		const isLost = was.messages.some(
			({ state }, index) => state === "consumed" && is.messages[index]?.state !== "consumed",
		);
		if (isLost) throw new Breach(step, "invariant 6: a consumed message is taken back");
		if (was.state === "completed" && is.state !== "completed")
			throw new Breach(step, "invariant 6: a completed group is taken back");
	}
}
