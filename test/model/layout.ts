/** Where a state has what: a vector of 16-bit numbers, most of them made of bits. */

export const GROUP = 0;
export const PRODUCER = 1;
/** Calls between producer and coordinators, and how often the operator may still act. */
export const NET = 2;
/** One for each message: number of its inbox row x 3 + times that it took effect. */
export const INBOX = 3;
/** One for each message: its copies under way, and in the upper half reports of fenced ones. */
export const COPIES = 5;
/** One for each message: its reports under way. */
export const REPORTS = 7;
/** One for each coordinator: what it has claimed, and was answered. */
export const CLAIM = 9;
/** One for each coordinator: what it has stored as sent, and not sent yet. */
export const SENDING = 11;
/** One for each consumer instance: what it runs. */
export const RUNNING = 13;
export const WIDTH = 15;

export const MESSAGES = 2;
export const COORDINATORS = 2;
export const CONSUMERS = 2;
export const MOST_ATTEMPTS = 4;

/** How far the producer is. `ended`: it does no more for this group from memory. */
export const Phase = {
	idle: 0,
	preparing: 1,
	ready: 2,
	open: 3,
	issued: 4,
	unclear: 5,
	ended: 6,
} as const;

/** The business transaction in the producer's database; its outcome row is locked meanwhile. */
export const Txn = { none: 0, open: 1, committing: 2 } as const;

export const Outcome = { none: 0, committed: 1, rolledBack: 2 } as const;

export interface Producer {
	readonly phase: number;
	readonly txn: number;
	readonly outcome: number;
}

export function producerOf(packed: number): Producer {
	return { phase: packed & 7, txn: (packed >> 3) & 3, outcome: packed >> 5 };
}

export function packProducer({ phase, txn, outcome }: Producer): number {
	return phase | (txn << 3) | (outcome << 5);
}

export const PREPARE = 1;
export const PREPARED = 2;
export const COMMIT = 4;
export const ROLLBACK = 8;
export const CALLS = 15;
export const ACTS_SHIFT = 4;

export const REVISIONS = [0, 1] as const;
export const ATTEMPTS = [1, 2, 3, 4] as const;

/** A bit of {@link COPIES}. */
export function copyBit(attempt: number, revision: number): number {
	if (attempt > MOST_ATTEMPTS || revision > 1)
		throw new Error(`the model has no room for attempt ${attempt}, revision ${revision}`);
	return 1 << ((attempt - 1) * 2 + revision);
}
/** The report, in {@link COPIES}, of a copy that a fence refused. */
export function refusedBit(attempt: number, revision: number): number {
	return copyBit(attempt, revision) << 8;
}
/** A bit of {@link REPORTS}. */
export function failedBit(attempt: number, revision: number): number {
	return copyBit(attempt, revision);
}
/** A bit of {@link REPORTS}. */
export function consumedBit(revision: number): number {
	return 256 << revision;
}

/** What a coordinator's claim is for. */
export const Kind = { none: 0, check: 1, work: 2, discard: 3 } as const;
const FRESH = 4;
const ANSWER_SHIFT = 3;
const HELD_SHIFT = 5;

/** What a coordinator was answered about a message, and has not stored yet. */
export const Held = { none: 0, unseen: 1, fencedBelow: 2, fencedAll: 3 } as const;

export function claimOf(kind: number): number {
	return kind | FRESH;
}
export function kindOf(claim: number): number {
	return claim & 3;
}
/** Whether nobody has claimed the group since. */
export function isFresh(claim: number): boolean {
	return (claim & FRESH) !== 0;
}
export function stale(claim: number): number {
	return claim & ~FRESH;
}
/** The outcome that a check-back was answered; 0 before. */
export function answerOf(claim: number): number {
	return (claim >> ANSWER_SHIFT) & 3;
}
/** An answer is a fact: it needs no claim any more. */
export function answered(outcome: number): number {
	return Kind.check | (outcome << ANSWER_SHIFT);
}
export function heldOf(claim: number, message: number): number {
	return (claim >> (HELD_SHIFT + 2 * message)) & 3;
}
export function hold(claim: number, message: number, what: number): number {
	const shift = HELD_SHIFT + 2 * message;
	return (claim & ~(3 << shift)) | (what << shift);
}
export function swapHeld(claim: number): number {
	const [first, second] = [heldOf(claim, 0), heldOf(claim, 1)];
	return hold(hold(claim, 0, second), 1, first);
}

/** A copy that a process has in memory; 0 when there is none. Six bits of a number for each message. */
export interface InHand {
	readonly attempt: number;
	readonly revision: number;
	/** {@link SENDING}: whether the claim still stands. {@link RUNNING}: whether the handler has failed. */
	readonly flag: boolean;
}
const HAND_BITS = 6;

export function handOf(packed: number, message: number): InHand | undefined {
	const bits = (packed >> (HAND_BITS * message)) & 63;
	if (bits === 0) return undefined;
	return { attempt: bits & 7, revision: (bits >> 3) & 1, flag: (bits & 16) !== 0 };
}
export function withHand(packed: number, message: number, hand: InHand | undefined): number {
	const shift = HAND_BITS * message;
	const bits = hand ? hand.attempt | (hand.revision << 3) | (hand.flag ? 16 : 0) : 0;
	return (packed & ~(63 << shift)) | (bits << shift);
}
export function swapHands(packed: number): number {
	return (packed >> HAND_BITS) | ((packed & 63) << HAND_BITS);
}
/** Takes the flags away. */
export function withoutFlags(packed: number): number {
	return packed & ~(16 | (16 << HAND_BITS));
}
