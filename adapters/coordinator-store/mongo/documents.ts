import {
	due,
	type DueKind,
	type GroupRecord,
	type MessageRecord,
	type MessageState,
	messageId,
	type NewEntry,
	type NewGroup,
	type TimelineEntry,
} from "../../../protocol/index.ts";
import { slotOf } from "../contract.ts";

/** A line of the timeline as it is stored: `message` is the message's place. */
export interface StoredEntry extends Omit<TimelineEntry, "group" | "message"> {
	readonly message: number | null;
}

/** A message within its group's document. */
interface MessageDocument extends Omit<MessageRecord, "id" | "index"> {
	/** Keys of its payloads' documents, the current one last. */
	readonly bodies: readonly string[];
	/** What it is found by, besides its fields. */
	readonly terms: readonly string[];
}

/** A failed message, as failures are counted by. */
export interface FailedMessage {
	readonly index: number;
	readonly target: string;
	readonly type: string;
	readonly errorCode: string;
}

/** What the document has for its indexes, made of the group each time that it is written. */
interface Derived {
	/** What lists look for. */
	readonly facets: readonly string[];
	/** Messages by state. */
	readonly tally: Partial<Record<MessageState, number>>;
	/** What is due next, not before the lease ends. */
	readonly due?: { readonly kind: DueKind; readonly at: number };
	/** What makes it due at once. */
	readonly wakes?: readonly string[];
	/** Since when it may be purged. */
	readonly purge?: { readonly state: string; readonly since: number };
	/** Its failed messages. */
	readonly failed?: readonly FailedMessage[];
	/** Pending and delivering messages. */
	readonly backlog?: readonly { readonly target: string; readonly since: number }[];
}

/** A group as one document: ids and states, what was told last, and fields for the indexes. */
export interface GroupDocument extends Omit<GroupRecord, "id" | "messages">, Derived {
	readonly _id: string;
	/** By place; an array's elements can't be set one by one in a pipeline. */
	readonly messages: Readonly<Record<string, MessageDocument>>;
	readonly slot: number;
	/** Names the write that made it what it is. */
	readonly stamp: string;
	/** Names the claim that holds it. */
	readonly grip?: string;
	/** Entries of the last writes that may not be in the timeline yet. */
	readonly told: readonly StoredEntry[];
}

/** One payload. The first one of a group brings the group's context along. */
export interface PayloadDocument {
	/** `<group>.<index>.<revision>.<token>`: what another content of the same place has never. */
	readonly _id: string;
	readonly group: string;
	readonly revision: number;
	readonly content: string;
	readonly context?: string;
}

export interface EntryDocument extends StoredEntry {
	/** `<group>.<version>.<place>`: writing it twice changes nothing. */
	readonly _id: string;
	readonly group: string;
}

/** What is stored with a message and is not in its record. */
export interface Beside {
	/** Keys of its payloads' documents, the current one last. */
	readonly bodies: readonly string[];
	readonly terms: readonly string[];
}

/** A group as it was read or written last; `beside` by message. */
export interface Kept {
	readonly group: GroupRecord;
	readonly beside: readonly Beside[];
	readonly told: readonly StoredEntry[];
}

export const CONFLICT = "conflict";

const TOKEN_LENGTH = 16;
const NOTHING: Beside = { bodies: [], terms: [] };

/** @returns the key of a payload's document */
export function bodyKey(group: string, index: number, revision: number, token: string): string {
	return `${group}.${index}.${revision}.${token.slice(0, TOKEN_LENGTH)}`;
}

/** The documents of a new group's payloads; a message that has none still brings the context. */
export function payloadsOf(item: NewGroup): PayloadDocument[] {
	const { id, hash, context } = item;
	const documents = item.messages.map(({ content }, index): PayloadDocument => ({
		_id: bodyKey(id, index, 0, hash),
		group: id,
		revision: 0,
		content,
		...(index === 0 && { context }),
	}));
	return documents.length > 0
		? documents
		: [{ _id: bodyKey(id, 0, 0, hash), group: id, revision: 0, content: "", context }];
}

/** @returns the key of the document that has the group's context */
export function contextKey({ id, hash }: GroupRecord): string {
	return bodyKey(id, 0, 0, hash);
}

