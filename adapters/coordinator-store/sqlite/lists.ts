import type { SQLInputValue } from "node:sqlite";

import type { GroupFilter, MessageFilter } from "../contract.ts";
import { cursorOf as cursorText, mergeRanges, placeOf } from "../pages.ts";
import type { Tables } from "./tables.ts";

/** Rows looked at in one go where conditions filter on top of an index; then the loop gets its turn. */
const SCAN_ROWS = 2_000;

/** Text after every text that begins with the prefix: ids are ASCII. */
const AFTER = "\u{10ffff}";

/** A place in a list: lists go on from it. `key` is a group's `seq`, or its id in lists by prefix. */
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

/** One index range to walk along. */
interface Source {
	readonly from: string;
	/** What of the filter the index itself answers. */
	readonly where: readonly Condition[];
	/** Column that orders the list, and the message's place, `0` in lists of groups. */
	readonly key: string;
	readonly index: string;
	/** Keys are this or above, and stay below that. */
	readonly start?: string | number;
	readonly end?: string | number;
	/** Several rows of the index may belong to one entry of the list. */
	readonly grouped?: boolean;
}

/** The ranges that a filter's list walks, and which part of the filter they answer. */
interface Way<Filter> {
	readonly by: keyof Filter | undefined;
	readonly sources: readonly Source[];
}

/** How a filter is answered: by ranges of an index, walked together, and conditions on top. */
export interface Plan {
	readonly key: "seq" | "id";
	readonly order: Order;
	readonly sources: readonly Source[];
	/** Checked on each row that the sources give. */
	readonly rest: readonly Condition[];
}

export type Order = "newest" | "oldest";

/** Conditions that one message of a group fulfils together. */
const OF_MESSAGES = ["type", "target", "errorCode", "terms"] as const;

/**
 * Plans a list of groups. Each field of the filter but `conflict: false` has an index of its own;
 * of several the one that leaves the fewest rows is walked, each with `since` and `until` (which
 * filter on top of `idPrefix`), and the others filter on top.
 */
export function planGroups(tables: Tables, filter: GroupFilter, order: Order = "newest"): Plan {
	const { states, source, idPrefix, conflict } = filter;
	const ways = idPrefix === undefined ? groupWays(filter) : [byPrefix(idPrefix)];
	const { by, sources } = fewest(tables, ways, filter);
	const byMessage = OF_MESSAGES.some((field) => field === by);
	const column = (name: string) => (byMessage ? ofGroup(name) : `g.${name}`);
	const rest: Condition[] = [];
	if (states && by !== "states") rest.push(among(column("state"), states));
	if (source !== undefined && by !== "source") rest.push(equal(column("source"), source));
	if (conflict !== undefined && by !== "conflict") {
		rest.push({ sql: `(${column("conflict")} IS NOT NULL) = ?`, values: [conflict ? 1 : 0] });
	}
	const ofMessage = messageConditions(filter, by);
	if (byMessage) rest.push(...ofMessage);
	else if (ofMessage.length > 0) {
		const all = [{ sql: "m.seq = g.seq", values: [] }, ...ofMessage];
		rest.push({
			sql: `EXISTS (SELECT 1 FROM lottor_messages m WHERE ${all.map(({ sql }) => sql).join(" AND ")})`,
			values: all.flatMap(({ values }) => values),
		});
	}
	if (by === "idPrefix") rest.push(...times(filter));
	return { key: by === "idPrefix" ? "id" : "seq", order, sources, rest };
}

function byPrefix(idPrefix: string): Way<GroupFilter> {
	const range = { key: "g.id", index: "0", start: idPrefix, end: idPrefix + AFTER };
	return { by: "idPrefix", sources: [{ from: `lottor_groups g ${BY_ID}`, where: [], ...range }] };
}

