import { FENCED_ALL, type GroupRecord, type MessageRecord } from "../../protocol/index.ts";
import { isRunning } from "./consumer-steps.ts";
import type { Emit, Step, Vector } from "./explorer.ts";
import {
	ACTS_SHIFT,
	CLAIM,
	consumedBit,
	COORDINATORS,
	GROUP,
	Held,
	heldOf,
	hold,
	INBOX,
	Kind,
	NET,
} from "./layout.ts";
import { byEachOf, each } from "./names.ts";
import type { Parts } from "./protocol-model.ts";
import type { Writes } from "./writes.ts";

const STEPS = {
	retry: each("the operator retries"),
	edit: each("the operator edits"),
	discard: each("the operator discards, not fenced first,"),
	fences: byEachOf("has every copy fenced, for the operator, of"),
	discards: byEachOf("stores the discard of"),
} as const;

/** What a person does to a message (R27). */
export class OperatorSteps {
	readonly #parts: Parts;
	readonly #writes: Writes;
	readonly #events;

	constructor(parts: Parts, writes: Writes) {
		this.#parts = parts;
		this.#writes = writes;
		const { groups } = parts;
		const who = "operator";
		this.#events = {
			retry: groups.event({ type: "retry", who }),
			edit: groups.event({ type: "edit", who, content: "{}", bytes: 2 }),
			discard: groups.event({ type: "discard", who, fenced: false }),
			discardFenced: groups.event({ type: "discard", who, fenced: true }),
		};
	}

	steps(state: Vector, group: GroupRecord, emit: Emit): void {
		const left = (state[NET] as number) >> ACTS_SHIFT;
		if (left === 0) return;
		const net = (state[NET] as number) - (1 << ACTS_SHIFT);
		for (const message of group.messages) {
			const { index } = message;
			const act = (event: number, steps: readonly Step[]) => {
				const number = state[GROUP] as number;
				const result = this.#parts.groups.apply(number, index, event, true);
				if (result.result !== "done") return;
				this.#writes.apply(state, result, steps[index] as Step, emit, { net });
			};
			act(this.#events.retry, STEPS.retry);
			if (message.revision === 0) act(this.#events.edit, STEPS.edit);
			// Nobody answered, or nothing was ever sent.
			act(this.#events.discard, STEPS.discard);
			if (message.sends > 0) this.#fenceFirst(state, message, net, emit);
		}
	}

	/** Stores the discard, once every copy is fenced. */
	goOn(state: Vector, k: number, emit: Emit): void {
		const claim = state[CLAIM + k] as number;
		for (let index = 0; index < this.#parts.messages; index++) {
			if (heldOf(claim, index) !== Held.fencedAll) continue;
			const number = state[GROUP] as number;
			const result = this.#parts.groups.apply(
				number,
				index,
				this.#events.discardFenced,
				true,
			);
			const step = STEPS.discards[k]?.[index] as Step;
			this.#writes.apply(state, result, step, emit, { claim: [k, 0] });
		}
	}

	#fenceFirst(state: Vector, message: MessageRecord, net: number, emit: Emit): void {
		const { index } = message;
		if (!["failed", "pending", "delivering"].includes(message.state)) return;
		if (isRunning(state, index)) return;
		const packed = state[INBOX + index] as number;
		const { row, consumed } = this.#parts.inbox.fence(Math.floor(packed / 3), FENCED_ALL);
		for (let k = 0; k < COORDINATORS; k++) {
			if (state[CLAIM + k] !== 0) continue;
			const step = STEPS.fences[k]?.[index] as Step;
			if (consumed !== undefined) {
				const reports = [index, consumedBit(consumed)] as const;
				this.#writes.go(state, emit, step, { net, reports });
				continue;
			}
			this.#writes.go(state, emit, step, {
				net,
				inbox: [index, row * 3 + (packed % 3)],
				claim: [k, hold(Kind.discard, index, Held.fencedAll)],
			});
		}
	}
}
