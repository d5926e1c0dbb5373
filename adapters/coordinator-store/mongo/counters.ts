import type { Collection } from "mongodb";

import {
	GROUP_STATES,
	type GroupRecord,
	type GroupState,
	MESSAGE_STATES,
	type MessageState,
} from "../../../protocol/index.ts";
import { isServerFault } from "./connection.ts";
import type { FailedMessage } from "./documents.ts";
import { Gatherer } from "./gather.ts";
import { type Collections, INDEXES } from "./schema.ts";

const STANDING = "standing";
/** Groups that one round of a recount takes, so that none takes long. */
const ROUND = 10_000;
const MOST_A_BATCH = 5_000;
/** Begins the ids of documents that count failures, and their paths. */
const FAILED = "failed.";
/** Of the standing document, once failures are counted, too. */
const COUNTED = { $set: { failures: 1 } } as const;

/** What only grows, but for purges. */
const GROWING = new Set([
	"group.completed",
	"group.rolledBack",
	"message.consumed",
	"message.discarded",
]);

/**
 * `standing` has how many there are of each kind, by `group.completed` and so on. Kinds of failures,
 * of which there may be many, have a document each: `count` messages.
 */
export interface CountersDocument {
	readonly _id: string;
	readonly count?: number;
	readonly group?: Readonly<Record<string, number>>;
	readonly message?: Readonly<Record<string, number>>;
	/** Pending and delivering messages by target, as {@link keyOf} writes it. */
	readonly backlog?: Readonly<Record<string, number>>;
	/** Processes that add to it and have not closed. */
	readonly open?: Readonly<Record<string, 1>>;
	/** Whether failures are counted, too. */
	readonly failures?: 1;
	/** How often they were corrected. */
	readonly corrections?: number;
}

/** Failed messages of one kind. */
export interface FailedCount extends Omit<FailedMessage, "index"> {
	readonly messages: number;
}

export interface Counts {
	readonly groups: Readonly<Record<GroupState, number>>;
	readonly messages: Readonly<Record<MessageState, number>>;
	readonly backlog: ReadonlyMap<string, number>;
}

/** What a write adds to the counters, by path. */
type Delta = ReadonlyMap<string, number>;

/**
 * How many groups and messages there are in each state: each write of groups is followed by one that
 * adds what it changed, so that a million groups cost what ten do. A process that dies takes its last
 * additions along; the next one that opens the store counts anew, and so does one that lost some.
 */
export class Counters {
	readonly #collections: () => Collections;
	readonly #mark: string;
	readonly #gatherer: Gatherer<Delta, undefined>;
	#lost = false;
	#recounting: Promise<void> | undefined;
	#closing = false;

	/** @param id names this process; begins with a letter or digit and has no dot */
	constructor(collections: () => Collections, id: string) {
		this.#collections = collections;
		this.#mark = `open.${id}`;
		this.#gatherer = new Gatherer(
			async (batch) => {
				const sums = sumOf(batch);
				const standing = standingOf(sums);
				await this.#own().updateOne(
					{ _id: STANDING },
					{
						$set: { [this.#mark]: 1 as const },
						...(standing.length > 0 && { $inc: Object.fromEntries(standing) }),
					},
				);
				// An error would have it all added again.
				await this.#addFailures(sums).catch(() => this.lost());
				return batch.map(() => undefined);
			},
			MOST_A_BATCH,
			isServerFault,
		);
	}

