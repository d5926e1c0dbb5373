import type { SQLInputValue, SQLOutputValue } from "node:sqlite";

import {
	due,
	type Failure,
	type GroupRecord,
	type Guarantee,
	type GroupState,
	messageId,
	type MessageRecord,
	type MessageState,
	type NewEntry,
	type Owner,
	type PlainRoute,
	type TimelineEntry,
} from "../../../protocol/index.ts";
import { slotOf } from "../contract.ts";

/** A row as `node:sqlite` returns it. */
export type Row = Record<string, SQLOutputValue>;

/** A group and the number that stands for it in the other tables. */
export interface Stored {
	readonly seq: number;
	readonly group: GroupRecord;
}

/** How `plain` is stored, by its number. */
const PLAIN: readonly (PlainRoute | false)[] = [false, "action", "channel"];

/** Columns that never change. */
const GROUP_FIXED = [
	"id",
	"source",
	"store_id",
	"guarantee",
	"owner_node",
	"owner_instance",
	"hash",
	"created_at",
	"slot",
];
const GROUP_MOVING = [
	"version",
	"epoch",
	"state",
	"idempotency_key",
	"state_at",
	"check_at",
	"checks",
	"unknowns",
	"waiting",
	"conflict",
	"lease_owner",
	"lease_until",
	"due_kind",
	"due_at",
];
const MESSAGE_FIXED = [
	"seq",
	"idx",
	"target",
	"type",
	"delay",
	"max_attempts",
	"ordering_key",
	"plain",
];
const MESSAGE_MOVING = [
	"state",
	"version",
	"revision",
	"bytes",
	"next_at",
	"parked",
	"waiting",
	"sends",
	"attempts",
	"budget_from",
	"store_id",
	"instance_node",
	"instance_id",
	"asks",
	"vanished",
	"fenced",
	"consumed_revision",
	"consumed_after_discard",
	"error",
	"error_code",
	"entries",
	"state_at",
];

export const INSERT_GROUP = `${insertInto("lottor_groups", [...GROUP_FIXED, ...GROUP_MOVING])} ON CONFLICT (id) DO NOTHING`;
export const UPDATE_GROUP = `UPDATE lottor_groups SET ${assign(GROUP_MOVING)} WHERE seq = ?`;
export const INSERT_MESSAGE = insertInto("lottor_messages", [...MESSAGE_FIXED, ...MESSAGE_MOVING]);
export const UPDATE_MESSAGE = `UPDATE lottor_messages SET ${assign(MESSAGE_MOVING)} WHERE seq = ? AND idx = ?`;
export const INSERT_ENTRY = insertInto("lottor_timeline", [
	"seq",
	"version",
	"place",
	"idx",
	"at",
	"event",
	"from_state",
	"to_state",
	"by_whom",
	"why",
	"data",
]);

function insertInto(table: string, columns: readonly string[]): string {
	return `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`;
}

function assign(columns: readonly string[]): string {
	return columns.map((column) => `${column} = ?`).join(", ");
}

/** Values of {@link INSERT_GROUP}. */
export function newGroupValues(group: GroupRecord): SQLInputValue[] {
	return [
		group.id,
		group.source,
		group.storeId,
		group.guarantee,
		group.owner.nodeID,
		group.owner.instanceID,
		group.hash,
		group.createdAt,
		slotOf(group.id),
		...groupValues(group),
	];
}

/** Values of {@link UPDATE_GROUP}, without the last. */
export function groupValues(group: GroupRecord): SQLInputValue[] {
	const next = due(group);
	return [
		group.version,
		group.epoch,
		group.state,
		group.idempotencyKey,
		group.stateAt,
		group.checkAt,
		group.checks,
		group.unknowns,
		group.waiting,
		group.conflict,
		group.leaseOwner,
		group.leaseUntil,
		next?.kind ?? null,
		next?.at ?? null,
	];
}

/** Values of {@link INSERT_MESSAGE}. */
export function newMessageValues(seq: number, message: MessageRecord): SQLInputValue[] {
	return [
		seq,
		message.index,
		message.target,
		message.type,
		message.delay,
		message.maxAttempts,
		message.orderingKey,
		PLAIN.indexOf(message.plain),
		...messageValues(message),
	];
}

