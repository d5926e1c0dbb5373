import { FENCED_ALL } from "../../protocol/index.ts";
import { type Bug } from "./bugs.ts";
import { ConsumerSteps, isRunning } from "./consumer-steps.ts";
import { CoordinatorSteps } from "./coordinator-steps.ts";
import type { Emit, Model, Step, Vector, Wrong } from "./explorer.ts";
import {
	ACTS_SHIFT,
	answerOf,
	ATTEMPTS,
	CALLS,
	CLAIM,
	COMMIT,
	consumedBit,
	COORDINATORS,
	COPIES,
	failedBit,
	GROUP,
	Held,
	heldOf,
	hold,
	INBOX,
	Kind,
	kindOf,
	MESSAGES,
	NET,
	Outcome,
	Phase,
	PREPARE,
	PREPARED,
	PRODUCER,
	producerOf,
	refusedBit,
	REPORTS,
	REVISIONS,
	ROLLBACK,
	RUNNING,
	SENDING,
	swapHands,
	swapHeld,
	Txn,
	WIDTH,
} from "./layout.ts";
import { ProducerSteps } from "./producer-steps.ts";
import { Groups, Inbox } from "./records.ts";

export interface ModelOptions {
	/** Messages of the group, 1 or 2. */
	readonly messages: number;
	/** Tries before a message is a dead letter, 1 or 2. */
	readonly attempts: number;
	/** How often an operator retries, edits or discards. */
	readonly acts: number;
	/** A message is stored as sent and sent in one step, unless its coordinator dies in between. */
	readonly sendsAtOnce: boolean;
	readonly bug?: Bug;
}

/** What every actor's steps work with. */
export interface Parts extends ModelOptions {
	readonly groups: Groups;
	readonly inbox: Inbox;
}

const LOSS: Step = { name: "all that is under way is lost", fault: "loss" };

/**
 * PROTOCOL.md as a graph: one producer, two coordinators on one store, consumers on one store, and
 * a group of messages. Records change by the product's own state machine and inbox rules.
 *
 * What is under way is a set that is never used up: each call, copy or report may come late, again
 * and again, in any order, or never. Time is left out: whatever may happen at some time may happen
 * at any time, so a lease may end, and a question be asked, at every moment. Crashes are not
 * counted; what an actor forgets in one is all that it has in memory. A consumer's step is its
 * database transaction: a crash before it changes nothing, one after it loses the report. That
 * makes more runs possible than the product has, never fewer.
 */
export class ProtocolModel implements Model {
	readonly width = WIDTH;
	readonly #parts: Parts;
	readonly #producer: ProducerSteps;
	readonly #coordinators: CoordinatorSteps;
	readonly #consumers: ConsumerSteps;
	readonly #late: number[][] = [];
	readonly #mirror = new Uint16Array(WIDTH);
	readonly #next = new Uint16Array(WIDTH);

	constructor(options: ModelOptions) {
		const { messages, attempts, bug } = options;
		const groups = new Groups(messages, attempts, bug === "decide twice");
		this.#parts = { ...options, groups, inbox: new Inbox() };
		this.#producer = new ProducerSteps(this.#parts);
		this.#coordinators = new CoordinatorSteps(this.#parts);
		this.#consumers = new ConsumerSteps(this.#parts);
	}

	start(): Vector {
		const state = new Uint16Array(WIDTH);
		state[NET] = this.#parts.acts << ACTS_SHIFT;
		return state;
	}

	steps(state: Vector, emit: Emit): void {
		this.#producer.steps(state, emit);
		this.#coordinators.steps(state, emit);
		this.#consumers.steps(state, emit);
		const next = this.#next;
		next.set(state);
		next[NET] = (state[NET] as number) & ~CALLS;
		for (let message = 0; message < MESSAGES; message++) {
			next[COPIES + message] = 0;
			next[REPORTS + message] = 0;
		}
		emit(next, LOSS);
	}

