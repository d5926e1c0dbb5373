import {
	FENCED_ALL,
	type GroupRecord,
	type MessageRecord,
	needsFence,
} from "../../protocol/index.ts";
import { isRunning } from "./consumer-steps.ts";
import type { Emit, Step, Vector } from "./explorer.ts";
import {
	CLAIM,
	consumedBit,
	CONSUMERS,
	failedBit,
	GROUP,
	handOf,
	Held,
	heldOf,
	hold,
	INBOX,
	type InHand,
	isFresh,
	RUNNING,
	SENDING,
	withHand,
} from "./layout.ts";
import { byEachOf } from "./names.ts";
import type { Parts } from "./protocol-model.ts";
import type { Result } from "./records.ts";
import type { Writes } from "./writes.ts";

const STEPS = {
	stores: byEachOf("stores as sent"),
	late: byEachOf("finds that it may not send any more"),
	sends: byEachOf("sends"),
	refused: byEachOf("is refused, by the consumer, and stores that, for"),
	asksConsumed: byEachOf("asks: consumed,"),
	asksFailed: byEachOf("asks: failed,"),
	asksUnseen: byEachOf("asks: unseen,"),
	storesUnseen: byEachOf("stores as unseen"),
	fences: byEachOf("has older copies fenced of"),
	storesFence: byEachOf("stores the fence of"),
} as const;

/** How the coordinators bring messages to their consumers (R21 to R27). */
export class DeliverySteps {
	readonly #parts: Parts;
	readonly #writes: Writes;
	readonly #events;

