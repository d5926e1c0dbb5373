import type { Emit, Step, Vector } from "./explorer.ts";
import {
	ATTEMPTS,
	CLAIM,
	consumedBit,
	CONSUMERS,
	COORDINATORS,
	COPIES,
	copyBit,
	failedBit,
	GROUP,
	handOf,
	Held,
	heldOf,
	type InHand,
	INBOX,
	refusedBit,
	REPORTS,
	REVISIONS,
	RUNNING,
	SENDING,
	WIDTH,
	withHand,
} from "./layout.ts";
import type { Parts } from "./protocol-model.ts";

const NAMES = ["C0", "C1"] as const;

interface ConsumerNames {
	readonly begins: Step;
	readonly commits: Step;
	readonly commitsAndCrashes: Step;
	readonly fails: Step;
	readonly notes: Step;
	readonly notesAndCrashes: Step;
	readonly again: Step;
	readonly early: Step;
}

interface Change {
	readonly inbox?: number;
	readonly copies?: number;
	readonly reports?: number;
	/** What the instance runs of the message afterwards. */
	readonly hand?: InHand | null;
}

/** What the consumers do, two instances on one store (PROTOCOL, section 6). */
export class ConsumerSteps {
	readonly #parts: Parts;
	readonly #next = new Uint16Array(WIDTH);
	readonly #names: readonly (readonly ConsumerNames[])[];
	readonly #purges: readonly Step[];
	readonly #crashes: readonly Step[];

	constructor(parts: Parts) {
		this.#parts = parts;
		this.#names = NAMES.map((name) => [0, 1].map((index) => namesOf(name, index)));
		this.#purges = [0, 1].map((index) => ({ name: `the row of message ${index} is purged` }));
		this.#crashes = NAMES.map((name) => ({ name: `${name} crashes`, fault: "crash" }));
	}

	steps(state: Vector, emit: Emit): void {
		for (let index = 0; index < this.#parts.messages; index++) {
			const copies = (state[COPIES + index] as number) & 255;
			for (let consumer = 0; consumer < CONSUMERS; consumer++) {
				const hand = handOf(state[RUNNING + consumer] as number, index);
				if (hand) this.#run(state, consumer, index, hand, emit);
				else if (copies !== 0) this.#takeAny(state, consumer, index, copies, emit);
			}
			this.#purge(state, index, emit);
		}
		for (let consumer = 0; consumer < CONSUMERS; consumer++) {
			if (state[RUNNING + consumer] === 0) continue;
			this.#next.set(state);
			this.#next[RUNNING + consumer] = 0;
			emit(this.#next, this.#crashes[consumer] as Step);
		}
	}

	#takeAny(state: Vector, consumer: number, index: number, copies: number, emit: Emit): void {
		// The row is locked by a transaction that runs: a second copy waits a moment, and is dropped.
		if (isRunning(state, index)) return;
		for (const attempt of ATTEMPTS) {
			for (const revision of REVISIONS) {
				if (copies & copyBit(attempt, revision))
					this.#take(state, consumer, index, attempt, revision, emit);
			}
		}
	}

