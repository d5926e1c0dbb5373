import type { Document, Filter } from "mongodb";

import type { GroupRecord, MessageRecord, MessageState } from "../../../protocol/index.ts";
import type {
	FailureKind,
	GroupFilter,
	MessageFilter,
	MessageRow,
	Page,
	PageRequest,
	Total,
} from "../contract.ts";
import { cursorOf, limitOf, mergeRanges, placeOf } from "../pages.ts";
import type { Counters } from "./counters.ts";
import { CONFLICT, type GroupDocument, type Kept, keptOf } from "./documents.ts";
import { type Collections, INDEXES } from "./schema.ts";

/** Groups that are looked at in one go where conditions filter on top: few first, then more. */
const LOOKED = [200];
const MOST_LOOKED = 1_000;

/** To look at a group's document costs about what so many rows of an index do. */
const ROWS_A_GROUP = 8;

/** A count of messages gives up after looking at so many groups, earlier where conditions filter on top. */
const COUNT_GROUPS = 2_000;

/** Groups up to which the ranges that could answer a filter are told apart. */
const PROBED_GROUPS = 2_000;

/** Kinds of failures that are told at most. */
const MOST_KINDS = 1_000;

/** After every text that begins with the prefix: ids are ASCII. */
const AFTER = "\u{10ffff}";

/** A place in a list: lists go on from it. */
interface Place {
	readonly createdAt: number;
	readonly id: string;
	/** The message's, in lists of messages. */
	readonly index: number;
}

/** What of a filter speaks of one message. */
interface OfMessage {
	readonly index?: number | undefined;
	readonly states?: readonly MessageState[] | undefined;
	readonly target?: string | undefined;
	readonly type?: string | undefined;
	readonly errorCode?: string | undefined;
	readonly terms?: readonly string[] | undefined;
}

/** A group must have one of these facets. */
type Facets = readonly string[];

/** How a list is read: ranges of one index, walked together, and what filters on top of them. */
export interface Plan {
	/** Lists by prefix go by the id itself, all others by the time of creation and then the id. */
	readonly key: "created" | "id";
	readonly order: "newest" | "oldest";
	/** The facets whose ranges are walked; undefined: all groups, by time or by id. */
	readonly ranges: readonly (string | undefined)[];
	/** The part of each range that the filter asks for. */
	readonly within: Filter<GroupDocument>;
	/** All that a group must have. */
	readonly facets: readonly Facets[];
	/** Checked on each group of the ranges; undefined: each is a hit. */
	readonly rest: Document | undefined;
}

/** A filter in terms of facets. */
interface Wanted {
	readonly prefix: string | undefined;
	readonly since: number | undefined;
	readonly until: number | undefined;
	/** All of them must be met. */
	readonly facets: readonly Facets[];
	/** Expressions on the group that no facet has. */
	readonly more: readonly Document[];
}

/** What of a list of groups its index answers, and what it does not. */
export function wantedGroups(filter: GroupFilter): Wanted {
	const { states, source, conflict, idPrefix, target, type, errorCode, terms } = filter;
	const parts = [target, type, errorCode, terms].filter((part) => part !== undefined);
	return {
		prefix: idPrefix,
		since: filter.since,
		until: filter.until,
		facets: [
			...(conflict === true ? [[CONFLICT]] : []),
			...(states ? [states.map((state) => `state ${state}`)] : []),
			...facetsOf(filter),
			...(source === undefined ? [] : [[`source ${source}`]]),
		],
		more: [
			...(conflict === false ? [{ $eq: ["$conflict", null] }] : []),
			// Facets don't tell whether it is one message that has them all.
			...(parts.length > 1 ? [some(messagesOf({ target, type, errorCode, terms }))] : []),
		],
	};
}

/** The same of a list of messages, by their groups. */
export function wantedMessages(filter: MessageFilter): Wanted {
	const { states, source, groupPrefix, index, target, type, errorCode, terms } = filter;
	const parts = [states, target, type, errorCode, terms].filter((part) => part !== undefined);
	return {
		prefix: groupPrefix,
		since: filter.since,
		until: filter.until,
		facets: [
			...(states ? [states.map((state) => `message ${state}`)] : []),
			...facetsOf(filter),
			...(source === undefined ? [] : [[`source ${source}`]]),
		],
		// No facet tells a place, nor whether it is one message that has them all.
		more: parts.length > 1 || index !== undefined ? [some(messagesOf(filter))] : [],
	};
}

