import type {
	AuditFilter,
	CoordinatorStore,
	GroupFilter,
	MessageFilter,
	MessageRow,
	NewAuditEntry,
	Page,
	PageRequest,
	Total,
} from "../../adapters/coordinator-store/index.ts";
import {
	GROUP_STATES,
	type GroupRecord,
	type MessageRecord,
	MESSAGE_STATES,
	type PayloadRecord,
	type TimelineEntry,
} from "../../protocol/index.ts";
import { isPath, valuesAt } from "../payload-paths.ts";
import { invalid, record, text, whole } from "./intake.ts";

/** A group with all that is known of it. */
export interface GroupView {
	readonly group: GroupRecord;
	/** Former revisions too, by message and revision; JSON text. */
	readonly payloads: readonly PayloadRecord[];
	/** What the caller's context was, as JSON text. */
	readonly context: string;
	readonly timeline: readonly TimelineEntry[];
}

/** What a list is asked for besides its filter and page. */
interface Extras {
	/** Begin of an id, part of a type, target or error code, or the value of a search field. */
	readonly text?: string;
	/** Paths in the payload whose values come with each row. */
	readonly fields?: readonly string[];
	/** Whether to count all that match, up to {@link COUNTED}. */
	readonly total?: boolean;
}

export type ListRequest<Filter> = Filter & Partial<PageRequest> & Extras;

/** A page of a list, with what was asked for besides. */
export interface Listed<Row> extends Page<Row & { readonly fields?: Fields }> {
	readonly total?: Total;
}

export type Fields = Readonly<Record<string, unknown>>;

interface ListQuery<Filter> extends Extras {
	readonly filter: Filter;
	readonly page: PageRequest;
}

const DEFAULT_LIMIT = 50;
const MOST = 1_000;
const MOST_FIELDS = 5;
/** How far a list's total is counted. */
const COUNTED = 10_000;
/** Names that a text is taken to mean at most. */
const MOST_NAMES = 20;
/** A value shown beside a row is cut at this many characters. */
const LONGEST_VALUE = 500;
/** Characters of an audit entry's data, as JSON. */
const LONGEST_DATA = 65_536;
/** The begin of a group's id, or a message's whole id. */
const ID_BEGIN = /^([0-9a-hjkmnp-tv-z]{6,26})$|^([0-9a-hjkmnp-tv-z]{26})\.(0|[1-9]\d{0,3})$/;

const PAGE_FIELDS = ["limit", "cursor", "order", "scan", "text", "fields", "total"];
const BOTH_FIELDS = ["states", "source", "target", "type", "errorCode", "since", "until"];
const GROUP_FIELDS = [...BOTH_FIELDS, "idPrefix", "conflict"];
const MESSAGE_FIELDS = [...BOTH_FIELDS, "groupPrefix", "index"];

/** @returns the group with payloads, context and timeline; undefined when there is none */
export async function groupView(
	store: CoordinatorStore,
	id: string,
): Promise<GroupView | undefined> {
	const [group] = await store.get([id]);
	if (!group) return undefined;
	const [payloads, context, timeline] = await Promise.all([
		store.payloads(id),
		store.context(id),
		store.timeline(id),
	]);
	return { group, payloads, context: context ?? "{}", timeline };
}

/** @throws LOTTOR_INVALID_REQUEST naming the field */
export async function listGroups(
	store: CoordinatorStore,
	given: object,
): Promise<Listed<GroupRecord>> {
	const query = checkQuery<GroupFilter>(given, GROUP_FIELDS, GROUP_STATES);
	const { begin, terms } = await meaningOf(store, query.text, query.filter.idPrefix);
	const filter: GroupFilter = {
		...query.filter,
		...(begin !== undefined && { idPrefix: begin }),
		...(terms && { terms }),
	};
	const { items, ...page } = await store.list(filter, query.page);
	return {
		...page,
		items: await withFields(store, items, query.fields, (group) => group),
		...(query.total && { total: await store.countGroups(filter, COUNTED) }),
	};
}

/** @throws LOTTOR_INVALID_REQUEST naming the field */
export async function listMessages(
	store: CoordinatorStore,
	given: object,
): Promise<Listed<MessageRow>> {
	const query = checkQuery<MessageFilter>(given, MESSAGE_FIELDS, MESSAGE_STATES);
	const { begin, ...meant } = await meaningOf(store, query.text, query.filter.groupPrefix);
	const filter: MessageFilter = {
		...query.filter,
		...meant,
		...(begin !== undefined && { groupPrefix: begin }),
	};
	const { items, ...page } = await store.listMessages(filter, query.page);
	return {
		...page,
		items: await withFields(store, items, query.fields, (row) => ({
			id: row.group,
			messages: [row],
		})),
		...(query.total && { total: await store.countMessages(filter, COUNTED) }),
	};
}

/** What a searched text means. */
interface Meaning {
	/** Begin of a group's id. */
	readonly begin?: string;
	/** The message's place, where the text is a message's id. */
	readonly index?: number;
	readonly terms?: readonly string[];
}

/** An id where there is such a group, else names and values. */
async function meaningOf(
	store: CoordinatorStore,
	given: string | undefined,
	idPrefix: string | undefined,
): Promise<Meaning> {
	if (given === undefined) return {};
	const searched = given.toLowerCase();
	const [, group, ofMessage, place] = ID_BEGIN.exec(searched.trim()) ?? [];
	const begin = group ?? ofMessage;
	if (idPrefix === undefined && begin !== undefined) {
		const { items } = await store.list({ idPrefix: begin }, { limit: 1 });
		if (items.length > 0) {
			return { begin, ...(place !== undefined && { index: Number(place) }) };
		}
	}
	const { targets, types, errorCodes } = await store.facets();
	const names = [...targets, ...types, ...errorCodes].filter((name) =>
		name.toLowerCase().includes(searched),
	);
	return { terms: [...new Set([searched, ...names.slice(0, MOST_NAMES)])] };
}

