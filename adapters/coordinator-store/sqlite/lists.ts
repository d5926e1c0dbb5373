import type { SQLInputValue } from "node:sqlite";

import { LottorError } from "../../../protocol/index.ts";
import type { GroupFilter, MessageFilter } from "../contract.ts";
import type { Tables } from "./tables.ts";

/** Rows looked at in one go where conditions filter on top of an index; then the loop gets its turn. */
const SCAN_ROWS = 2_000;

/** Text after every text that begins with the prefix: ids are ASCII. */
const AFTER = "\u{10ffff}";

/** A place in a list: lists go down from it. `key` is a group's `seq`, or its id in lists by prefix. */
export interface Position {
	readonly key: number | string;
	readonly index: number;
}

const BY_ID = "INDEXED BY sqlite_autoindex_lottor_groups_1";

/** The first group made at a time or later. */
export const FIRST_SINCE_SQL =
	"SELECT seq FROM lottor_groups INDEXED BY lottor_groups_created WHERE created_at >= ? ORDER BY created_at, seq LIMIT 1";

interface Condition {
	readonly sql: string;
	readonly values: readonly SQLInputValue[];
}

/** One index range to walk down. */
interface Source {
	readonly from: string;
	/** What of the filter the index itself answers. */
	readonly where: readonly Condition[];
	/** Column that orders the list, and the message's place, `0` in lists of groups. */
	readonly key: string;
	readonly index: string;
	/** Keys stay below this. */
	readonly end?: string | number;
	/** Several rows of the index may belong to one entry of the list. */
	readonly grouped?: boolean;
}

/** The ranges that a filter's list walks, and which part of the filter they answer. */
interface Chosen<Filter> {
	readonly used: keyof Filter | undefined;
	readonly sources: readonly Source[];
}

/** How a filter is answered: by ranges of an index, walked together, and conditions on top. */
export interface Plan {
	readonly order: "seq" | "id";
	readonly sources: readonly Source[];
	/** Checked on each row that the sources give. */
	readonly rest: readonly Condition[];
}

/**
 * Plans a list of groups. By index alone: no filter, `idPrefix`, `conflict: true`, `states`,
 * `source`, `target`, `type`, each with `since` and `until` (which filter on top of `idPrefix`).
 * Of several, the first of: prefix, conflict, states that few groups are in, type, target,
 * source, states; the others filter on top.
 */
export function planGroups(tables: Tables, filter: GroupFilter): Plan {
	const { states, source, target, type, idPrefix, conflict } = filter;
	const order = idPrefix === undefined ? "seq" : "id";
	const { used, sources } = groupSources(filter);
	const byMessage = used === "type" || used === "target";
	const column = (name: string) => (byMessage ? ofGroup(name) : `g.${name}`);
	const rest: Condition[] = [];
	if (states && used !== "states") rest.push(among(column("state"), states));
	if (source !== undefined && used !== "source") rest.push(equal(column("source"), source));
	if (conflict !== undefined && used !== "conflict") {
		rest.push({ sql: `(${column("conflict")} IS NOT NULL) = ?`, values: [conflict ? 1 : 0] });
	}
	if (used === "type" && target !== undefined) rest.push(equal("m.target", target));
	if (!byMessage && (type !== undefined || target !== undefined)) {
		rest.push({
			sql:
				"EXISTS (SELECT 1 FROM lottor_messages m WHERE m.seq = g.seq " +
				"AND m.type = coalesce(?, m.type) AND m.target = coalesce(?, m.target))",
			values: [type ?? null, target ?? null],
		});
	}
	return bounded(tables, { order, sources, rest }, filter);
}

function groupSources(filter: GroupFilter): Chosen<GroupFilter> {
	const { states, source, target, type, idPrefix, conflict } = filter;
	const of = (
		index: string,
		where: readonly Condition[],
		more: Partial<Source> = {},
	): Source => ({
		from: `lottor_groups g ${index}`,
		where,
		key: "g.seq",
		index: "0",
		...more,
	});
	const byState = (wanted: readonly string[]) =>
		[...new Set(wanted)].map((state) =>
			of("INDEXED BY lottor_groups_state", [equal("g.state", state)]),
		);
	const byMessage = (column: string, value: string): Source => ({
		from: `lottor_messages m INDEXED BY lottor_messages_${column}`,
		where: [equal(`m.${column}`, value)],
		key: "m.seq",
		index: "0",
		grouped: true,
	});
	if (idPrefix !== undefined) {
		const where = [{ sql: "g.id >= ?", values: [idPrefix] }];
		const range = { key: "g.id", end: idPrefix + AFTER };
		return { used: "idPrefix", sources: [of(BY_ID, where, range)] };
	}
	if (conflict === true) {
		const where = [{ sql: "g.conflict IS NOT NULL", values: [] }];
		return { used: "conflict", sources: [of("INDEXED BY lottor_groups_conflict", where)] };
	}
	if (states && fewGroups(states)) return { used: "states", sources: byState(states) };
	if (type !== undefined) return { used: "type", sources: [byMessage("type", type)] };
	if (target !== undefined) return { used: "target", sources: [byMessage("target", target)] };
	if (source !== undefined) {
		const where = [equal("g.source", source)];
		return { used: "source", sources: [of("INDEXED BY lottor_groups_source", where)] };
	}
	if (states) return { used: "states", sources: byState(states) };
	return { used: undefined, sources: [of("NOT INDEXED", [])] };
}