function facetsOf({ target, type, errorCode, terms }: Omit<OfMessage, "states">): Facets[] {
	const fields = ["type", "target", "error", "term"];
	return [
		...(errorCode === undefined ? [] : [[`error ${errorCode}`]]),
		...(type === undefined ? [] : [[`type ${type}`]]),
		...(target === undefined ? [] : [[`target ${target}`]]),
		...(terms
			? [[...new Set(terms)].flatMap((term) => fields.map((field) => `${field} ${term}`))]
			: []),
	];
}

/**
 * @param by which of the facets the list walks along, -1 for none: then it goes by the time alone.
 *   Lists by prefix go by the id.
 * @returns how the list is read
 */
export function planOf(wanted: Wanted, order: PageRequest["order"] = "newest", by = 0): Plan {
	const { prefix, since, until, facets, more } = wanted;
	const byId = prefix !== undefined;
	const time = {
		...(since !== undefined && { $gte: since }),
		...(until !== undefined && { $lt: until }),
	};
	const timed = since !== undefined || until !== undefined;
	const rest = [
		...facets.filter((_, place) => byId || place !== by).map(hasOneOf),
		...(byId && since !== undefined ? [{ $gte: ["$createdAt", since] }] : []),
		...(byId && until !== undefined ? [{ $lt: ["$createdAt", until] }] : []),
		...more,
	];
	const nothing = facets.some((one) => one.length === 0);
	const ranges = byId ? [undefined] : [...new Set(facets[by] ?? [undefined])];
	return {
		key: byId ? "id" : "created",
		order,
		ranges: nothing ? [] : ranges,
		within: byId
			? { _id: { $gte: prefix, $lt: prefix + AFTER } }
			: timed
				? { createdAt: time }
				: {},
		facets,
		rest: rest.length > 1 ? { $and: rest } : rest[0],
	};
}

/**
 * Plans a list along those facets that the fewest groups have, within the filter's time. Where a
 * time is given and many groups have each of them, the list goes along the time alone: every few
 * groups are a hit then.
 */
async function bestPlan(
	collections: Collections,
	wanted: Wanted,
	order?: PageRequest["order"],
): Promise<Plan> {
	const { prefix, facets } = wanted;
	const { since, until } = wanted;
	const timed = since !== undefined || until !== undefined;
	if (prefix !== undefined || facets.length + (timed ? 1 : 0) < 2) return planOf(wanted, order);
	// One bound is enough to tell, and DocumentDB is slow at counting between two.
	const probed = { ...wanted, until: since === undefined ? until : undefined };
	const counts = await Promise.all(
		facets.map((_, by) => countRange(collections, planOf(probed, order, by), PROBED_GROUPS)),
	);
	const fewest = Math.min(...counts);
	const by = timed && fewest >= PROBED_GROUPS ? -1 : counts.indexOf(fewest);
	return planOf(wanted, order, by);
}

/** How many groups the ranges have, up to `most`. */
async function countRange({ groups }: Collections, plan: Plan, most: number): Promise<number> {
	const count = (ranges: Plan["ranges"]) => {
		const { filter, hint } = rangesOf({ ...plan, ranges });
		return groups.countDocuments(filter, { hint, limit: most });
	};
	if (plan.ranges.length < 2) return plan.ranges.length === 0 ? 0 : count(plan.ranges);
	// One range that is long enough saves a look at all of them, of which a group may be in several.
	const each = await Promise.all(plan.ranges.map((range) => count([range])));
	return Math.max(...each) >= most ? most : count(plan.ranges);
}

/** All ranges of a plan at once, for what needs no order. */
function rangesOf({ ranges, within, key }: Plan) {
	const facets = ranges.length === 1 ? ranges[0] : { $in: ranges };
	const filter = { ...(facets !== undefined && { facets }), ...within } as Filter<GroupDocument>;
	return { filter, hint: hintOf(key, facets !== undefined) };
}

function hintOf(key: Plan["key"], byFacet: boolean) {
	if (key === "id") return BY_ID;
	return byFacet ? INDEXES.facets.key : INDEXES.created.key;
}

const BY_ID = { _id: 1 } as const;

