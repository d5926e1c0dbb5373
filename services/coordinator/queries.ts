import type {
	CoordinatorStore,
	GroupFilter,
	MessageFilter,
	PageRequest,
} from "../../adapters/coordinator-store/index.ts";
import {
	GROUP_STATES,
	type GroupRecord,
	MESSAGE_STATES,
	type PayloadRecord,
	type TimelineEntry,
} from "../../protocol/index.ts";
import { invalid, text, whole } from "./intake.ts";

/** A group with all that is known of it. */
export interface GroupView {
	readonly group: GroupRecord;
	/** Former revisions too, by message and revision; JSON text. */
	readonly payloads: readonly PayloadRecord[];
	/** What the caller's context was, as JSON text. */
	readonly context: string;
	readonly timeline: readonly TimelineEntry[];
}

const DEFAULT_LIMIT = 50;
const MOST = 1_000;
const PAGE_FIELDS = ["limit", "cursor"];
const GROUP_FIELDS = [
	"states",
	"source",
	"target",
	"type",
	"idPrefix",
	"conflict",
	"since",
	"until",
];
const MESSAGE_FIELDS = [
	"states",
	"source",
	"target",
	"type",
	"errorCode",
	"groupPrefix",
	"since",
	"until",
];

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
export function checkGroupQuery(given: object): {
	filter: GroupFilter;
	page: PageRequest;
} {
	const filter = checkFilter(given, GROUP_FIELDS, GROUP_STATES);
	return { filter, page: checkPage(given) };
}

/** @throws LOTTOR_INVALID_REQUEST naming the field */
export function checkMessageQuery(given: object): {
	filter: MessageFilter;
	page: PageRequest;
} {
	const filter = checkFilter(given, MESSAGE_FIELDS, MESSAGE_STATES);
	return { filter, page: checkPage(given) };
}

function checkPage(given: Partial<PageRequest>): PageRequest {
	const limit = given.limit === undefined ? DEFAULT_LIMIT : whole(given.limit, "limit", 1);
	if (limit > MOST) throw invalid("limit", `must be ${MOST} or less`);
	return {
		limit,
		...(given.cursor === undefined ? {} : { cursor: text(given.cursor, "cursor", 1_000) }),
	};
}

function checkFilter(
	given: object,
	fields: readonly string[],
	states: readonly string[],
): Record<string, never> {
	const filter: Record<string, unknown> = {};
	for (const [name, value] of Object.entries(given)) {
		if (PAGE_FIELDS.includes(name) || value === undefined) continue;
		if (!fields.includes(name)) throw invalid(name, "is not known");
		filter[name] = checkField(name, value, states);
	}
	return filter as Record<string, never>;
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
			return whole(value, name, 0);
		default:
			return text(value, name);
	}
}