/** @returns a range of keys that begin with the group's id */
export function keysOf(group: string): { $gte: string; $lt: string } {
	// The dot's successor.
	return { $gte: `${group}.`, $lt: `${group}/` };
}

/** Entries of one write, in their places. */
export function storedEntries(
	group: GroupRecord,
	entries: readonly NewEntry[],
	at: number,
): StoredEntry[] {
	return entries.map((entry, place) => ({
		...entry,
		message: entry.message === null ? null : Number(entry.message.slice(group.id.length + 1)),
		at,
		version: group.version,
		place,
	}));
}

export function entryDocument(group: string, entry: StoredEntry): EntryDocument {
	return { _id: `${group}.${entry.version}.${entry.place}`, group, ...entry };
}

export function entryOf(group: string, stored: StoredEntry | EntryDocument): TimelineEntry {
	const { at, version, place, event, from, to, by, why, data, message } = stored;
	return {
		group,
		message: message === null ? null : messageId(group, message),
		at,
		version,
		place,
		event,
		from,
		to,
		by,
		why,
		data,
	};
}

/** The document of a new group. */
export function documentOf(kept: Kept, stamp: string): GroupDocument {
	const { group, beside, told } = kept;
	const { id, messages, ...fields } = group;
	const list = messages.map(({ id: _id, index, ...message }) => [
		index,
		{ ...message, ...(beside[index] ?? NOTHING) },
	]);
	return {
		_id: id,
		...fields,
		messages: Object.fromEntries(list) as Record<string, MessageDocument>,
		slot: slotOf(id),
		stamp,
		told,
		...derive(kept),
	};
}

/** Fields of the record that its document has as they are. */
const FIELDS = [
	"version",
	"epoch",
	"state",
	"source",
	"storeId",
	"guarantee",
	"owner",
	"hash",
	"idempotencyKey",
	"createdAt",
	"stateAt",
	"checkAt",
	"checks",
	"unknowns",
	"waiting",
	"conflict",
	"leaseOwner",
	"leaseUntil",
] as const satisfies readonly Exclude<keyof GroupRecord, "id" | "messages">[];

/** Reads a document back. */
export function keptOf(document: GroupDocument): Kept {
	const { _id, messages, told } = document;
	const beside: Beside[] = [];
	const list = Object.values(messages).map((stored, index): MessageRecord => {
		const { bodies, terms, ...message } = stored;
		beside.push({ bodies, terms });
		return { id: messageId(_id, index), index, ...message };
	});
	const fields = FIELDS.map((name) => [name, document[name]]);
	const group = { id: _id, ...Object.fromEntries(fields), messages: list } as GroupRecord;
	return { group, beside, told };
}

function derive({ group, beside }: Kept): Derived {
	const facets = new Set([`state ${group.state}`, `source ${group.source}`]);
	const wakes = new Set<string>();
	const tally: Partial<Record<MessageState, number>> = {};
	const backlog: { target: string; since: number }[] = [];
	const failed: FailedMessage[] = [];
	if (group.conflict !== null) facets.add(CONFLICT);
	for (const { index, state, target, type, error, parked, stateAt } of group.messages) {
		facets.add(`target ${target}`).add(`type ${type}`).add(`message ${state}`);
		if (error) facets.add(`error ${error.code}`);
		for (const term of beside[index]?.terms ?? []) facets.add(`term ${term}`);
		if (state === "failed" && error)
			failed.push({ index, target, type, errorCode: error.code });
		if (parked) wakes.add(`target ${target}`);
		if (state === "pending" || state === "delivering") backlog.push({ target, since: stateAt });
		tally[state] = (tally[state] ?? 0) + 1;
	}
	if (group.checkAt !== null && (group.state === "inDoubt" || group.waiting !== null)) {
		wakes.add(`store ${group.storeId}`);
	}
	const next = due(group);
	const { state, stateAt: since } = group;
	const over = (state === "completed" || state === "rolledBack") && group.conflict === null;
	return {
		facets: [...facets],
		tally,
		...(next && { due: next }),
		...(wakes.size > 0 && { wakes: [...wakes] }),
		...(over && { purge: { state, since } }),
		...(failed.length > 0 && { failed }),
		...(backlog.length > 0 && { backlog }),
	};
}

/** How the times of a write are told: by the store's server, or, in tests, as they are. */
export type Times = "server" | "given";

