import { type Failure, type Outcome, type Owner, sameOwner } from "../../protocol/index.ts";
import type {
	ConsumeRequest,
	ConsumeResult,
	FenceResult,
	InboxState,
	ParticipantStore,
	Resolution,
} from "./contract.ts";

/** How a local transaction stands. A fence is a `rolledBack` that needs no acknowledgement. */
export interface OutcomeRow {
	readonly id: string;
	readonly state: "started" | Outcome;
	/** Who runs it, while `started`. */
	readonly owner: Owner | null;
	readonly coordinator: string;
	/** When it came to stand, by the store's clock. */
	readonly at: number;
	readonly confirmed: boolean;
}

/** What the inbox holds of one message. */
export interface InboxRow {
	readonly id: string;
	readonly state: "consumed" | "failed" | "running" | "fenced";
	readonly attempt: number;
	readonly revision: number;
	/** Copies of a revision below this are refused. */
	readonly fence: number;
	readonly receipt: string;
	readonly coordinator: string;
	readonly error: Failure | null;
	/** Who runs it, while `running`. */
	readonly owner: Owner | null;
	/** When that claim was last renewed. */
	readonly renewed: number;
	readonly at: number;
	/** The coordinator has acknowledged it, or it is a fence, which needs none. */
	readonly settled: boolean;
}

/** A claim that was renewed within this time is not taken over (R32). Milliseconds. */
export const CLAIM_STALE_MS = 30_000;

/** A claim is renewed this often (R32). Milliseconds. */
export const CLAIM_RENEW_MS = 5_000;

/** A fence, or a second copy of a running message, waits this long (R14, R32). Milliseconds. */
export const SHORT_WAIT_MS = 1_000;

const LONGEST_ID = 64;

/** @returns whether the value can be an id at all: a bad item of a call must not fail the others */
export function isId(value: unknown): value is string {
	return typeof value === "string" && value.length <= LONGEST_ID && /^[\x21-\x7e]+$/.test(value);
}

/** What {@link ParticipantStore.fail} is told. */
export type FailRequest = Parameters<ParticipantStore["fail"]>[0];

/** @returns why the handler must not run on top of this row; undefined when it may (R27, R32) */
export function refusal(
	row: InboxRow | undefined,
	request: ConsumeRequest,
	now: number,
): ConsumeResult | undefined {
	if (!row) return undefined;
	if (row.state === "consumed") return { result: "duplicate", revision: row.revision };
	if (row.fence > request.revision) return { result: "stale" };
	if (row.state === "failed" && row.attempt >= request.attempt) return { result: "stale" };
	if (row.state === "running" && isClaimed(row, request, now)) return { result: "busy" };
	return undefined;
}

/** Our own claim that nobody renews is one whose end could not be written. */
function isClaimed(row: InboxRow, request: ConsumeRequest, now: number): boolean {
	if (now - row.renewed < CLAIM_STALE_MS) return true;
	return row.owner !== null && !sameOwner(row.owner, request.owner) && request.isAlive(row.owner);
}

/** The row of a message that took effect, or, with `running`, is claimed. */
export function consumedRow(
	request: ConsumeRequest,
	now: number,
	before?: InboxRow,
	state: "consumed" | "running" = "consumed",
): InboxRow {
	return {
		id: request.id,
		state,
		attempt: request.attempt,
		revision: request.revision,
		fence: before?.fence ?? 0,
		receipt: request.receipt,
		coordinator: request.coordinator,
		error: null,
		owner: state === "running" ? request.owner : null,
		renewed: state === "running" ? now : 0,
		at: now,
		settled: false,
	};
}

/**
 * @param ours whether a claim in the row is the one that failed
 * @returns the row that notes the failure; undefined when what stands must not be overwritten
 */
export function failedRow(
	row: InboxRow | undefined,
	request: FailRequest,
	now: number,
	ours: boolean,
): InboxRow | undefined {
	if (row) {
		if (row.state === "consumed" || row.fence > request.revision) return undefined;
		if (row.state === "failed" && row.attempt >= request.attempt) return undefined;
		if (row.state === "running" && !ours) return undefined;
	}
	return {
		id: request.id,
		state: "failed",
		attempt: request.attempt,
		revision: request.revision,
		fence: row?.fence ?? 0,
		receipt: request.receipt,
		coordinator: request.coordinator,
		error: request.error,
		owner: null,
		renewed: 0,
		at: now,
		settled: false,
	};
}

/**
 * Refuses copies below `minRevision` (R27).
 *
 * @returns what to answer, and the row to write first where there is one
 */
export function fencedRow(
	row: InboxRow | undefined,
	id: string,
	minRevision: number,
	now: number,
): { readonly answer: FenceResult; readonly row?: InboxRow } {
	if (row?.state === "consumed") {
		return { answer: { result: "consumed", revision: row.revision } };
	}
	const below = row?.state === "running" && row.revision < minRevision;
	if (below && now - row.renewed < CLAIM_STALE_MS) return { answer: { result: "busy" } };
	if (row && row.fence >= minRevision) return { answer: { result: "fenced" } };
	if (row && !below) {
		return { answer: { result: "fenced" }, row: { ...row, fence: minRevision } };
	}
	return {
		answer: { result: "fenced" },
		row: {
			id,
			state: "fenced",
			attempt: 0,
			revision: 0,
			fence: minRevision,
			receipt: "",
			coordinator: "",
			error: null,
			owner: null,
			renewed: 0,
			at: now,
			settled: true,
		},
	};
}

/** @returns what the inbox says of the message */
export function inboxState(row: InboxRow | undefined): InboxState {
	switch (row?.state) {
		case "consumed":
			return { result: "consumed", revision: row.revision };
		case "failed":
			return row.error === null
				? { result: "unseen" }
				: {
						result: "failed",
						attempt: row.attempt,
						revision: row.revision,
						error: row.error,
					};
		case "running":
			return row.owner === null
				? { result: "unseen" }
				: { result: "running", owner: row.owner };
		default:
			return { result: "unseen" };
	}
}

/** @returns what stands of a group, undefined when nothing does */
export function resolution(row: OutcomeRow | undefined): Resolution | undefined {
	if (!row) return undefined;
	if (row.state !== "started") return { result: row.state };
	return row.owner === null ? { result: "running" } : { result: "started", owner: row.owner };
}