/**
 * Plans a list of messages. By index alone: no filter, `groupPrefix`, `errorCode`, `states`,
 * `type`, `target`, `source`, each with `since` and `until` (which filter on top of
 * `groupPrefix`). Of several, the first of: prefix, error code, states that few messages are in,
 * type, target, source, states; the others filter on top.
 */
export function planMessages(tables: Tables, filter: MessageFilter): Plan {
	const { states, source, target, type, errorCode, groupPrefix } = filter;
	const { used, sources } = messageSources(filter);
	const rest: Condition[] = [];
	if (states && used !== "states") rest.push(among("m.state", states));
	if (type !== undefined && used !== "type") rest.push(equal("m.type", type));
	if (target !== undefined && used !== "target") rest.push(equal("m.target", target));
	if (errorCode !== undefined && used !== "errorCode") {
		rest.push(equal("m.error_code", errorCode));
	}
	if (source !== undefined && used !== "source") rest.push(equal(ofGroup("source"), source));
	const order = groupPrefix === undefined ? "seq" : "id";
	return bounded(tables, { order, sources, rest }, filter);
}

function messageSources(filter: MessageFilter): Chosen<MessageFilter> {
	const { states, source, target, type, errorCode, groupPrefix } = filter;
	const of = (index: string, ...where: Condition[]): Source => ({
		from: `lottor_messages m ${index}`,
		where,
		key: "m.seq",
		index: "m.idx",
	});
	const joined = (index: string, where: Condition, more: Partial<Source> = {}): Source => ({
		from: `lottor_groups g ${index} CROSS JOIN lottor_messages m ON m.seq = g.seq`,
		where: [where],
		key: "g.seq",
		index: "m.idx",
		...more,
	});
	if (groupPrefix !== undefined) {
		const where = { sql: "g.id >= ?", values: [groupPrefix] };
		const range = { key: "g.id", end: groupPrefix + AFTER };
		return { used: "groupPrefix", sources: [joined(BY_ID, where, range)] };
	}
	if (errorCode !== undefined) {
		const where = equal("m.error_code", errorCode);
		return { used: "errorCode", sources: [of("INDEXED BY lottor_messages_error", where)] };
	}
	if (states && (fewMessages(states) || !(type ?? target ?? source))) {
		const sources = [...new Set(states)].map((state) =>
			of("INDEXED BY lottor_messages_state", equal("m.state", state)),
		);
		return { used: "states", sources };
	}
	if (type !== undefined) {
		const where = equal("m.type", type);
		return { used: "type", sources: [of("INDEXED BY lottor_messages_type", where)] };
	}
	if (target !== undefined) {
		const where = equal("m.target", target);
		return { used: "target", sources: [of("INDEXED BY lottor_messages_target", where)] };
	}
	if (source !== undefined) {
		const where = equal("g.source", source);
		return { used: "source", sources: [joined("INDEXED BY lottor_groups_source", where)] };
	}
	return { used: undefined, sources: [of("NOT INDEXED")] };
}

/** One step down the list. */
export interface Step {
	readonly hits: readonly Position[];
	/** Where to go on; undefined at the end of the list. */
	readonly next: Position | undefined;
}

/** Looks at the next rows below `after`: at most `wanted`, more where conditions filter on top. */
export function step(
	tables: Tables,
	plan: Plan,
	after: Position | undefined,
	wanted: number,
): Step {
	const limit = plan.rest.length === 0 ? wanted : Math.max(wanted, SCAN_ROWS);
	const rows: (Position & { hit: boolean })[] = [];
	let floor: Position | undefined;
	for (const source of plan.sources) {
		const { sql, values } = queryOf(plan, source, after, limit);
		const found = tables.rows(sql, ...values);
		for (const row of found) {
			rows.push({
				key: row["k"] as number | string,
				index: row["i"] as number,
				hit: row["hit"] === 1,
			});
		}
		const last = rows.at(-1);
		// Below the last row of a range that was cut, others of its kind may come first.
		if (found.length === limit && last && (!floor || compare(last, floor) < 0)) floor = last;
	}
	rows.sort(compare);
	const hits: Position[] = [];
	for (const row of rows) {
		if (floor && compare(row, floor) > 0) return { hits, next: floor };
		if (!row.hit) continue;
		hits.push(row);
		if (hits.length === wanted) return { hits, next: row };
	}
	return { hits, next: floor };
}