async function withFields<Row extends object>(
	store: CoordinatorStore,
	rows: readonly Row[],
	paths: readonly string[] | undefined,
	groupOf: (row: Row) => { readonly id: string; readonly messages: readonly MessageRecord[] },
): Promise<(Row & { readonly fields?: Fields })[]> {
	if (!paths) return [...rows] as (Row & { readonly fields?: Fields })[];
	return Promise.all(
		rows.map(async (row) => {
			const { id, messages } = groupOf(row);
			const records = await store.payloads(id);
			const payloads = messages.map(
				(message) => JSON.parse(currentOf(message, records)?.content ?? "null") as unknown,
			);
			const fields = Object.fromEntries(paths.map((path) => [path, valueOf(payloads, path)]));
			return { ...row, fields };
		}),
	);
}

/** The payload that a message has now: its revision, or the last below that a retry has raised. */
function currentOf(
	{ id, revision }: MessageRecord,
	records: readonly PayloadRecord[],
): PayloadRecord | undefined {
	return records.findLast((one) => one.message === id && one.revision <= revision);
}

function valueOf(payloads: readonly unknown[], path: string): unknown {
	const values = payloads.flatMap((payload) => valuesAt(payload, path));
	const value = values.length > 1 ? values : (values[0] ?? null);
	const written = JSON.stringify(value);
	return written.length <= LONGEST_VALUE ? value : `${written.slice(0, LONGEST_VALUE)}…`;
}

/** @throws LOTTOR_INVALID_REQUEST naming the field */
export function checkAuditQuery(given: object): { filter: AuditFilter; page: PageRequest } {
	const filter: Record<string, string> = {};
	for (const [name, value] of Object.entries(given)) {
		if (["limit", "cursor"].includes(name) || value === undefined) continue;
		if (name !== "who" && name !== "action") throw invalid(name, "is not known");
		filter[name] = text(value, name);
	}
	return { filter, page: checkPage(given) };
}

/** @throws LOTTOR_INVALID_REQUEST naming the field */
export function checkAuditEntry(item: unknown): NewAuditEntry {
	const given = record<NewAuditEntry>(item, "item");
	const or = (value: unknown, field: string, longest: number) =>
		value === undefined || value === null ? null : text(value, field, longest);
	return {
		who: text(given.who, "who"),
		action: text(given.action, "action"),
		result: text(given.result, "result"),
		why: or(given.why, "why", 1_000),
		subject: or(given.subject, "subject", 255),
		data: given.data ? auditData(given.data) : null,
	};
}

function auditData(value: unknown): Record<string, unknown> {
	const data = record<Record<string, unknown>>(value, "data");
	let written: unknown;
	try {
		written = JSON.stringify(data);
	} catch {
		// Cyclic, nested too deep, or with a bigint.
	}
	if (typeof written === "string" && written.length <= LONGEST_DATA) return data;
	throw invalid("data", `must be an object of at most ${LONGEST_DATA} characters of JSON`);
}

/** @throws LOTTOR_INVALID_REQUEST naming the field */
export function checkActivityQuery(given: {
	readonly step?: unknown;
	readonly since?: unknown;
	readonly until?: unknown;
}): { step: "minute" | "day"; since: number; until: number } {
	const { step } = given;
	if (step !== "minute" && step !== "day") throw invalid("step", 'must be "minute" or "day"');
	return { step, since: whole(given.since, "since", 0), until: whole(given.until, "until", 0) };
}

function checkPage(given: Partial<PageRequest>): PageRequest {
	const limit = given.limit === undefined ? DEFAULT_LIMIT : whole(given.limit, "limit", 1);
	if (limit > MOST) throw invalid("limit", `must be ${MOST} or less`);
	const { order } = given;
	if (order !== undefined && order !== "newest" && order !== "oldest") {
		throw invalid("order", 'must be "newest" or "oldest"');
	}
	return {
		limit,
		...(given.cursor === undefined ? {} : { cursor: text(given.cursor, "cursor", 1_000) }),
		...(order === undefined ? {} : { order }),
		...(given.scan === undefined ? {} : { scan: whole(given.scan, "scan", 1) }),
	};
}

function checkQuery<Filter>(
	given: ListRequest<object>,
	fields: readonly string[],
	states: readonly string[],
): ListQuery<Filter> {
	const filter: Record<string, unknown> = {};
	for (const [name, value] of Object.entries(given)) {
		if (PAGE_FIELDS.includes(name) || value === undefined) continue;
		if (!fields.includes(name)) throw invalid(name, "is not known");
		filter[name] = checkField(name, value, states);
	}
	const { fields: paths } = given;
	if (
		paths !== undefined &&
		!(Array.isArray(paths) && paths.length <= MOST_FIELDS && paths.every(isPath))
	) {
		throw invalid("fields", `must be an array of at most ${MOST_FIELDS} paths`);
	}
	return {
		filter: filter as Filter,
		page: checkPage(given),
		...(given.text !== undefined && { text: text(given.text, "text") }),
		...(paths && { fields: paths }),
		total: given.total === true,
	};
}

function checkField(name: string, value: unknown, states: readonly string[]): unknown {
	switch (name) {
		case "states":
			if (
				!Array.isArray(value) ||
				!value.every((state) => states.includes(state as string))
			) {
				throw invalid(name, `must be an array of ${states.join(", ")}`);
			}
			return value;
		case "conflict":
			if (typeof value !== "boolean") throw invalid(name, "must be true or false");
			return value;
		case "since":
		case "until":
		case "index":
			return whole(value, name, 0);
		default:
			return text(value, name);
	}
}