	#take(
		state: Vector,
		consumer: number,
		index: number,
		attempt: number,
		revision: number,
		emit: Emit,
	): void {
		const names = this.#names[consumer]?.[index] as ConsumerNames;
		const row = Math.floor((state[INBOX + index] as number) / 3);
		const taken = this.#parts.inbox.take(row, attempt, revision);
		const go = (step: Step, change: Change) => {
			this.#go(state, consumer, index, emit, step, change);
		};
		switch (taken.result) {
			case "runs":
				go(names.begins, { hand: { attempt, revision, flag: false } });
				break;
			case "duplicate":
				go(names.again, { reports: consumedBit(taken.revision) });
				break;
			case "failed":
				go(names.again, { reports: failedBit(attempt, taken.revision) });
				break;
			case "fenced":
				go(names.again, { copies: refusedBit(attempt, revision) });
				break;
			case "dropped":
				break;
		}
	}

	/** What can become of a copy that an instance has taken. */
	#run(state: Vector, consumer: number, index: number, hand: InHand, emit: Emit): void {
		const names = this.#names[consumer]?.[index] as ConsumerNames;
		const packed = state[INBOX + index] as number;
		const effects = packed % 3;
		const row = Math.floor(packed / 3);
		const { attempt, revision } = hand;
		const go = (step: Step, change: Change) => {
			this.#go(state, consumer, index, emit, step, change);
		};
		if (hand.flag) {
			const inbox = this.#parts.inbox.fail(row, attempt, revision) * 3 + effects;
			go(names.notes, { hand: null, inbox, reports: failedBit(attempt, revision) });
			go(names.notesAndCrashes, { hand: null, inbox });
			return;
		}
		if (this.#parts.bug === "ack before inbox")
			go(names.early, { reports: consumedBit(revision) });
		const inbox = this.#parts.inbox.consume(row, attempt, revision) * 3 + effects + 1;
		go(names.commits, { hand: null, inbox, reports: consumedBit(revision) });
		go(names.commitsAndCrashes, { hand: null, inbox });
		go(names.fails, { hand: { attempt, revision, flag: true } });
	}

	/** R34: by then every copy is older than what may still be run, and no step is that old. */
	#purge(state: Vector, index: number, emit: Emit): void {
		const packed = state[INBOX + index] as number;
		const row = this.#parts.inbox.get(Math.floor(packed / 3));
		if (row?.state !== "consumed" || isInMemory(state, index)) return;
		const message = this.#parts.groups.get(state[GROUP] as number)?.messages[index];
		const isAcknowledged = message?.state === "consumed";
		if (!isAcknowledged && this.#parts.bug !== "inbox row purged before the report") return;
		this.#next.set(state);
		this.#next[INBOX + index] = packed % 3;
		this.#next[COPIES + index] = 0;
		this.#next[REPORTS + index] = 0;
		emit(this.#next, this.#purges[index] as Step);
	}

	#go(
		state: Vector,
		consumer: number,
		index: number,
		emit: Emit,
		step: Step,
		change: Change,
	): void {
		const next = this.#next;
		next.set(state);
		if (change.inbox !== undefined) next[INBOX + index] = change.inbox;
		next[COPIES + index] = (state[COPIES + index] as number) | (change.copies ?? 0);
		next[REPORTS + index] = (state[REPORTS + index] as number) | (change.reports ?? 0);
		if (change.hand !== undefined) {
			const packed = state[RUNNING + consumer] as number;
			next[RUNNING + consumer] = withHand(packed, index, change.hand ?? undefined);
		}
		emit(next, step);
	}
}

/** @returns whether an instance has a transaction open on the message's row */
export function isRunning(state: Vector, index: number): boolean {
	for (let consumer = 0; consumer < CONSUMERS; consumer++) {
		const hand = handOf(state[RUNNING + consumer] as number, index);
		if (hand && !hand.flag) return true;
	}
	return false;
}

/** Whether a process has anything about the message in the middle of a step. */
function isInMemory(state: Vector, index: number): boolean {
	for (let k = 0; k < COORDINATORS; k++) {
		if (heldOf(state[CLAIM + k] as number, index) !== Held.none) return true;
		if (handOf(state[SENDING + k] as number, index)) return true;
	}
	return handOf(state[RUNNING] as number, index) !== undefined || isRunning(state, index);
}

function namesOf(consumer: string, index: number): ConsumerNames {
	const step = (text: string): Step => ({ name: `${consumer} ${text} message ${index}` });
	const crash = (text: string): Step => ({ ...step(text), fault: "crash" });
	return {
		begins: step("inserts the inbox row and runs"),
		commits: step("commits, then reports,"),
		commitsAndCrashes: crash("commits, but loses the report of"),
		fails: step("fails at"),
		notes: step("notes the failure, then reports it, of"),
		notesAndCrashes: crash("notes the failure, but loses the report of"),
		again: step("has had, and reports again,"),
		early: step("reports, before it has committed,"),
	};
}
