import {
	applyChange,
	type Change,
	claimed,
	decide,
	type Decision,
	GROUP_STATES,
	type GroupRecord,
	type GroupState,
	MESSAGE_STATES,
	type NewGroup,
	prepared,
	type Transition,
	woken,
} from "../../../protocol/index.ts";
import { decideAnswer, isSendable, letGo } from "../answers.ts";
import type {
	ApplyResult,
	Claimed,
	ClaimRequest,
	DecideResult,
	InsertResult,
	StoreStats,
} from "../contract.ts";
import type { Stored } from "./rows.ts";
import type { Tables } from "./tables.ts";

const SLOTS = 256;
const EVERY_SLOT = "1".repeat(SLOTS);

/** Groups that are due, by the index on what they are due for; those of other slots only when overdue. */
export const CLAIM_SQL =
	"SELECT id FROM lottor_groups INDEXED BY lottor_groups_due WHERE due_kind = ? AND due_at <= ? " +
	"AND (substr(?, slot + 1, 1) = '1' OR due_at <= ?) ORDER BY due_at LIMIT ?";

export const WAKE_TARGET_SQL =
	"SELECT DISTINCT seq AS key FROM lottor_messages INDEXED BY lottor_messages_parked WHERE parked = 1 AND target = ? LIMIT ?";

/** `check_at > now` is what a woken group in doubt no longer fulfils. */
export const WAKE_STORE_SQL =
	"SELECT id AS key FROM lottor_groups INDEXED BY lottor_groups_waiting WHERE store_id = ? AND check_at > ? " +
	"AND check_at IS NOT NULL AND (state = 'inDoubt' OR waiting IS NOT NULL) LIMIT ?";

export const PURGE_SQL =
	"SELECT id FROM lottor_groups INDEXED BY lottor_groups_purge WHERE state = ? AND state_at <= ? " +
	"AND state IN ('completed', 'rolledBack') AND conflict IS NULL LIMIT ?";

/** Stores a new group, unless its id or idempotency key is there. */
export function insertOne(tables: Tables, item: NewGroup, now: number): InsertResult {
	if (item.idempotencyKey !== null) {
		const standing = standingOf(tables, item);
		if (standing) return standing;
		const row = tables.row(
			"SELECT id, state FROM lottor_groups WHERE source = ? AND idempotency_key = ?",
			item.source,
			item.idempotencyKey,
		);
		if (row) {
			return {
				result: "exists",
				id: row["id"] as string,
				state: row["state"] as GroupState,
			};
		}
	}
	const { group, entries } = prepared(item, now);
	const createdAt = Math.max(now, tables.lastCreated());
	if (tables.insert({ ...group, createdAt }, item, entries)) return { result: "created" };
	const standing = standingOf(tables, item);
	if (!standing) throw new Error(`group ${item.id} is there and is not`);
	return standing;
}

function standingOf(tables: Tables, { id, hash }: NewGroup): InsertResult | undefined {
	const group = tables.load(id)?.group;
	if (!group) return undefined;
	const { state } = group;
	return group.hash === hash ? { result: "exists", id, state } : { result: "differs", state };
}

/** Decides a group; what it lets go at once comes with its payloads. */
export function decideOne(tables: Tables, decision: Decision, now: number): DecideResult {
	const before = tables.load(decision.id);
	if (!before) return { result: "unknown" };
	const transition = decide(before.group, decision, now);
	const after = saveTransition(tables, before, transition, now);
	return decideAnswer(transition, () => ({
		payloads: letGo(before.group, after.group).map((message) =>
			tables.payloadOf(after, message),
		),
		context: tables.contextOf(after.seq),
	}));
}

/** Applies one change; an edit also stores the new payload. */
export function applyOne(tables: Tables, change: Change, now: number): ApplyResult {
	return storeTransition(
		tables,
		change.id,
		now,
		(group) => applyChange(group, change, now),
		({ seq, group }) => {
			if (!("index" in change) || change.event.type !== "edit") return;
			const revision = group.messages[change.index]?.revision ?? 0;
			tables.addPayload(seq, change.index, revision, change.event.content);
			tables.addTerms(seq, change.index, change.event.terms ?? []);
		},
	);
}