	/** Counts all where that was never done, and, beside what goes on, where a process left no time to. */
	async open(): Promise<void> {
		this.#closing = false;
		const found = await this.#own().findOne({ _id: STANDING });
		if (!found) {
			const counted = await this.#recount();
			const { upsertedCount } = await this.#own().updateOne(
				{ _id: STANDING },
				{ $setOnInsert: nested(counted) },
				{ upsert: true },
			);
			if (upsertedCount === 0) return;
			await this.#addFailures(counted);
			await this.#own().updateOne({ _id: STANDING }, COUNTED);
		} else if (Object.keys(found.open ?? {}).length > 0 || !found.failures) {
			this.#heal();
		}
	}

	/** Ends what is under way and takes the process's mark away. */
	async close(): Promise<void> {
		this.#closing = true;
		await this.#gatherer.idle();
		await this.#recounting;
		if (this.#lost) return;
		await this.#own().updateOne({ _id: STANDING }, { $unset: { [this.#mark]: "" as const } });
	}

	/** A group was written: undefined before it was there, and after it went. */
	changed(before: GroupRecord | undefined, after: GroupRecord | undefined): void {
		const delta = new Map(after ? partsOf(after) : []);
		for (const [path, count] of before ? partsOf(before) : []) {
			delta.set(path, (delta.get(path) ?? 0) - count);
		}
		this.gone(new Map([...delta].map(([path, count]) => [path, -count])));
	}

	/** As much is not there any more. */
	gone(delta: Delta): void {
		const changed = [...delta].filter(([, count]) => count !== 0);
		if (changed.length === 0) return;
		const less = new Map(changed.map(([path, count]) => [path, -count]));
		this.#gatherer.submit([less]).catch(() => this.lost());
	}

	/** Something was not counted: all is counted anew when they are read next. */
	lost(): void {
		this.#lost = true;
	}

	async read(): Promise<Counts> {
		await this.#settled();
		return countsOf((await this.#own().findOne({ _id: STANDING })) ?? { _id: STANDING });
	}

	/** Kinds of failures that there are now, most first. */
	async failures(limit: number): Promise<FailedCount[]> {
		await this.#settled();
		const found = await this.#own()
			.find({ _id: { $gte: FAILED, $lt: "failed/" }, count: { $gt: 0 } })
			.sort({ count: -1, _id: 1 })
			.limit(limit)
			.toArray();
		return found.map(({ _id, count = 0 }) => ({ ...failureOf(_id), messages: count }));
	}

	async #settled(): Promise<void> {
		await this.#gatherer.idle();
		if (this.#lost) this.#heal();
	}

	async #addFailures(sums: Delta): Promise<void> {
		const changed = [...sums].filter(([path]) => path.startsWith(FAILED));
		if (changed.length === 0) return;
		const operations = changed.map(([_id, count]) => ({
			updateOne: { filter: { _id }, update: { $inc: { count } }, upsert: true },
		}));
		await this.#own().bulkWrite(operations, { ordered: false });
	}

	async #paths(): Promise<Map<string, number>> {
		return new Map((await this.#own().find().toArray()).flatMap(pathsOf));
	}

	#own(): Collection<CountersDocument> {
		return this.#collections().counters;
	}

	#heal(): void {
		this.#recounting ??= this.#correct()
			.catch(() => this.lost())
			.finally(() => (this.#recounting = undefined));
	}

	/**
	 * Adds what is missing. Writes go on meanwhile and may be seen in one place and not yet in the
	 * other: so only what two counts in a row agree on is taken for missing, and of what comes and
	 * goes only where it stood still. What could not be told stays marked for the next one that opens.
	 */
	async #correct(): Promise<void> {
		this.#lost = false;
		const {
			open: seen = {},
			failures,
			corrections = { $exists: false },
		} = (await this.#own().findOne({ _id: STANDING })) ?? {};
		const first = await this.#missing();
		const second = first.size > 0 ? await this.#missing() : first;
		const missing: [string, number][] = [];
		let unsure = false;
		for (const [path, { count, still }] of first) {
			const again = second.get(path);
			if (!again || Math.sign(again.count) !== Math.sign(count)) continue;
			const stood = still && again.still && again.count === count;
			if (stood || GROWING.has(path)) {
				missing.push([path, Math.abs(again.count) < Math.abs(count) ? again.count : count]);
			} else unsure = true;
		}
		const marks = unsure ? [] : Object.keys(seen).map((id) => [`open.${id}`, ""] as const);
		if (missing.length === 0 && marks.length === 0 && failures) return;
		const corrected = new Map(missing);
		// Another process may have corrected the same meanwhile.
		const { matchedCount } = await this.#own().updateOne(
			{ _id: STANDING, corrections },
			{ $inc: { ...Object.fromEntries(standingOf(corrected)), corrections: 1 } },
		);
		if (matchedCount === 0) throw new Error("they are not what they were");
		await this.#addFailures(corrected);
		if (unsure) return;
		const unmarked = marks.length > 0 && { $unset: Object.fromEntries(marks) };
		await this.#own().updateOne({ _id: STANDING }, { ...COUNTED, ...unmarked });
	}

	/**
	 * How far the counters are from what is there, where no write meanwhile explains it, and whether
	 * they stood still.
	 */
	async #missing(): Promise<ReadonlyMap<string, { count: number; still: boolean }>> {
		const before = await this.#paths();
		const counted = await this.#recount();
		await this.#gatherer.idle();
		const after = await this.#paths();
		const paths = new Set([...before.keys(), ...counted.keys(), ...after.keys()]);
		const missing = new Map<string, { count: number; still: boolean }>();
		for (const path of paths) {
			const [one = 0, two = 0] = [before.get(path), after.get(path)];
			const is = counted.get(path) ?? 0;
			const nearest = Math.min(Math.max(is, Math.min(one, two)), Math.max(one, two));
			if (is !== nearest) missing.set(path, { count: is - nearest, still: one === two });
		}
		return missing;
	}

	async #recount(): Promise<Map<string, number>> {
		const { groups } = this.#collections();
		const sums = MESSAGE_STATES.map((state) => [state, { $sum: `$tally.${state}` }]);
		const counted = new Map<string, number>();
		const add = (path: string, count: number) => {
			if (count > 0) counted.set(path, (counted.get(path) ?? 0) + count);
		};
		for (let last = ""; ;) {
			const rows = await groups
				.aggregate<
					{ _id: GroupState; groups: number; last: string } & Record<MessageState, number>
				>(
					[
						{ $match: { _id: { $gt: last } } },
						{ $sort: { _id: 1 } },
						{ $limit: ROUND },
						{
							$group: {
								_id: "$state",
								groups: { $sum: 1 },
								last: { $max: "$_id" },
								...(Object.fromEntries(sums) as object),
							},
						},
					],
					{ hint: { _id: 1 } },
				)
				.toArray();
			for (const row of rows) {
				add(`group.${row._id}`, row.groups);
				for (const state of MESSAGE_STATES) add(`message.${state}`, row[state]);
				if (row.last > last) last = row.last;
			}
			const looked = rows.reduce((sum, row) => sum + row.groups, 0);
			if (looked < ROUND) break;
			if (this.#closing) throw new Error("it is closed");
		}
		const waiting = await groups
			.aggregate<{ _id: string; messages: number }>(
				[
					{ $match: { facets: { $in: ["message pending", "message delivering"] } } },
					{ $unwind: "$backlog" },
					{ $group: { _id: "$backlog.target", messages: { $sum: 1 } } },
				],
				{ hint: INDEXES.facets.key },
			)
			.toArray();
		for (const { _id, messages } of waiting) add(`backlog.${keyOf(_id)}`, messages);
		const failed = await groups
			.aggregate<{ _id: Omit<FailedMessage, "index">; messages: number }>(
				[
					{ $match: { facets: "message failed" } },
					{ $unwind: "$failed" },
					{
						$group: {
							_id: {
								target: "$failed.target",
								type: "$failed.type",
								errorCode: "$failed.errorCode",
							},
							messages: { $sum: 1 },
						},
					},
				],
				{ hint: INDEXES.facets.key },
			)
			.toArray();
		for (const { _id, messages } of failed) add(failedPath(_id), messages);
		return counted;
	}
}

