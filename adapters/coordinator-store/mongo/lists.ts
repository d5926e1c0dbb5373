import type { Filter } from "mongodb";

import type { GroupRecord, MessageRecord } from "../../../protocol/index.ts";
import type {
	FailureKind,
	GroupFilter,
	MessageFilter,
	MessageRow,
	Page,
	PageRequest,
	Total,
} from "../contract.ts";
import { cursorOf, limitOf, placeOf } from "../pages.ts";
import {
	ALL,
	CONFLICT,
	type FailedMessage,
	type GroupDocument,
	type Kept,
	keptOf,
} from "./documents.ts";
import { type Collections, INDEXES } from "./schema.ts";

/** Groups that are looked at in one go where conditions filter on top of the index. */
const SCAN_GROUPS = 200;

/** A count gives up after looking at so many groups. */
const COUNT_GROUPS = 10_000;

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

/** How a list is read: a range of one index, and what filters on top of it. */
export interface Plan {
	/** Lists by prefix go by the id itself, all others by the time of creation and then the id. */
	readonly key: "created" | "id";
	readonly order: "newest" | "oldest";
	readonly filter: Filter<GroupDocument>;
	/** Whether groups that the filter lets through may have no entry in the list. */
	readonly sparse: boolean;
	/** Nothing can be found. */
	readonly empty: boolean;
}

/** What of a filter speaks of one message. */
type OfMessage = Pick<MessageFilter, "target" | "type" | "errorCode" | "terms">;

/**
 * Plans a list of groups: by `_id` where a prefix is given, else by the index on facets. Conditions
 * on a group are facets of it; several that speak of one message filter on top.
 */
export function planGroups(filter: GroupFilter, order: PageRequest["order"]): Plan {
	const { states, source, conflict, target, type, errorCode, terms } = filter;
	const facets = [
		...(conflict === true ? [[CONFLICT]] : []),
		...(states ? [states.map((state) => `state ${state}`)] : []),
		...(source === undefined ? [] : [[`source ${source}`]]),
		...facetsOf(filter),
	];
	const parts = [target, type, errorCode, terms].filter((part) => part !== undefined);
	const more = conflict === false ? { conflict: null } : {};
	return planOf(filter.idPrefix, facets, filter, more, order, parts.length > 1);
}

/** Plans a list of messages, by their groups: see {@link planGroups}. */
export function planMessages(filter: MessageFilter, order: PageRequest["order"]): Plan {
	const { states, source } = filter;
	const facets = [
		...(states ? [states.map((state) => `message ${state}`)] : []),
		...(source === undefined ? [] : [[`source ${source}`]]),
		...facetsOf(filter),
	];
	return planOf(filter.groupPrefix, facets, filter, {}, order, true);
}

