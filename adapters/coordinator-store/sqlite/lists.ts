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
	/** Several rows of the index may belong to one entry of the list. */
	readonly grouped?: boolean;
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
	const { states, source, target, type, idPrefix, conflict, since, until } = filter;
	const order = idPrefix === undefined ? "seq" : "id";
	const byMessage =
		idPrefix === undefined &&
		conflict !== true &&
		!fewGroups(states) &&
		(type !== undefined || target !== undefined);
	const column = (name: string) =>
		byMessage ? `(SELECT g.${name} FROM lottor_groups g WHERE g.seq = m.seq)` : `g.${name}`;
	const rest: Condition[] = [];
	const groups = (index: string, ...where: Condition[]): Source => ({
		from: `lottor_groups g ${index === "" ? "NOT INDEXED" : `INDEXED BY ${index}`}`,
		where,
		key: order === "id" ? "g.id" : "g.seq",
		index: "0",
	});
	let sources: Source[];
	let usesStates = false;
	let usesSource = false;
	if (idPrefix !== undefined) {
		sources = [groups("sqlite_autoindex_lottor_groups_1", prefix("g.id", idPrefix))];
	} else if (conflict === true) {
		sources = [groups("lottor_groups_conflict", { sql: "g.conflict IS NOT NULL", values: [] })];
	} else if (byMessage) {
		const by = type === undefined ? "target" : "type";
		sources = [
			{
				from: `lottor_messages m INDEXED BY lottor_messages_${by}`,
				where: [equal(`m.${by}`, type ?? target ?? "")],
				key: "m.seq",
				index: "0",
				grouped: true,
			},
		];
		if (type !== undefined && target !== undefined) rest.push(equal("m.target", target));
	} else if (states && (fewGroups(states) || source === undefined)) {
		usesStates = true;
		sources = [...new Set(states)].map((state) =>
			groups("lottor_groups_state", equal("g.state", state)),
		);
	} else if (source !== undefined) {
		usesSource = true;
		sources = [groups("lottor_groups_source", equal("g.source", source))];
	} else {
		sources = [groups("")];
	}
	if (states && !usesStates) rest.push(among(column("state"), states));
	if (source !== undefined && !usesSource) rest.push(equal(column("source"), source));
	if (conflict !== undefined && !(conflict && sources[0]?.from.includes("_conflict"))) {
		rest.push({ sql: `(${column("conflict")} IS NOT NULL) = ?`, values: [conflict ? 1 : 0] });
	}
	if (!byMessage && (type !== undefined || target !== undefined)) {
		rest.push({
			sql: "EXISTS (SELECT 1 FROM lottor_messages m WHERE m.seq = g.seq AND m.type = coalesce(?, m.type) AND m.target = coalesce(?, m.target))",
			values: [type ?? null, target ?? null],
		});
	}
	return bounded(tables, { order, sources, rest }, since, until);
}

/**
 * Plans a list of messages. By index alone: no filter, `groupPrefix`, `errorCode`, `states`,
 * `type`, `target`, `source`, each with `since` and `until` (which filter on top of
 * `groupPrefix`). Of several, the first of: prefix, error code, states that few messages are in,
 * type, target, source, states; the others filter on top.
 */
export function planMessages(tables: Tables, filter: MessageFilter): Plan {
	const { states, source, target, type, errorCode, groupPrefix, since, until } = filter;
	const column = (name: string) => `(SELECT g.${name} FROM lottor_groups g WHERE g.seq = m.seq)`;
	const messages = (index: string, ...where: Condition[]): Source => ({
		from: `lottor_messages m ${index === "" ? "NOT INDEXED" : `INDEXED BY lottor_messages_${index}`}`,
		where,
		key: "m.seq",
		index: "m.idx",
	});
	const joined = (index: string, key: string, where: Condition): Source => ({
		from: `lottor_groups g INDEXED BY ${index} CROSS JOIN lottor_messages m ON m.seq = g.seq`,
		where: [where],
		key,
		index: "m.idx",
	});
	let sources: Source[];
	let used: keyof MessageFilter | undefined;
	if (groupPrefix !== undefined) {
		used = "groupPrefix";
		sources = [joined("sqlite_autoindex_lottor_groups_1", "g.id", prefix("g.id", groupPrefix))];
	} else if (errorCode !== undefined) {
		used = "errorCode";
		sources = [messages("error", equal("m.error_code", errorCode))];
	} else if (states && (fewMessages(states) || !(type ?? target ?? source))) {
		used = "states";
		sources = [...new Set(states)].map((state) => messages("state", equal("m.state", state)));
	} else if (type !== undefined) {
		used = "type";
		sources = [messages("type", equal("m.type", type))];
	} else if (target !== undefined) {
		used = "target";
		sources = [messages("target", equal("m.target", target))];
	} else if (source !== undefined) {
		used = "source";
		sources = [joined("lottor_groups_source", "g.seq", equal("g.source", source))];
	} else {
		sources = [messages("")];
	}
	const rest: Condition[] = [];
	if (states && used !== "states") rest.push(among("m.state", states));
	if (type !== undefined && used !== "type") rest.push(equal("m.type", type));
	if (target !== undefined && used !== "target") rest.push(equal("m.target", target));
	if (errorCode !== undefined && used !== "errorCode") {
		rest.push(equal("m.error_code", errorCode));
	}
	if (source !== undefined && used !== "source") rest.push(equal(column("source"), source));
	const order = groupPrefix === undefined ? "seq" : "id";
	return bounded(tables, { order, sources, rest }, since, until);
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
	const where = [...source.where];
	if (after !== undefined) {
		const { key, index } = source;
		where.push(
			index === "0"
				? { sql: `${key} < ?`, values: [after.key] }
				: source.from.includes("JOIN")
					? {
							sql: `${key} <= ? AND (${key} < ? OR ${index} < ?)`,
							values: [after.key, after.key, after.index],
						}
					: { sql: `(${key}, ${index}) < (?, ?)`, values: [after.key, after.index] },
		);
	}
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
	since: number | undefined,
	until: number | undefined,
): Plan {
	const extra: Condition[] = [];
	for (const [time, sign] of [
		[since, ">="],
		[until, "<"],
	] as const) {
		if (time === undefined) continue;
		if (plan.order === "id") {
			extra.push({ sql: `g.created_at ${sign} ?`, values: [time] });
			continue;
		}
		const first = tables.row(
			"SELECT seq FROM lottor_groups INDEXED BY lottor_groups_created WHERE created_at >= ? ORDER BY created_at, seq LIMIT 1",
			time,
		);
		extra.push({
			sql: `# ${sign} ?`,
			values: [(first?.["seq"] as number | undefined) ?? Number.MAX_SAFE_INTEGER],
		});
	}
	if (plan.order === "id") return { ...plan, rest: [...plan.rest, ...extra] };
	const sources = plan.sources.map((source) => ({
		...source,
		where: [
			...source.where,
			...extra.map(({ sql, values }) => ({ sql: sql.replace("#", source.key), values })),
		],
	}));
	return { ...plan, sources };
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

function prefix(column: string, text: string): Condition {
	return { sql: `${column} >= ? AND ${column} < ?`, values: [text, text + AFTER] };
}

/** Later groups first. */
function compare(a: Position, b: Position): number {
	if (a.key !== b.key) return a.key < b.key ? 1 : -1;
	return b.index - a.index;
}