/** The query for the next groups of a range, exported for the test that looks at how it is answered. */
export function queryOf(
	plan: Plan,
	range: string | undefined,
	after: Omit<Place, "index"> | undefined,
	inclusive: boolean,
) {
	const newest = plan.order === "newest";
	const way = newest ? -1 : 1;
	const strictly = newest ? "$lt" : "$gt";
	const beyond = inclusive ? (newest ? "$lte" : "$gte") : strictly;
	const { within, key } = plan;
	if (key === "id") {
		const and = after ? [within, { _id: { [beyond]: after.id } }] : [within];
		const filter = { $and: and } as Filter<GroupDocument>;
		return { filter, sort: { _id: way } as const, hint: BY_ID };
	}
	const and = [
		{ ...(range !== undefined && { facets: range }), ...within },
		...(after
			? [
					{ createdAt: { [newest ? "$lte" : "$gte"]: after.createdAt } },
					{
						$or: [
							{ createdAt: { [strictly]: after.createdAt } },
							{ _id: { [beyond]: after.id } },
						],
					},
				]
			: []),
	];
	const filter = { $and: and } as Filter<GroupDocument>;
	const hint = hintOf(key, range !== undefined);
	return { filter, sort: { createdAt: way, _id: way } as const, hint };
}

/** A group of a range; its document is there where it was needed to know whether it is a hit. */
interface Row {
	readonly createdAt: number;
	readonly _id: string;
	readonly hit: boolean;
	readonly document?: GroupDocument;
}

async function rowsOf(
	{ groups }: Collections,
	plan: Plan,
	range: string | undefined,
	after: Place | undefined,
	size: number,
	inclusive: boolean,
): Promise<Row[]> {
	const { filter, sort, hint } = queryOf(plan, range, after, inclusive);
	if (!plan.rest) {
		const found = await groups.find(filter).hint(hint).sort(sort).limit(size).toArray();
		return found.map((document) => {
			const { createdAt, _id } = document;
			return { createdAt, _id, hit: true, document };
		});
	}
	return groups
		.aggregate<Row>(
			[
				{ $match: filter },
				{ $sort: sort },
				{ $limit: size },
				{ $project: { createdAt: 1, hit: plan.rest } },
			],
			{ hint },
		)
		.toArray();
}

/** One stretch of a list. */
interface Stretch<T> {
	readonly items: { readonly item: T; readonly place: Place }[];
	/** Where to go on; undefined at the end of the list. */
	readonly next: Place | undefined;
	/** Groups looked at. */
	readonly looked: number;
}

/** Looks at the next groups of a plan, `size` of each range; each hit gives its entries of the list. */
async function look<T>(
	collections: Collections,
	plan: Plan,
	after: Place | undefined,
	wanted: number,
	size: number,
	entries: (kept: Kept) => { readonly item: T; readonly index: number }[],
	inclusive: boolean,
): Promise<Stretch<T>> {
	const newest = plan.order === "newest";
	const sign = newest ? -1 : 1;
	const compare = (a: Row, b: Row) => {
		const order = plan.key === "id" ? 0 : a.createdAt - b.createdAt;
		return sign * (order || (a._id < b._id ? -1 : a._id > b._id ? 1 : 0));
	};
	const found = await Promise.all(
		plan.ranges.map((range) => rowsOf(collections, plan, range, after, size, inclusive)),
	);
	const { rows, edge } = mergeRanges(found, size, compare);
	const all = rows.filter(({ hit }) => hit);
	const hits = all.slice(0, wanted);
	const documents = await documentsOf(collections, hits);
	const items = hits.flatMap((row) => {
		const document = documents.get(row._id);
		// It may have changed since, or be gone.
		if (!document || !plan.facets.every((one) => isOneOf(document, one))) return [];
		const { createdAt, _id: id } = row;
		return entries(keptOf(document)).flatMap(({ item, index }) => {
			const seen = newest ? index >= (after?.index ?? 0) : index <= (after?.index ?? 0);
			const skip = inclusive && after !== undefined && id === after.id && seen;
			return skip ? [] : [{ item, place: { createdAt, id, index } }];
		});
	});
	const last = all.length > hits.length ? hits.at(-1) : edge;
	const next = last && {
		createdAt: last.createdAt,
		id: last._id,
		// Beyond every message of the group.
		index: newest ? -1 : Number.MAX_SAFE_INTEGER,
	};
	return { items, next, looked: found.reduce((sum, one) => sum + one.length, 0) };
}

async function documentsOf(
	{ groups }: Collections,
	rows: readonly Row[],
): Promise<ReadonlyMap<string, GroupDocument>> {
	const missing = rows.flatMap(({ _id, document }) => (document ? [] : [_id]));
	const read = missing.length === 0 ? [] : await groups.find({ _id: { $in: missing } }).toArray();
	const known = rows.flatMap(({ document }) => document ?? []);
	return new Map([...known, ...read].map((document) => [document._id, document]));
}