/** What a group adds to the counters. */
export function partsOf({ state, messages }: GroupRecord): Map<string, number> {
	const parts = new Map([[`group.${state}`, 1]]);
	const add = (path: string) => parts.set(path, (parts.get(path) ?? 0) + 1);
	for (const message of messages) {
		add(`message.${message.state}`);
		if (message.state === "pending" || message.state === "delivering") {
			add(`backlog.${keyOf(message.target)}`);
		}
		const { target, type, error } = message;
		if (message.state === "failed" && error) {
			add(failedPath({ target, type, errorCode: error.code }));
		}
	}
	return parts;
}

/** Halves of surrogate pairs become what the store makes of them, so that both have one path. */
function failedPath({ target, type, errorCode }: Omit<FailedMessage, "index">): string {
	const texts = [target, type, errorCode].map((text) => Buffer.from(text).toString());
	return FAILED + JSON.stringify(texts);
}

function failureOf(path: string): Omit<FailedMessage, "index"> {
	const texts = JSON.parse(path.slice(FAILED.length)) as [string, string, string];
	const [target, type, errorCode] = texts;
	return { target, type, errorCode };
}

/** The target as the name of a field, which has no dot and no dollar sign. */
function keyOf(target: string): string {
	return encodeURIComponent(target).replaceAll(".", "%2E");
}

function sumOf(deltas: readonly Delta[]): Map<string, number> {
	const sum = new Map<string, number>();
	for (const delta of deltas) {
		for (const [path, count] of delta) sum.set(path, (sum.get(path) ?? 0) + count);
	}
	return sum;
}

function standingOf(sums: Delta): [string, number][] {
	return [...sums].filter(([path]) => !path.startsWith(FAILED));
}

const KINDS = ["group", "message", "backlog"] as const;

function pathsOf(document: CountersDocument): [string, number][] {
	if (document.count !== undefined) return [[document._id, document.count]];
	return KINDS.flatMap((kind) =>
		Object.entries(document[kind] ?? {}).map(([name, count]): [string, number] => [
			`${kind}.${name}`,
			count,
		]),
	);
}

function nested(paths: Delta): Partial<CountersDocument> {
	const of = (kind: string) =>
		Object.fromEntries(
			[...paths]
				.filter(([path]) => path.startsWith(`${kind}.`))
				.map(([path, count]) => [path.slice(kind.length + 1), count]),
		);
	return Object.fromEntries(KINDS.map((kind) => [kind, of(kind)]));
}

function countsOf({ group = {}, message = {}, backlog = {} }: CountersDocument): Counts {
	const all = <State extends string>(
		states: readonly State[],
		counts: Readonly<Record<string, number>>,
	) =>
		Object.fromEntries(
			states.map((state) => [state, Math.max(counts[state] ?? 0, 0)]),
		) as Record<State, number>;
	return {
		groups: all(GROUP_STATES, group),
		messages: all(MESSAGE_STATES, message),
		backlog: new Map(
			Object.entries(backlog)
				.filter(([, count]) => count > 0)
				.map(([name, count]) => [decodeURIComponent(name), count]),
		),
	};
}