function groupWays(filter: GroupFilter): Way<GroupFilter>[] {
	const { states, source, conflict } = filter;
	const of = (index: string, ...where: Condition[]): Source => ({
		from: `lottor_groups g ${index}`,
		where,
		key: "g.seq",
		index: "0",
	});
	const ways: Way<GroupFilter>[] = [];
	if (conflict === true) {
		const where = { sql: "g.conflict IS NOT NULL", values: [] };
		ways.push({ by: "conflict", sources: [of("INDEXED BY lottor_groups_conflict", where)] });
	}
	for (const field of OF_MESSAGES) {
		const sources = messageSources(field, filter).map((one) => ({
			...one,
			index: "0",
			grouped: true,
		}));
		if (filter[field] !== undefined) ways.push({ by: field, sources });
	}
	if (source !== undefined) {
		const where = equal("g.source", source);
		ways.push({ by: "source", sources: [of("INDEXED BY lottor_groups_source", where)] });
	}
	if (states) {
		const sources = [...new Set(states)].map((state) =>
			of("INDEXED BY lottor_groups_state", equal("g.state", state)),
		);
		ways.push({ by: "states", sources });
	}
	return ways.length > 0 ? ways : [{ by: undefined, sources: [of("NOT INDEXED")] }];
}

/** Plans a list of messages, in the same way: `groupPrefix`, or the best index of the others. */
export function planMessages(tables: Tables, filter: MessageFilter, order: Order = "newest"): Plan {
	const { states, source, groupPrefix, index } = filter;
	const { by, sources } = fewest(tables, messageWays(filter), filter);
	const rest: Condition[] = [];
	if (states && by !== "states") rest.push(among("m.state", states));
	if (source !== undefined && by !== "source") rest.push(equal(ofGroup("source"), source));
	rest.push(...messageConditions(filter, by));
	if (index !== undefined) rest.push({ sql: "m.idx = ?", values: [index] });
	if (groupPrefix !== undefined) rest.push(...times(filter));
	return { key: groupPrefix === undefined ? "seq" : "id", order, sources, rest };
}

function messageWays(filter: MessageFilter): Way<MessageFilter>[] {
	const { states, source, groupPrefix } = filter;
	const joined = (index: string, where: readonly Condition[], key: string): Source => ({
		from: `lottor_groups g ${index} CROSS JOIN lottor_messages m ON m.seq = g.seq`,
		where,
		key,
		index: "m.idx",
	});
	if (groupPrefix !== undefined) {
		const range = { start: groupPrefix, end: groupPrefix + AFTER };
		return [{ by: "groupPrefix", sources: [{ ...joined(BY_ID, [], "g.id"), ...range }] }];
	}
	const ways: Way<MessageFilter>[] = OF_MESSAGES.filter((one) => filter[one] !== undefined).map(
		(by) => ({ by, sources: messageSources(by, filter) }),
	);
	if (source !== undefined) {
		const where = [equal("g.source", source)];
		const sources = [joined("INDEXED BY lottor_groups_source", where, "g.seq")];
		ways.push({ by: "source", sources });
	}
	if (states) {
		const sources = [...new Set(states)].map((state) => ofMessages("state", "state", state));
		ways.push({ by: "states", sources });
	}
	if (ways.length > 0) return ways;
	const all = { from: "lottor_messages m NOT INDEXED", where: [], key: "m.seq", index: "m.idx" };
	return [{ by: undefined, sources: [all] }];
}

/** The ranges of messages that fulfil one of the conditions on them. */
function messageSources(
	field: (typeof OF_MESSAGES)[number],
	{ type, target, errorCode, terms }: Pick<GroupFilter, (typeof OF_MESSAGES)[number]>,
): Source[] {
	if (field === "type" && type !== undefined) return [ofMessages("type", "type", type)];
	if (field === "target" && target !== undefined) return [ofMessages("target", "target", target)];
	if (field === "errorCode" && errorCode !== undefined) {
		return [ofMessages("error", "error_code", errorCode)];
	}
	if (field !== "terms" || !terms) return [];
	return [...new Set(terms)].flatMap((term) => [
		ofMessages("type", "type", term),
		ofMessages("target", "target", term),
		ofMessages("error", "error_code", term),
		{
			from: "lottor_terms t CROSS JOIN lottor_messages m ON m.seq = t.seq AND m.idx = t.idx",
			where: [equal("t.term", term)],
			key: "t.seq",
			index: "t.idx",
		},
	]);
}

function ofMessages(index: string, column: string, value: string): Source {
	return {
		from: `lottor_messages m INDEXED BY lottor_messages_${index}`,
		where: [equal(`m.${column}`, value)],
		key: "m.seq",
		index: "m.idx",
	};
}