async function pageOf<T>(
	collections: Collections,
	wanted: Wanted,
	page: PageRequest,
	entries: (kept: Kept) => { readonly item: T; readonly index: number }[],
	inclusive: boolean,
): Promise<Page<T>> {
	const limit = limitOf(page);
	const own = planOf(wanted, page.order);
	const begin = page.cursor === undefined ? undefined : read(page.cursor, own, inclusive);
	let after = begin;
	const plan = await bestPlan(collections, wanted, page.order);
	const found: { item: T; place: Place }[] = [];
	let looked = 0;
	// One more than asked for tells whether there is a next page.
	for (let round = 0; found.length <= limit; round++) {
		if (round === 1 && plan.rest) {
			// From the begin again: DocumentDB sorts a range that is entered in its middle.
			after = begin;
			found.length = 0;
		}
		// Lists of messages begin with the group that the page before ended in.
		const missing = limit + 1 - found.length + (inclusive ? 1 : 0);
		const size = plan.rest ? Math.max(missing, LOOKED[round] ?? MOST_LOOKED) : missing;
		const stretch = await look(collections, plan, after, missing, size, entries, inclusive);
		found.push(...stretch.items);
		looked += stretch.looked * ROWS_A_GROUP;
		after = stretch.next;
		if (!after) break;
		if (found.length <= limit && looked >= (page.scan ?? Infinity)) {
			return { items: found.map(({ item }) => item), next: write(after, plan, inclusive) };
		}
	}
	const items = found.slice(0, limit).map(({ item }) => item);
	const last = found[limit - 1];
	return found.length > limit && last
		? { items, next: write(last.place, plan, inclusive) }
		: { items };
}

function write({ createdAt, id, index }: Place, plan: Plan, ofMessages: boolean): string {
	const group = plan.key === "id" ? [id] : [createdAt, id];
	return cursorOf(ofMessages ? [...group, index] : group);
}

function read(cursor: string, plan: Plan, ofMessages: boolean): Place {
	const kinds = [
		...(plan.key === "id" ? [] : ["number"]),
		"string",
		...(ofMessages ? ["number"] : []),
	];
	const place = placeOf(cursor, (one): one is (string | number)[] => {
		const fits = (value: unknown, at: number) =>
			typeof value === kinds[at] &&
			(typeof value === "string" || Number.isSafeInteger(value));
		return one.length === kinds.length && one.every(fits);
	});
	const [createdAt, id, index] = plan.key === "id" ? [0, ...place] : place;
	return { createdAt: Number(createdAt), id: String(id), index: Number(index ?? 0) };
}

/**
 * Newest or oldest first.
 *
 * @throws LOTTOR_INVALID_REQUEST when the cursor or the limit (1 to 1000) is wrong
 */
export function listGroups(
	collections: Collections,
	filter: GroupFilter,
	page: PageRequest,
): Promise<Page<GroupRecord>> {
	const entries = (kept: Kept) => groupEntry(filter, kept);
	return pageOf(collections, wantedGroups(filter), page, entries, false);
}

/**
 * By group, the last message first within one where the newest comes first.
 *
 * @throws LOTTOR_INVALID_REQUEST when the cursor or the limit (1 to 1000) is wrong
 */
export function listMessages(
	collections: Collections,
	filter: MessageFilter,
	page: PageRequest,
): Promise<Page<MessageRow>> {
	const entries = (kept: Kept) => messageEntries(filter, page.order, kept);
	return pageOf(collections, wantedMessages(filter), page, entries, true);
}

/** Counts up to `most`; gives up early where that takes a look at many groups. */
export async function countGroups(
	collections: Collections,
	filter: GroupFilter,
	most: number,
): Promise<Total> {
	const plan = await bestPlan(collections, wantedGroups(filter));
	if (plan.ranges.length === 0) return { count: 0, exact: true };
	if (plan.rest) return count(collections, plan, most, 1);
	const found = await countRange(collections, plan, most + 1);
	return found > most ? { count: most, exact: false } : { count: found, exact: true };
}

export async function countMessages(
	collections: Collections,
	filter: MessageFilter,
	most: number,
): Promise<Total> {
	const plan = await bestPlan(collections, wantedMessages(filter));
	if (plan.ranges.length === 0) return { count: 0, exact: true };
	return count(collections, plan, most, { $size: messagesOf(filter) });
}

/** @param entries expression of how many entries of the list a hit is */
async function count(
	{ groups }: Collections,
	plan: Plan,
	most: number,
	entries: Document | number,
): Promise<Total> {
	const { filter, hint } = rangesOf(plan);
	const limit = plan.rest ? MOST_LOOKED : COUNT_GROUPS;
	const sum = plan.rest ? { $cond: [plan.rest, entries, 0] } : entries;
	const [told] = await groups
		.aggregate<{ looked: number; count: number }>(
			[
				{ $match: filter },
				{ $limit: limit },
				{ $group: { _id: null, looked: { $sum: 1 }, count: { $sum: sum } } },
			],
			{ hint },
		)
		.toArray();
	const { looked = 0, count: found = 0 } = told ?? {};
	if (found > most) return { count: most, exact: false };
	return { count: found, exact: looked < limit };
}