	breach(state: Vector): Wrong | undefined {
		const { outcome } = producerOf(state[PRODUCER] as number);
		const group = this.#parts.groups.get(state[GROUP] as number);
		const isCommitted = outcome === Outcome.committed;
		if (isCommitted && group === undefined)
			return { what: "a row is committed that no coordinator knows", harm: "lost" };
		if (isCommitted && group?.state === "rolledBack")
			return {
				what: "invariant 1: the row is committed and the group is rolled back",
				harm: "lost",
			};
		if (group?.conflict)
			return { what: "invariant 6: two sound decisions contradict each other" };
		const goesOn = group?.state === "committed" || group?.state === "completed";
		if (goesOn && !isCommitted)
			return { what: "the group is committed without its row", harm: "phantom" };
		for (let index = 0; index < this.#parts.messages; index++) {
			const message = group?.messages[index];
			const effects = (state[INBOX + index] as number) % 3;
			const copies = state[COPIES + index] as number;
			if (effects > 1)
				return { what: `invariant 3: message ${index} took effect twice`, harm: "doubles" };
			if ((effects > 0 || copies !== 0) && !isCommitted)
				return {
					what: `invariant 2: message ${index} was sent without a committed row`,
					harm: "phantom",
				};
			if (message?.state === "consumed" && effects === 0 && !isRunning(state, index))
				return {
					what: `message ${index} is lost: it counts as consumed and had no effect`,
					harm: "lost",
				};
			if (effects > 0 && message?.state === "discarded" && message.fenced === FENCED_ALL)
				return {
					what: `message ${index} took effect although its inbox is fenced`,
					harm: "phantom",
				};
		}
		return undefined;
	}

	isEnd(state: Vector): boolean {
		const { phase, txn } = producerOf(state[PRODUCER] as number);
		if (phase !== Phase.ended || txn !== Txn.none) return false;
		const group = this.#parts.groups.get(state[GROUP] as number);
		if (!group) return ((state[NET] as number) & PREPARE) === 0;
		if (group.state === "rolledBack") return true;
		if (group.state !== "committed" && group.state !== "completed") return false;
		return group.messages.every(
			(message) =>
				message.nextAt === null &&
				["consumed", "failed", "discarded"].includes(message.state),
		);
	}