/** The statement of one range: exported for the test that looks at its query plan. */
export function queryOf(
	plan: Plan,
	source: Source,
	after: Position | undefined,
	limit: number,
): { sql: string; values: SQLInputValue[] } {
	const where = [...source.where, ...below(source, after)];
	const hit = plan.rest.map(({ sql }) => sql).join(" AND ");
	const grouping = source.grouped ? `GROUP BY ${source.key}` : "";
	const ordering = source.index === "0" ? "" : `, ${source.index} DESC`;
	const test = hit === "" ? "1" : source.grouped ? `max(${hit})` : hit;
	return {
		sql:
			`SELECT ${source.key} AS k, ${source.index} AS i, ${test} AS hit FROM ${source.from} ` +
			`WHERE ${where.map(({ sql }) => sql).join(" AND ") || "1"} ${grouping} ` +
			`ORDER BY ${source.key} DESC${ordering} LIMIT ?`,
		values: [
			...plan.rest.flatMap(({ values }) => values),
			...where.flatMap(({ values }) => values),
			limit,
		],
	};
}

/** SQLite seeks to one upper bound only, so the cursor takes the place of the range's own. */
function below({ key, index, end, from }: Source, after: Position | undefined): Condition[] {
	if (end !== undefined && (after === undefined || after.key >= end)) {
		return [{ sql: `${key} < ?`, values: [end] }];
	}
	if (after === undefined) return [];
	if (index === "0") return [{ sql: `${key} < ?`, values: [after.key] }];
	if (!from.includes("JOIN")) {
		return [{ sql: `(${key}, ${index}) < (?, ?)`, values: [after.key, after.index] }];
	}
	return [
		{
			sql: `${key} <= ? AND (${key} < ? OR ${index} < ?)`,
			values: [after.key, after.key, after.index],
		},
	];
}

/** @returns the opaque text of a position */
export function cursorOf(position: Position): string {
	return Buffer.from(JSON.stringify([position.key, position.index])).toString("base64url");
}

/**
 * Reads a cursor back.
 *
 * @throws LOTTOR_INVALID_REQUEST when it is none, or one of a list in another order
 */
export function positionOf(cursor: string, plan: Plan): Position {
	try {
		const [key, index, ...more] = JSON.parse(
			Buffer.from(cursor, "base64url").toString(),
		) as unknown[];
		const known = plan.order === "id" ? typeof key === "string" : Number.isSafeInteger(key);
		if (known && Number.isSafeInteger(index) && more.length === 0) {
			return { key: key as number | string, index: index as number };
		}
	} catch {
		// Not base64url of JSON: refused below.
	}
	throw new LottorError(
		"LOTTOR_INVALID_REQUEST",
		"Field cursor is not one that this list returned; begin without a cursor",
		{ field: "cursor" },
	);
}

/** `created_at` never falls along `seq`, so that a span of time is a span of `seq`. */
function bounded(
	tables: Tables,
	plan: Plan,
	{ since, until }: { readonly since?: number; readonly until?: number },
): Plan {
	if (plan.order === "id") {
		const rest = [...plan.rest];
		if (since !== undefined) rest.push({ sql: "g.created_at >= ?", values: [since] });
		if (until !== undefined) rest.push({ sql: "g.created_at < ?", values: [until] });
		return { ...plan, rest };
	}
	const firstAt = (time: number) =>
		(tables.row(FIRST_SINCE_SQL, time)?.["seq"] as number | undefined) ??
		Number.MAX_SAFE_INTEGER;
	const sources = plan.sources.map((source) => ({
		...source,
		...(until === undefined ? {} : { end: firstAt(until) }),
		where:
			since === undefined
				? source.where
				: [...source.where, { sql: `${source.key} >= ?`, values: [firstAt(since)] }],
	}));
	return { ...plan, sources };
}

function ofGroup(column: string): string {
	return `(SELECT g.${column} FROM lottor_groups g WHERE g.seq = m.seq)`;
}

function fewGroups(states: GroupFilter["states"]): boolean {
	return states?.every((state) => state === "inDoubt" || state === "prepared") ?? false;
}

function fewMessages(states: MessageFilter["states"]): boolean {
	return states?.every((state) => state !== "consumed" && state !== "discarded") ?? false;
}

function equal(column: string, value: string): Condition {
	return { sql: `${column} = ?`, values: [value] };
}

function among(column: string, values: readonly string[]): Condition {
	return {
		sql: `${column} IN (SELECT value FROM json_each(?))`,
		values: [JSON.stringify(values)],
	};
}

/** Later groups first. */
function compare(a: Position, b: Position): number {
	if (a.key !== b.key) return a.key < b.key ? 1 : -1;
	return b.index - a.index;
}