function facetsOf({ target, type, errorCode, terms }: OfMessage): string[][] {
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

function planOf(
	prefix: string | undefined,
	facets: readonly (readonly string[])[],
	{ since, until }: { readonly since?: number; readonly until?: number },
	more: Filter<GroupDocument>,
	order: PageRequest["order"] = "newest",
	sparse: boolean,
): Plan {
	const byId = prefix !== undefined;
	const conditions = byId || facets.length > 0 ? facets : [[ALL]];
	const and = conditions.map((one) => ({ facets: one.length === 1 ? one[0] : { $in: one } }));
	const [first = {}, ...rest] = and;
	const filter = {
		...(byId && { _id: { $gte: prefix, $lt: prefix + AFTER } }),
		...first,
		...(rest.length > 0 && { $and: rest }),
		...((since !== undefined || until !== undefined) && {
			createdAt: {
				...(since !== undefined && { $gte: since }),
				...(until !== undefined && { $lt: until }),
			},
		}),
		...more,
	} as Filter<GroupDocument>;
	const empty = facets.some((one) => one.length === 0);
	return { key: byId ? "id" : "created", order, filter, sparse, empty };
}

/** The query for the next groups of a plan, exported for the test that looks at how it is answered. */
export function queryOf(plan: Plan, after: Omit<Place, "index"> | undefined, inclusive: boolean) {
	const newest = plan.order === "newest";
	const way = newest ? -1 : 1;
	const strictly = newest ? "$lt" : "$gt";
	const beyond = inclusive ? (newest ? "$lte" : "$gte") : strictly;
	const filter: Filter<GroupDocument>[] = [plan.filter];
	if (after && plan.key === "id") filter.push({ _id: { [beyond]: after.id } });
	if (after && plan.key === "created") {
		const { createdAt, id } = after;
		filter.push({ createdAt: { [newest ? "$lte" : "$gte"]: createdAt } });
		filter.push({ $or: [{ createdAt: { [strictly]: createdAt } }, { _id: { [beyond]: id } }] });
	}
	const query = filter.length === 1 ? plan.filter : { $and: filter };
	return plan.key === "id"
		? { filter: query, sort: { _id: way } as const, hint: { _id: 1 } as const }
		: { filter: query, sort: { createdAt: way, _id: way } as const, hint: INDEXES.facets.key };
}

/** One stretch of a list. */
interface Stretch<T> {
	readonly items: { readonly item: T; readonly place: Place }[];
	/** Where to go on; undefined at the end of the list. */
	readonly next: Place | undefined;
	/** Groups looked at. */
	readonly looked: number;
}

/** Looks at the next groups of a plan; each gives its entries of the list, in order. */
async function look<T>(
	collections: Collections,
	plan: Plan,
	after: Place | undefined,
	wanted: number,
	entries: (kept: Kept) => { readonly item: T; readonly index: number }[],
	inclusive: boolean,
): Promise<Stretch<T>> {
	const size = plan.sparse ? Math.min(Math.max(wanted, SCAN_GROUPS), 2 * SCAN_GROUPS) : wanted;
	const { filter, sort, hint } = queryOf(plan, after, inclusive);
	const documents = await collections.groups
		.find(filter)
		.hint(hint)
		.sort(sort)
		.limit(size)
		.toArray();
	const items: { item: T; place: Place }[] = [];
	let next: Place | undefined;
	for (const document of documents) {
		const { createdAt, _id: id } = document;
		for (const { item, index } of entries(keptOf(document))) {
			const newest = plan.order === "newest";
			const seen = newest ? index >= (after?.index ?? 0) : index <= (after?.index ?? 0);
			if (inclusive && after && id === after.id && seen) continue;
			items.push({ item, place: { createdAt, id, index } });
		}
		// Beyond every message of the group.
		next = { createdAt, id, index: plan.order === "newest" ? -1 : Number.MAX_SAFE_INTEGER };
	}
	return { items, next: documents.length < size ? undefined : next, looked: documents.length };
}

async function pageOf<T>(
	collections: Collections,
	plan: Plan,
	page: PageRequest,
	entries: (kept: Kept) => { readonly item: T; readonly index: number }[],
	inclusive: boolean,
): Promise<Page<T>> {
	const limit = limitOf(page);
	let after = page.cursor === undefined ? undefined : read(page.cursor, plan, inclusive);
	if (plan.empty) return { items: [] };
	const found: { item: T; place: Place }[] = [];
	let looked = 0;
	// One more than asked for tells whether there is a next page.
	while (found.length <= limit) {
		const wanted = limit + 1 - found.length;
		const stretch = await look(collections, plan, after, wanted, entries, inclusive);
		found.push(...stretch.items);
		looked += stretch.looked;
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
	const plan = planGroups(filter, page.order);
	return pageOf(collections, plan, page, (kept) => groupEntry(filter, plan, kept), false);
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
	const plan = planMessages(filter, page.order);
	return pageOf(collections, plan, page, (kept) => messageEntries(filter, plan, kept), true);
}

/** Counts up to `most`; gives up early where that takes a look at many groups. */
export async function countGroups(
	collections: Collections,
	filter: GroupFilter,
	most: number,
): Promise<Total> {
	const plan = planGroups(filter, "newest");
	if (plan.sparse) {
		return count(collections, plan, most, (kept) => groupEntry(filter, plan, kept).length);
	}
	if (plan.empty) return { count: 0, exact: true };
	const { filter: query, hint } = queryOf(plan, undefined, false);
	const found = await collections.groups.countDocuments(query, { hint, limit: most + 1 });
	return found > most ? { count: most, exact: false } : { count: found, exact: true };
}

export function countMessages(
	collections: Collections,
	filter: MessageFilter,
	most: number,
): Promise<Total> {
	const plan = planMessages(filter, "newest");
	return count(collections, plan, most, (kept) => messageEntries(filter, plan, kept).length);
}

async function count(
	collections: Collections,
	plan: Plan,
	most: number,
	entries: (kept: Kept) => number,
): Promise<Total> {
	if (plan.empty) return { count: 0, exact: true };
	const { filter, sort, hint } = queryOf(plan, undefined, false);
	const found = collections.groups.find(filter).hint(hint).sort(sort).limit(COUNT_GROUPS);
	let total = 0;
	let looked = 0;
	for await (const document of found) {
		looked++;
		total += entries(keptOf(document));
		if (total > most) return { count: most, exact: false };
	}
	return { count: total, exact: looked < COUNT_GROUPS };
}

/** Failed messages by target, type and error code, most first. */
export async function countFailures(collections: Collections): Promise<FailureKind[]> {
	const kinds = await collections.groups
		.aggregate<{
			_id: Omit<FailedMessage, "index">;
			messages: number;
			group: string;
			index: number;
		}>(
			[
				{ $match: { facets: "message failed" } },
				{ $sort: { createdAt: 1, _id: 1 } },
				{ $unwind: "$failed" },
				{
					$group: {
						_id: {
							target: "$failed.target",
							type: "$failed.type",
							errorCode: "$failed.errorCode",
						},
						messages: { $sum: 1 },
						group: { $last: "$_id" },
						index: { $last: "$failed.index" },
					},
				},
				{ $sort: { messages: -1, _id: 1 } },
				{ $limit: MOST_KINDS },
			],
			{ hint: INDEXES.facets.key },
		)
		.toArray();
	const groups = await collections.groups
		.find({ _id: { $in: [...new Set(kinds.map(({ group }) => group))] } })
		.toArray();
	const byId = new Map(groups.map((document) => [document._id, keptOf(document).group]));
	return kinds.flatMap(({ _id, messages, group: id, index }) => {
		const group = byId.get(id);
		const message = group?.messages[index];
		if (!group || !message) return [];
		return [{ ..._id, messages, newest: rowOf(group, message) }];
	});
}

function groupEntry(filter: GroupFilter, plan: Plan, kept: Kept) {
	const hit = !plan.sparse || kept.group.messages.some((message) => fits(filter, message, kept));
	return hit ? [{ item: kept.group, index: 0 }] : [];
}

function messageEntries(filter: MessageFilter, plan: Plan, kept: Kept) {
	const { group } = kept;
	const { states } = filter;
	const hits = group.messages
		.filter((message) => states?.includes(message.state) ?? true)
		.filter((message) => fits(filter, message, kept))
		.map((message) => ({ item: rowOf(group, message), index: message.index }));
	return plan.order === "newest" ? hits.reverse() : hits;
}

function rowOf(group: GroupRecord, message: MessageRecord): MessageRow {
	const { id, state, source, createdAt } = group;
	return { ...message, group: id, groupState: state, source, createdAt };
}

function fits(filter: OfMessage, message: MessageRecord, { beside }: Kept): boolean {
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