	normalize(state: Vector): void {
		this.#forgetCalls(state);
		for (let index = 0; index < this.#parts.messages; index++)
			this.#forgetReports(state, index);
		for (let place = CLAIM; place < CLAIM + COORDINATORS; place++)
			this.#forgetClaim(state, place);
		if (this.#parts.bug !== undefined) return;
		sortActors(state);
		if (this.#parts.messages !== 2) return;
		const mirror = this.#mirror;
		for (const field of [INBOX, COPIES, REPORTS]) {
			mirror[field] = state[field + 1] as number;
			mirror[field + 1] = state[field] as number;
		}
		mirror[GROUP] = this.#parts.groups.swapped(state[GROUP] as number);
		mirror[PRODUCER] = state[PRODUCER] as number;
		mirror[NET] = state[NET] as number;
		for (let actor = 0; actor < 2; actor++) {
			mirror[CLAIM + actor] = swapHeld(state[CLAIM + actor] as number);
			mirror[SENDING + actor] = swapHands(state[SENDING + actor] as number);
			mirror[RUNNING + actor] = swapHands(state[RUNNING + actor] as number);
		}
		sortActors(mirror);
		for (let at = 0; at < WIDTH; at++) {
			const difference = (mirror[at] as number) - (state[at] as number);
			if (difference < 0) state.set(mirror);
			if (difference !== 0) return;
		}
	}

	print(state: Vector): string {
		const { phase, txn, outcome } = producerOf(state[PRODUCER] as number);
		const group = this.#parts.groups.get(state[GROUP] as number);
		const messages = group?.messages.map((message, index) => {
			const packed = state[INBOX + index] as number;
			const row = this.#parts.inbox.get(Math.floor(packed / 3));
			const inbox = row ? `${row.state}(${row.attempt})` : "none";
			return `${message.state} after ${message.attempts} failures, inbox ${inbox}, effects ${packed % 3}`;
		});
		return [
			`producer ${keyOf(Phase, phase)}, transaction ${keyOf(Txn, txn)}, outcome ${keyOf(Outcome, outcome)}`,
			group ? `group ${group.state}` : "no group",
			...(messages ?? []),
		].join(" | ");
	}

	/** Calls of which nothing can come any more: that repeats are no-ops is made sure of here. */
	#forgetCalls(state: Vector): void {
		const number = state[GROUP] as number;
		const group = this.#parts.groups.get(number);
		if (!group) return;
		let net = state[NET] as number;
		const { phase } = producerOf(state[PRODUCER] as number);
		if (phase > Phase.preparing) net &= ~(PREPARE | PREPARED);
		if (net & COMMIT && this.#isNoDecision(number, "committed")) net &= ~COMMIT;
		if (net & ROLLBACK && this.#isNoDecision(number, "rolledBack")) net &= ~ROLLBACK;
		state[NET] = net;
	}

	#isNoDecision(number: number, to: "committed" | "rolledBack"): boolean {
		const { groups } = this.#parts;
		const result = groups.decide(number, to, "producer", 3, "");
		return result.result === "already" && result.group === number;
	}

	/** Reports that came too late to matter: that they change nothing is made sure of here. */
	#forgetReports(state: Vector, index: number): void {
		const number = state[GROUP] as number;
		const masks = (this.#late[number] ??= this.#lateReports(number))[index];
		if (masks === undefined) return;
		for (const field of [REPORTS, COPIES] as const) {
			const under = state[field + index] as number;
			const late = under & (field === REPORTS ? masks & 0xffff : masks >>> 16);
			if (late === 0) continue;
			this.#coordinators.mustChangeNothing(number, index, field, late);
			state[field + index] = under & ~late;
		}
	}

	/** @returns for each message the bits of {@link REPORTS}, and above them those of {@link COPIES} */
	#lateReports(number: number): number[] {
		const messages = this.#parts.groups.get(number)?.messages ?? [];
		return messages.map((message) => {
			const isConsumed = message.state === "consumed";
			let reports = isConsumed ? consumedBit(0) | consumedBit(1) : 0;
			let fenced = 0;
			for (const attempt of ATTEMPTS) {
				if (!isConsumed && attempt > message.attempts) break;
				for (const revision of REVISIONS) {
					reports |= failedBit(attempt, revision);
					fenced |= refusedBit(attempt, revision);
				}
			}
			return reports | (fenced << 16);
		});
	}

	/** What a coordinator holds of a message that is consumed can't change it any more. */
	#forgetClaim(state: Vector, place: number): void {
		const group = this.#parts.groups.get(state[GROUP] as number);
		let claim = state[place] as number;
		if (claim === 0 || !group) return;
		if (kindOf(claim) === Kind.check) {
			const decided = group.state === "committed" || group.state === "completed";
			const stands = decided
				? Outcome.committed
				: group.state === "rolledBack"
					? Outcome.rolledBack
					: Outcome.none;
			if (stands !== Outcome.none && answerOf(claim) === stands) claim = 0;
		} else {
			for (let index = 0; index < group.messages.length; index++) {
				const isConsumed = group.messages[index]?.state === "consumed";
				if (isConsumed && heldOf(claim, index) !== Held.none)
					claim = hold(claim, index, Held.none);
			}
		}
		state[place] = claim;
	}
}

/** Coordinators are alike, and so are the consumer's instances. */
function sortActors(state: Vector): void {
	const claims = (state[CLAIM] as number) - (state[CLAIM + 1] as number);
	const sending = (state[SENDING] as number) - (state[SENDING + 1] as number);
	if (claims > 0 || (claims === 0 && sending > 0)) {
		swap(state, CLAIM);
		swap(state, SENDING);
	}
	if ((state[RUNNING] as number) > (state[RUNNING + 1] as number)) swap(state, RUNNING);
}

function swap(state: Vector, field: number): void {
	const first = state[field] as number;
	state[field] = state[field + 1] as number;
	state[field + 1] = first;
}

function keyOf(names: Readonly<Record<string, number>>, value: number): string {
	return Object.keys(names).find((name) => names[name] === value) ?? String(value);
}