	constructor(parts: Parts, writes: Writes) {
		this.#parts = parts;
		this.#writes = writes;
		const { groups } = parts;
		const to = { storeId: "target-store", instance: null, ackTimeout: 1 } as const;
		this.#events = {
			sent: groups.event({ type: "sent", ...to }),
			refused: groups.event({ type: "refused", delay: 1, why: "refused" }),
			unseen: groups.event({ type: "unseen", vanished: false }),
			fencedBelow: groups.event({ type: "fenced", minRevision: 1 }),
			fencedAll: groups.event({ type: "fenced", minRevision: FENCED_ALL }),
		};
	}

	/** What becomes of copies that are stored as sent. */
	sending(state: Vector, group: GroupRecord, k: number, emit: Emit): void {
		for (const message of group.messages) {
			const { index } = message;
			const hand = this.#writes.sending(state, k, index);
			if (!hand) continue;
			this.#writes.send(state, k, index, hand, STEPS.sends[k]?.[index] as Step, emit);
			// Of later sends the model has lost count.
			if (message.sends === 1) this.#refused(state, k, index, hand, emit);
		}
	}

	/** The consumer certainly has not taken it (PROTOCOL 7, Delivery). */
	#refused(state: Vector, k: number, index: number, hand: InHand, emit: Emit): void {
		const { groups } = this.#parts;
		const trusted = hand.flag || this.#parts.bug === "no epoch";
		const number = state[GROUP] as number;
		const result = groups.apply(number, index, this.#events.refused, trusted);
		const sending = withHand(state[SENDING + k] as number, index, undefined);
		const step = STEPS.refused[k]?.[index] as Step;
		// The flag is the claim's: see InHand.
		const claim = hand.flag ? undefined : 0;
		this.#writes.apply(state, result, step, emit, { sending: [k, sending] }, claim);
	}

	/** What a coordinator does with a group that it has claimed. */
	work(state: Vector, group: GroupRecord, k: number, emit: Emit): void {
		const claim = state[CLAIM + k] as number;
		for (const message of group.messages) {
			const { index } = message;
			const held = heldOf(claim, index);
			if (held !== Held.none) this.#storeHeld(state, k, index, held, emit);
			else if (message.state === "pending") this.#store(state, message, k, emit);
			else if (message.state === "delivering") this.#ask(state, message, k, emit);
			else if (message.state === "discarded" && message.nextAt !== null)
				this.#fence(state, index, FENCED_ALL, Held.fencedAll, k, emit);
		}
	}

	/** Stores the message as sent, then has it to send. */
	#store(state: Vector, message: MessageRecord, k: number, emit: Emit): void {
		const { index, revision, attempts } = message;
		if (needsFence(message)) {
			this.#fence(state, index, revision, Held.fencedBelow, k, emit);
			return;
		}
		const packed = state[SENDING + k] as number;
		if (handOf(packed, index)) return;
		const claim = state[CLAIM + k] as number;
		const result = this.#schedule(state, index, this.#events.sent, claim);
		if (result.result !== "done") {
			this.#writes.go(state, emit, STEPS.late[k]?.[index] as Step, { claim: [k, 0] });
			return;
		}
		const hand = { attempt: attempts + 1, revision, flag: isFresh(claim) };
		const step = STEPS.stores[k]?.[index] as Step;
		this.#writes.sent(state, result, step, emit, k, { index, claim, hand });
	}

	/** R23: what an instance knows; `consumed` and `failed` are facts, as if reported. */
	#ask(state: Vector, message: MessageRecord, k: number, emit: Emit): void {
		const { index, attempts } = message;
		if (!hasIdle(state, index)) return;
		const row = Math.floor((state[INBOX + index] as number) / 3);
		const answer = this.#parts.inbox.look(row, attempts + 1);
		switch (answer.result) {
			case "consumed": {
				const step = STEPS.asksConsumed[k]?.[index] as Step;
				const reports = [index, consumedBit(answer.revision)] as const;
				this.#writes.go(state, emit, step, { reports });
				break;
			}
			case "failed": {
				const step = STEPS.asksFailed[k]?.[index] as Step;
				const reports = [index, failedBit(answer.attempt, answer.revision)] as const;
				this.#writes.go(state, emit, step, { reports });
				break;
			}
			case "unseen": {
				const claim = hold(state[CLAIM + k] as number, index, Held.unseen);
				const step = STEPS.asksUnseen[k]?.[index] as Step;
				this.#writes.go(state, emit, step, { claim: [k, claim] });
			}
		}
	}

	/** R27: the inbox refuses older copies, or tells that one took effect. */
	#fence(
		state: Vector,
		index: number,
		minRevision: number,
		held: number,
		k: number,
		emit: Emit,
	): void {
		if (isRunning(state, index)) return;
		const packed = state[INBOX + index] as number;
		const { row, consumed } = this.#parts.inbox.fence(Math.floor(packed / 3), minRevision);
		const step = STEPS.fences[k]?.[index] as Step;
		if (consumed !== undefined) {
			this.#writes.go(state, emit, step, { reports: [index, consumedBit(consumed)] });
			return;
		}
		this.#writes.go(state, emit, step, {
			inbox: [index, row * 3 + (packed % 3)],
			claim: [k, hold(state[CLAIM + k] as number, index, held)],
		});
	}

	#storeHeld(state: Vector, k: number, index: number, held: number, emit: Emit): void {
		const claim = state[CLAIM + k] as number;
		const change = { claim: [k, hold(claim, index, Held.none)] } as const;
		if (held === Held.unseen) {
			const result = this.#schedule(state, index, this.#events.unseen, claim);
			const step = STEPS.storesUnseen[k]?.[index] as Step;
			this.#writes.apply(state, result, step, emit, change, claim);
			return;
		}
		const event = held === Held.fencedAll ? this.#events.fencedAll : this.#events.fencedBelow;
		const result = this.#parts.groups.apply(state[GROUP] as number, index, event, true);
		this.#writes.apply(state, result, STEPS.storesFence[k]?.[index] as Step, emit, change);
	}

	#schedule(state: Vector, index: number, event: number, claim: number): Result {
		const trusted = isFresh(claim) || this.#parts.bug === "no epoch";
		return this.#parts.groups.apply(state[GROUP] as number, index, event, trusted);
	}
}

/** Whether an instance has nothing of the message in memory, which would be "running". */
function hasIdle(state: Vector, index: number): boolean {
	for (let consumer = 0; consumer < CONSUMERS; consumer++)
		if (!handOf(state[RUNNING + consumer] as number, index)) return true;
	return false;
}