/** Failed messages by target, type and error code, most first, each with its newest one. */
export async function countFailures(
	{ groups }: Collections,
	counters: Counters,
): Promise<FailureKind[]> {
	const kinds = await counters.failures(MOST_KINDS);
	const found = await Promise.all(
		kinds.map(async ({ messages, ...kind }): Promise<FailureKind[]> => {
			const [newest] = await groups
				.find({ facets: `error ${kind.errorCode}`, failed: { $elemMatch: kind } })
				.hint(INDEXES.facets.key)
				.sort({ createdAt: -1, _id: -1 })
				.limit(1)
				.toArray();
			const index = newest?.failed?.findLast(
				({ target, type, errorCode }) =>
					target === kind.target && type === kind.type && errorCode === kind.errorCode,
			)?.index;
			if (!newest || index === undefined) return [];
			const { group } = keptOf(newest);
			const message = group.messages[index];
			return message ? [{ ...kind, messages, newest: rowOf(group, message) }] : [];
		}),
	);
	return found.flat();
}

function groupEntry(filter: GroupFilter, { group, beside }: Kept) {
	const { target, type, errorCode, terms } = filter;
	const ofMessage = [target, type, errorCode, terms].some((part) => part !== undefined);
	const hit = !ofMessage || group.messages.some((message) => fits(filter, message, beside));
	return hit ? [{ item: group, index: 0 }] : [];
}

function messageEntries(filter: MessageFilter, order: PageRequest["order"], kept: Kept) {
	const { group, beside } = kept;
	const { states, index } = filter;
	const hits = group.messages
		.filter((message) => index === undefined || message.index === index)
		.filter((message) => states?.includes(message.state) ?? true)
		.filter((message) => fits(filter, message, beside))
		.map((message) => ({ item: rowOf(group, message), index: message.index }));
	return order === "oldest" ? hits : hits.reverse();
}

function rowOf(group: GroupRecord, message: MessageRecord): MessageRow {
	const { id, state, source, createdAt } = group;
	return { ...message, group: id, groupState: state, source, createdAt };
}

function fits(
	filter: Omit<OfMessage, "states">,
	message: MessageRecord,
	beside: Kept["beside"],
): boolean {
	const { target, type, errorCode, terms } = filter;
	const own = () => [
		message.target,
		message.type,
		message.error?.code,
		...(beside[message.index]?.terms ?? []),
	];
	return (
		(target ?? message.target) === message.target &&
		(type ?? message.type) === message.type &&
		(errorCode === undefined || message.error?.code === errorCode) &&
		(terms === undefined || own().some((one) => one !== undefined && terms.includes(one)))
	);
}

/** An expression: the messages of the group that fulfil what the filter says of one. */
function messagesOf({ index, states, target, type, errorCode, terms }: OfMessage): Document {
	const is = (field: string, value: string) => ({
		$eq: [`$$this.${field}`, { $literal: value }],
	});
	const among = (field: string, values: readonly string[]) => ({
		$in: [`$$this.${field}`, { $literal: values }],
	});
	const conditions = [
		...(states ? [among("state", states)] : []),
		...(target === undefined ? [] : [is("target", target)]),
		...(type === undefined ? [] : [is("type", type)]),
		...(errorCode === undefined ? [] : [is("error.code", errorCode)]),
		...(terms
			? [
					{
						$or: [
							among("target", terms),
							among("type", terms),
							among("error.code", terms),
							some({ $setIntersection: ["$$this.terms", { $literal: terms }] }),
						],
					},
				]
			: []),
	];
	const all = { $objectToArray: "$messages" };
	const at = { $filter: { input: all, as: "this", cond: { $eq: ["$$this.k", `${index}`] } } };
	const messages = { $map: { input: index === undefined ? all : at, in: "$$this.v" } };
	return { $filter: { input: messages, as: "this", cond: { $and: conditions } } };
}

function hasOneOf(facets: Facets): Document {
	return facets.length === 1
		? { $in: [{ $literal: facets[0] }, "$facets"] }
		: some({ $setIntersection: ["$facets", { $literal: facets }] });
}

function isOneOf(document: GroupDocument, facets: Facets): boolean {
	return facets.some((facet) => document.facets.includes(facet));
}

function some(array: Document): Document {
	return { $gt: [{ $size: array }, 0] };
}