/** Loads a group, makes a transition, stores it; `whenDone` may write more beside it. */
export function storeTransition(
	tables: Tables,
	id: string,
	now: number,
	transit: (group: GroupRecord) => Transition,
	whenDone?: (after: Stored) => void,
): ApplyResult {
	const before = tables.load(id);
	if (!before) return { result: "unknown" };
	const transition = transit(before.group);
	const after = saveTransition(tables, before, transition, now);
	if (transition.outcome.result === "done") whenDone?.(after);
	return { ...transition.outcome, group: after.group };
}

function saveTransition(
	tables: Tables,
	before: Stored,
	{ group, entries }: Transition,
	now: number,
): Stored {
	return group === before.group ? before : tables.save(before, group, entries, now);
}

/** Takes up to `limit` groups that are due. */
export function claimSome(tables: Tables, request: ClaimRequest, now: number): Claimed[] {
	const { kind, owner, lease, limit, share } = request;
	const rows = tables.rows(
		CLAIM_SQL,
		kind,
		now,
		share ? bitmapOf(share.slots) : EVERY_SLOT,
		now - (share?.after ?? 0),
		limit,
	);
	return rows.map((row) => {
		const before = loaded(tables, row["id"] as string);
		const after = tables.save(before, claimed(before.group, owner, lease, now), [], now);
		return {
			group: after.group,
			payloads: after.group.messages
				.filter((message) => isSendable(message, now))
				.map((message) => tables.payloadOf(after, message)),
			context: tables.contextOf(after.seq),
		};
	});
}

function bitmapOf(slots: readonly number[]): string {
	const wanted = new Set(slots);
	return Array.from({ length: SLOTS }, (_, slot) => (wanted.has(slot) ? "1" : "0")).join("");
}

/** Makes due up to `limit` groups that wait for this. */
export function wakeSome(
	tables: Tables,
	what: { readonly target: string } | { readonly storeId: string },
	limit: number,
	now: number,
): number {
	const rows =
		"target" in what
			? tables.rows(WAKE_TARGET_SQL, what.target, limit)
			: tables.rows(WAKE_STORE_SQL, what.storeId, now, limit);
	for (const row of rows) {
		const before = loaded(tables, row["key"] as string | number);
		tables.save(before, woken(before.group, what, now), [], now);
	}
	return rows.length;
}

/** Deletes up to `limit` groups whose last transition was at or before `until`. */
export function purgeSome(
	tables: Tables,
	state: "completed" | "rolledBack",
	until: number,
	limit: number,
): number {
	const rows = tables.rows(PURGE_SQL, state, until, limit);
	for (const row of rows) tables.delete(loaded(tables, row["id"] as string));
	return rows.length;
}

function loaded(tables: Tables, key: string | number): Stored {
	const stored = typeof key === "string" ? tables.load(key) : tables.find(key);
	if (!stored) throw new Error(`group ${key} is in an index and not in its table`);
	return stored;
}

/** The numbers at a glance: from counters, so that a million groups cost what ten do. */
export function statsOf(tables: Tables): StoreStats {
	const counted = (name: string) =>
		new Map(
			tables
				.rows("SELECT part, value FROM lottor_counters WHERE name = ?", name)
				.map((row) => [row["part"] as string, row["value"] as number]),
		);
	const all = <State extends string>(states: readonly State[], counts: Map<string, number>) =>
		Object.fromEntries(states.map((state) => [state, counts.get(state) ?? 0])) as Record<
			State,
			number
		>;
	const oldest = (state: GroupState) =>
		(tables.row(
			"SELECT created_at FROM lottor_groups INDEXED BY lottor_groups_state WHERE state = ? ORDER BY seq LIMIT 1",
			state,
		)?.["created_at"] as number | undefined) ?? null;
	const conflicts = tables.row(
		"SELECT count(*) AS n FROM lottor_groups INDEXED BY lottor_groups_conflict WHERE conflict IS NOT NULL",
	);
	const backlog = [...counted("backlog")]
		.filter(([, messages]) => messages > 0)
		.map(([target, messages]) => {
			const first = tables.row(
				"SELECT state_at FROM lottor_messages INDEXED BY lottor_messages_backlog " +
					"WHERE target = ? AND state IN ('pending', 'delivering') ORDER BY state_at LIMIT 1",
				target,
			);
			return { target, messages, since: Number(first?.["state_at"]) };
		});
	return {
		groups: all(GROUP_STATES, counted("group")),
		messages: all(MESSAGE_STATES, counted("message")),
		conflicts: Number(conflicts?.["n"]),
		oldestPrepared: oldest("prepared"),
		oldestInDoubt: oldest("inDoubt"),
		backlog,
	};
}