function messageConditions(
	{ type, target, errorCode, terms }: Pick<GroupFilter, (typeof OF_MESSAGES)[number]>,
	by: string | undefined,
): Condition[] {
	const rest: Condition[] = [];
	if (type !== undefined && by !== "type") rest.push(equal("m.type", type));
	if (target !== undefined && by !== "target") rest.push(equal("m.target", target));
	if (errorCode !== undefined && by !== "errorCode") rest.push(equal("m.error_code", errorCode));
	if (terms && by !== "terms") {
		const any = ["m.type", "m.target", "m.error_code"].map((column) => among(column, terms));
		const term = among("t.term", terms);
		const sql = [
			...any.map((one) => one.sql),
			`EXISTS (SELECT 1 FROM lottor_terms t WHERE t.seq = m.seq AND t.idx = m.idx AND ${term.sql})`,
		].join(" OR ");
		rest.push({ sql: `(${sql})`, values: [...any, term].flatMap(({ values }) => values) });
	}
	return rest;
}

/** Rows up to which the ways of a filter are told apart. */
const PROBED_ROWS = 8_000;

/** @returns the way with the fewest rows to walk, within the filter's time; the first of equals */
function fewest<Filter extends { readonly since?: number; readonly until?: number }>(
	tables: Tables,
	ways: readonly Way<Filter>[],
	filter: Filter,
): Way<Filter> {
	let best: { way: Way<Filter>; rows: number } | undefined;
	for (const { by, sources } of ways) {
		const way = { by, sources: bounded(tables, sources, filter) };
		if (ways.length === 1) return way;
		let rows = 0;
		for (const source of way.sources) {
			rows += rowsOf(tables, source, Math.min(best?.rows ?? PROBED_ROWS, PROBED_ROWS));
			if (rows >= (best?.rows ?? Infinity)) break;
		}
		if (!best || rows < best.rows) best = { way, rows };
		if (rows === 0) break;
	}
	return best?.way as Way<Filter>;
}

function rowsOf(tables: Tables, source: Source, most: number): number {
	const where = [...source.where, ...within(source, undefined, "newest")];
	const sql = where.map((one) => one.sql).join(" AND ") || "1";
	const row = tables.row(
		`SELECT count(*) AS n FROM (SELECT 1 FROM ${source.from} WHERE ${sql} LIMIT ?)`,
		...where.flatMap(({ values }) => values),
		most,
	);
	return Number(row?.["n"]);
}

/** One step along the list. */
export interface Step {
	readonly hits: readonly Position[];
	/** Where to go on; undefined at the end of the list. */
	readonly next: Position | undefined;
	/** Rows looked at. */
	readonly looked: number;
}

/** Looks at the next rows beyond `after`: at most `wanted`, more where conditions filter on top. */
export function step(
	tables: Tables,
	plan: Plan,
	after: Position | undefined,
	wanted: number,
): Step {
	const limit = plan.rest.length === 0 ? wanted : Math.max(wanted, SCAN_ROWS);
	const compare = comparison(plan.order);
	const found = plan.sources.map((source) => {
		const { sql, values } = queryOf(plan, source, after, limit);
		return tables.rows(sql, ...values).map((row) => ({
			key: row["k"] as number | string,
			index: row["i"] as number,
			hit: row["hit"] === 1,
		}));
	});
	const { rows, edge } = mergeRanges(found, limit, compare);
	const all = rows.filter(({ hit }) => hit);
	const hits = all.slice(0, wanted);
	return {
		hits,
		next: hits.length === wanted ? hits.at(-1) : edge,
		looked: found.reduce((sum, one) => sum + one.length, 0),
	};
}