const NOW = { $toLong: "$$NOW" };

/** One write of a group. */
export interface Write {
	/** The time by which it was thought out. */
	readonly now: number;
	/** Names the write. */
	readonly stamp: string;
	/** Names the claim, where it is one. */
	readonly grip?: string;
	/**
	 * The group stays as it is unless it is due by the server's clock: for claims, which change no
	 * single message. It can't be a condition of the filter, where some engines refuse `$$NOW`.
	 */
	readonly onlyDue?: boolean;
}

/**
 * The update that makes of one state of a group the next, as a pipeline. Times that the transition
 * has set become the server's own now and the time from `now` to them (R19).
 */
export function updateOf(before: Kept, after: Kept, write: Write, times: Times): object[] {
	const known = timesOf(before.group);
	const moment = (at: number) => {
		if (times === "given" || known.has(at)) return at;
		return at === write.now ? NOW : { $add: [NOW, at - write.now] };
	};
	const set: Record<string, unknown> = {
		stamp: write.stamp,
		told: { $literal: after.told },
		...(write.grip !== undefined && { grip: write.grip }),
	};
	const groupTimes = ["stateAt", "checkAt", "leaseUntil"] as const;
	for (const [name, value] of Object.entries(after.group)) {
		if (name === "messages" || before.group[name as keyof GroupRecord] === value) continue;
		const isTime = (groupTimes as readonly string[]).includes(name) && value !== null;
		set[name] = isTime ? moment(value as number) : literal(value);
	}
	after.group.messages.forEach((message, index) => {
		const path = `messages.${index}`;
		const old = before.group.messages[index];
		if (old === message || !old) return;
		for (const [name, value] of Object.entries(message)) {
			if (old[name as keyof MessageRecord] === value) continue;
			const isTime = (name === "nextAt" || name === "stateAt") && value !== null;
			set[`${path}.${name}`] = isTime ? moment(value as number) : literal(value);
		}
	});
	after.beside.forEach((own, index) => {
		const old = before.beside[index];
		if (own.bodies !== old?.bodies) set[`messages.${index}.bodies`] = literal(own.bodies);
		if (own.terms !== old?.terms) set[`messages.${index}.terms`] = literal(own.terms);
	});
	Object.assign(set, derivedUpdate(derive(before), derive(after), moment));
	if (!write.onlyDue) return [{ $set: set }];
	const due = { $lte: ["$due.at", times === "given" ? write.now : NOW] };
	const claimed = { $mergeObjects: ["$$ROOT", set] };
	return [{ $replaceWith: { $cond: [due, claimed, "$$ROOT"] } }];
}

function derivedUpdate(
	before: Derived,
	after: Derived,
	moment: (at: number) => unknown,
): Record<string, unknown> {
	const set: Record<string, unknown> = {};
	const put = (name: keyof Derived, make: () => unknown) => {
		if (JSON.stringify(before[name]) === JSON.stringify(after[name])) return;
		set[name] = after[name] === undefined ? "$$REMOVE" : make();
	};
	put("facets", () => literal(after.facets));
	put("wakes", () => literal(after.wakes));
	put("failed", () => literal(after.failed));
	// A value in place of fields: `$set` would merge the new fields into the old.
	put("tally", () => literal(after.tally));
	put("due", () => after.due && { kind: after.due.kind, at: moment(after.due.at) });
	put("purge", () => after.purge && { ...after.purge, since: moment(after.purge.since) });
	put("backlog", () =>
		after.backlog?.map(({ target, since }) => ({
			target: literal(target),
			since: moment(since),
		})),
	);
	return set;
}

function timesOf(group: GroupRecord): ReadonlySet<number> {
	// No lease: written as it is.
	const known = new Set<number>([0, group.createdAt, group.stateAt, group.leaseUntil]);
	if (group.checkAt !== null) known.add(group.checkAt);
	for (const { nextAt, stateAt } of group.messages) {
		known.add(stateAt);
		if (nextAt !== null) known.add(nextAt);
	}
	return known;
}

/** Text may begin with a dollar sign, and objects are expressions. */
function literal(value: unknown): unknown {
	const plain = value === null || typeof value === "number" || typeof value === "boolean";
	return plain ? value : { $literal: value };
}
