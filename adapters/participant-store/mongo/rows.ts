import type { Failure } from "../../../protocol/index.ts";
import type { InboxRow, OutcomeRow } from "../rules.ts";
import type { Document } from "./driver.ts";

export const OUTCOMES = "lottor_outcome";
export const INBOX = "lottor_inbox";
export const PARTICIPANT = "lottor_participant";

/** What each collection is searched by, besides `_id`. */
export const INDEXES: readonly {
	readonly collection: string;
	readonly name: string;
	readonly key: Readonly<Record<string, 1>>;
}[] = [
	{ collection: OUTCOMES, name: "lottor_outcome_at", key: { confirmed: 1, at: 1 } },
	{ collection: INBOX, name: "lottor_inbox_at", key: { settled: 1, at: 1 } },
];

export function outcomeOf(document: Document): OutcomeRow {
	return {
		id: text(document["_id"]),
		state: text(document["state"]) as OutcomeRow["state"],
		owner: ownerOf(document),
		coordinator: text(document["coordinator"]),
		at: Number(document["at"]),
		confirmed: document["confirmed"] === true,
	};
}

export function outcomeDocument(row: OutcomeRow): Document {
	const { id, state, owner, coordinator, at, confirmed } = row;
	return { _id: id, state, ...ownerFields(owner), coordinator, at, confirmed };
}

export function inboxOf(document: Document): InboxRow {
	const { error } = document;
	return {
		id: text(document["_id"]),
		state: text(document["state"]) as InboxRow["state"],
		attempt: Number(document["attempt"]),
		revision: Number(document["revision"]),
		fence: Number(document["fence"]),
		receipt: text(document["receipt"]),
		coordinator: text(document["coordinator"]),
		// As text: its keys are somebody else's, and MongoDB does not take every key.
		error: typeof error === "string" ? (JSON.parse(error) as Failure) : null,
		owner: ownerOf(document),
		renewed: Number(document["renewed"]),
		at: Number(document["at"]),
		settled: document["settled"] === true,
	};
}

export function inboxDocument(row: InboxRow): Document {
	const { id, owner, error, ...fields } = row;
	return {
		_id: id,
		...fields,
		...ownerFields(owner),
		error: error === null ? null : JSON.stringify(error),
	};
}

/** Finds the row only while it stands as it was read. */
export function unchanged(row: InboxRow): Document {
	const { id, state, attempt, revision, fence, owner, renewed, at, settled } = row;
	const scheduling = { state, attempt, revision, fence, renewed, at, settled };
	return { _id: id, ...scheduling, ...ownerFields(owner) };
}

export function text(value: unknown): string {
	return typeof value === "string" ? value : "";
}

function ownerFields(owner: OutcomeRow["owner"]): Document {
	return { node: owner?.nodeID ?? null, instance: owner?.instanceID ?? null };
}

function ownerOf({ node, instance }: Document): OutcomeRow["owner"] {
	return typeof node === "string" && typeof instance === "string"
		? { nodeID: node, instanceID: instance }
		: null;
}
