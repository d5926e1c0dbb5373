import type { Failure } from "../../protocol/index.ts";
import type { InboxRow, OutcomeRow } from "./rules.ts";

/** A row of an SQL database, by column name. */
type Row = Readonly<Record<string, unknown>>;

/** What a column holds. */
type Value = string | number | null;

/** @returns what a row of `lottor_outcome` says */
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

/** The values of an outcome, in the order in which every store inserts them. */
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

/** @returns what a row of `lottor_inbox` says */
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

/** The values of an inbox row, in the order in which every store inserts them. */
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

/** @returns the text of a column; "" where it has none */
export function text(value: unknown): string {
	return typeof value === "string" ? value : "";
}