/** Values of {@link UPDATE_MESSAGE}, without the last two. */
export function messageValues(message: MessageRecord): SQLInputValue[] {
	return [
		message.state,
		message.version,
		message.revision,
		message.bytes,
		message.nextAt,
		message.parked ? 1 : 0,
		message.waiting,
		message.sends,
		message.attempts,
		message.budgetFrom,
		message.storeId,
		message.instance?.nodeID ?? null,
		message.instance?.instanceID ?? null,
		message.asks,
		message.vanished,
		message.fenced,
		message.consumedRevision,
		message.consumedAfterDiscard ? 1 : 0,
		message.error && JSON.stringify(message.error),
		message.error?.code ?? null,
		message.entries,
		message.stateAt,
	];
}

/** Values of {@link INSERT_ENTRY}. */
export function entryValues(
	stored: Stored,
	entry: NewEntry,
	place: number,
	at: number,
): SQLInputValue[] {
	const { seq, group } = stored;
	return [
		seq,
		group.version,
		place,
		entry.message === null ? null : Number(entry.message.slice(group.id.length + 1)),
		at,
		entry.event,
		entry.from,
		entry.to,
		entry.by,
		entry.why,
		entry.data && JSON.stringify(entry.data),
	];
}

/** Builds a group from its row and those of its messages. */
export function groupOf(row: Row, messages: readonly Row[]): GroupRecord {
	const id = row["id"] as string;
	return {
		id,
		version: row["version"] as number,
		epoch: row["epoch"] as number,
		state: row["state"] as GroupState,
		source: row["source"] as string,
		storeId: row["store_id"] as string,
		guarantee: row["guarantee"] as Guarantee,
		owner: {
			nodeID: row["owner_node"] as string,
			instanceID: row["owner_instance"] as string,
		},
		hash: row["hash"] as string,
		idempotencyKey: row["idempotency_key"] as string | null,
		createdAt: row["created_at"] as number,
		stateAt: row["state_at"] as number,
		checkAt: row["check_at"] as number | null,
		checks: row["checks"] as number,
		unknowns: row["unknowns"] as number,
		waiting: row["waiting"] as string | null,
		conflict: row["conflict"] as string | null,
		leaseOwner: row["lease_owner"] as string | null,
		leaseUntil: row["lease_until"] as number,
		messages: messages.map((message) => messageOf(id, message)),
	};
}

/** Builds a message of the group from its row. */
export function messageOf(group: string, row: Row): MessageRecord {
	const index = row["idx"] as number;
	const error = row["error"] as string | null;
	return {
		id: messageId(group, index),
		index,
		target: row["target"] as string,
		type: row["type"] as string,
		state: row["state"] as MessageState,
		version: row["version"] as number,
		revision: row["revision"] as number,
		bytes: row["bytes"] as number,
		delay: row["delay"] as number,
		maxAttempts: row["max_attempts"] as number | null,
		orderingKey: row["ordering_key"] as string | null,
		plain: PLAIN[row["plain"] as number] ?? false,
		nextAt: row["next_at"] as number | null,
		parked: row["parked"] === 1,
		waiting: row["waiting"] as string | null,
		sends: row["sends"] as number,
		attempts: row["attempts"] as number,
		budgetFrom: row["budget_from"] as number,
		storeId: row["store_id"] as string | null,
		instance: instanceOf(row),
		asks: row["asks"] as number,
		vanished: row["vanished"] as number,
		fenced: row["fenced"] as number,
		consumedRevision: row["consumed_revision"] as number | null,
		consumedAfterDiscard: row["consumed_after_discard"] === 1,
		error: error === null ? null : (JSON.parse(error) as Failure),
		entries: row["entries"] as number,
		stateAt: row["state_at"] as number,
	};
}

function instanceOf(row: Row): Owner | null {
	const nodeID = row["instance_node"] as string | null;
	if (nodeID === null) return null;
	return { nodeID, instanceID: row["instance_id"] as string };
}

/** Builds a timeline entry from its row. */
export function entryOf(group: string, row: Row): TimelineEntry {
	const index = row["idx"] as number | null;
	const data = row["data"] as string | null;
	return {
		group,
		message: index === null ? null : messageId(group, index),
		at: row["at"] as number,
		version: row["version"] as number,
		place: row["place"] as number,
		event: row["event"] as string,
		from: row["from_state"] as string | null,
		to: row["to_state"] as string | null,
		by: row["by_whom"] as string,
		why: row["why"] as string | null,
		data: data === null ? null : (JSON.parse(data) as Record<string, unknown>),
	};
}