/** The statement of one range: exported for the test that looks at its query plan. */
export function queryOf(
	plan: Plan,
	source: Source,
	after: Position | undefined,
	limit: number,
): { sql: string; values: SQLInputValue[] } {
	const where = [...source.where, ...within(source, after, plan.order)];
	const hit = plan.rest.map(({ sql }) => sql).join(" AND ");
	const grouping = source.grouped ? `GROUP BY ${source.key}` : "";
	const way = plan.order === "newest" ? "DESC" : "ASC";
	const ordering = source.index === "0" ? "" : `, ${source.index} ${way}`;
	const test = hit === "" ? "1" : source.grouped ? `max(${hit})` : hit;
	return {
		sql:
			`SELECT ${source.key} AS k, ${source.index} AS i, ${test} AS hit FROM ${source.from} ` +
			`WHERE ${where.map(({ sql }) => sql).join(" AND ") || "1"} ${grouping} ` +
			`ORDER BY ${source.key} ${way}${ordering} LIMIT ?`,
		values: [
			...plan.rest.flatMap(({ values }) => values),
			...where.flatMap(({ values }) => values),
			limit,
		],
	};
}

/**
 * The bounds of a range: SQLite seeks to one bound on either side only, so the cursor takes the
 * place of the range's own.
 */
function within(source: Source, after: Position | undefined, order: Order): Condition[] {
	const { key, start, end } = source;
	const newest = order === "newest";
	const own = newest ? end : start;
	const taken =
		after !== undefined && (own === undefined || (newest ? after.key < own : after.key >= own));
	const bounds: Condition[] = taken ? beyond(source, after, newest ? "<" : ">") : [];
	if (start !== undefined && (newest || !taken))
		bounds.push({ sql: `${key} >= ?`, values: [start] });
	if (end !== undefined && (!newest || !taken)) bounds.push({ sql: `${key} < ?`, values: [end] });
	return bounds;
}

function beyond({ key, index, from }: Source, after: Position, side: "<" | ">"): Condition[] {
	if (index === "0") return [{ sql: `${key} ${side} ?`, values: [after.key] }];
	if (!from.includes("JOIN")) {
		return [{ sql: `(${key}, ${index}) ${side} (?, ?)`, values: [after.key, after.index] }];
	}
	return [
		{
			sql: `${key} ${side}= ? AND (${key} ${side} ? OR ${index} ${side} ?)`,
			values: [after.key, after.key, after.index],
		},
	];
}

/** @returns the opaque text of a position */
export function cursorOf(position: Position): string {
	return cursorText([position.key, position.index]);
}

/**
 * Reads a cursor back.
 *
 * @throws LOTTOR_INVALID_REQUEST when it is none, or one of a list in another order
 */
export function positionOf(cursor: string, plan: Plan): Position {
	const fits = (place: readonly unknown[]): place is [number | string, number] => {
		const [key, index] = place;
		const known = plan.key === "id" ? typeof key === "string" : Number.isSafeInteger(key);
		return known && Number.isSafeInteger(index) && place.length === 2;
	};
	const [key, index] = placeOf(cursor, fits);
	return { key, index };
}

/** `created_at` never falls along `seq`, so that a span of time is a span of `seq`. */
function bounded(
	tables: Tables,
	sources: readonly Source[],
	{ since, until }: { readonly since?: number; readonly until?: number },
): readonly Source[] {
	if (since === undefined && until === undefined) return sources;
	const firstAt = (time: number) =>
		(tables.row(FIRST_SINCE_SQL, time)?.["seq"] as number | undefined) ??
		Number.MAX_SAFE_INTEGER;
	const bounds = {
		...(since !== undefined && { start: firstAt(since) }),
		...(until !== undefined && { end: firstAt(until) }),
	};
	return sources.map((source) => (source.key === "g.id" ? source : { ...source, ...bounds }));
}

/** The filter's time as conditions, for lists that go by the id. */
function times({ since, until }: { readonly since?: number; readonly until?: number }) {
	const rest: Condition[] = [];
	if (since !== undefined) rest.push({ sql: "g.created_at >= ?", values: [since] });
	if (until !== undefined) rest.push({ sql: "g.created_at < ?", values: [until] });
	return rest;
}

function ofGroup(column: string): string {
	return `(SELECT g.${column} FROM lottor_groups g WHERE g.seq = m.seq)`;
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

function comparison(order: Order): (a: Position, b: Position) => number {
	const sign = order === "newest" ? 1 : -1;
	return (a, b) => {
		if (a.key !== b.key) return a.key < b.key ? sign : -sign;
		return (b.index - a.index) * sign;
	};
}
