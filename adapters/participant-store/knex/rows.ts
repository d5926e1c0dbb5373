import type { Failure } from "../../../protocol/index.ts";
import type { InboxRow, OutcomeRow } from "../rules.ts";
import { INBOX_COLUMNS, type Row, type Value } from "./dialect.ts";

/** Every statement that the databases share, so that a test can ask for their plans. */
export const SQL = {
	outcomes: (ids: number) => `SELECT * FROM lottor_outcome WHERE id IN (${marks(ids)})`,
	endOutcome: `UPDATE lottor_outcome SET state = ?, node = NULL, instance = NULL, at = ?
		WHERE id = ? AND state = 'started'`,
	confirm: (ids: number) => `UPDATE lottor_outcome SET confirmed = 1
		WHERE id IN (${marks(ids)}) AND confirmed = 0 AND state <> 'started'`,
	unconfirmed: `SELECT id, coordinator FROM lottor_outcome
		WHERE confirmed = 0 AND at < ? AND state = 'committed' ORDER BY confirmed, at LIMIT ?`,
	inbox: (ids: number) => `SELECT * FROM lottor_inbox WHERE id IN (${marks(ids)})`,
	lockInbox: "SELECT * FROM lottor_inbox WHERE id = ?",
	replaceInbox: `UPDATE lottor_inbox SET ${INBOX_COLUMNS.map((name) => `${name} = ?`).join(", ")}
		WHERE id = ?`,
	settle: (ids: number) => `UPDATE lottor_inbox SET settled = 1 WHERE id IN (${marks(ids)})
		AND settled = 0 AND attempt <= ? AND state IN ('consumed', 'failed')`,
	unsettled: `SELECT id, attempt, revision, receipt, coordinator FROM lottor_inbox
		WHERE settled = 0 AND at < ? AND state = 'consumed' ORDER BY settled, at LIMIT ?`,
} as const;

/** The table of the store's id, as servers have it. */
export const PARTICIPANT = {
	participant: "SELECT version, store FROM lottor_participant",
	newParticipant: "INSERT INTO lottor_participant (one, version, store) VALUES (1, ?, ?)",
} as const;

function marks(count: number): string {
	return Array.from({ length: count }, () => "?").join(", ");
}

export function outcomeOf(row: Row): OutcomeRow {
	return {
		id: text(row["id"]),
		state: text(row["state"]) as OutcomeRow["state"],
		owner: ownerOf(row),
		coordinator: text(row["coordinator"]),
		at: Number(row["at"]),
		confirmed: Number(row["confirmed"]) === 1,
	};
}

export function outcomeValues(row: OutcomeRow): Value[] {
	const { owner } = row;
	return [
		row.id,
		row.state,
		owner?.nodeID ?? null,
		owner?.instanceID ?? null,
		row.coordinator,
		row.at,
		row.confirmed ? 1 : 0,
	];
}

export function inboxOf(row: Row): InboxRow {
	const { error } = row;
	return {
		id: text(row["id"]),
		state: text(row["state"]) as InboxRow["state"],
		attempt: Number(row["attempt"]),
		revision: Number(row["revision"]),
		fence: Number(row["fence"]),
		receipt: text(row["receipt"]),
		coordinator: text(row["coordinator"]),
		error: typeof error === "string" ? (JSON.parse(error) as Failure) : null,
		owner: ownerOf(row),
		renewed: Number(row["renewed"]),
		at: Number(row["at"]),
		settled: Number(row["settled"]) === 1,
	};
}

/** The values of a row, in the order of {@link INBOX_COLUMNS}. */
export function inboxValues(row: InboxRow): Value[] {
	return [
		row.id,
		row.state,
		row.attempt,
		row.revision,
		row.fence,
		row.receipt,
		row.coordinator,
		row.error === null ? null : JSON.stringify(row.error),
		row.owner?.nodeID ?? null,
		row.owner?.instanceID ?? null,
		row.renewed,
		row.at,
		row.settled ? 1 : 0,
	];
}

function ownerOf(row: Row): OutcomeRow["owner"] {
	const { node, instance } = row;
	return typeof node === "string" && typeof instance === "string"
		? { nodeID: node, instanceID: instance }
		: null;
}

export function text(value: unknown): string {
	return typeof value === "string" ? value : "";
}
