import { type GroupRecord, type NewGroup, prepared } from "../../../protocol/index.ts";
import type { InsertResult } from "../contract.ts";
import type { ActivityWriter } from "./activity.ts";
import type { PayloadCache } from "./cache.ts";
import type { Counters } from "./counters.ts";
import { bodyKey, documentOf, type Kept, payloadsOf, storedEntries } from "./documents.ts";
import { Failed } from "./gather.ts";
import type { Groups } from "./groups.ts";
import { type Holder, type IdempotencyKeys } from "./keys.ts";
import type { Collections } from "./schema.ts";
import type { TimelineWriter } from "./timeline.ts";
import { insertAll, withoutDuplicates } from "./writes.ts";

export interface Inserter {
	readonly collections: Collections;
	readonly groups: Groups;
	readonly payloads: PayloadCache;
	readonly timeline: TimelineWriter;
	readonly activity: ActivityWriter;
	readonly counters: Counters;
	readonly keys: IdempotencyKeys;
	now(): number;
	stamp(): string;
}

/** Stores new groups: payloads first, then the groups, each for itself (R29). */
export async function insertGroups(
	host: Inserter,
	items: readonly NewGroup[],
): Promise<(InsertResult | Failed)[]> {
	const results: (InsertResult | Failed)[] = new Array<InsertResult | Failed>(items.length);
	const first = new Map<string, number>();
	const plain: number[] = [];
	const later: number[] = [];
	items.forEach(({ id, idempotencyKey }, place) => {
		const repeated = first.has(id);
		if (!repeated) first.set(id, place);
		(repeated || idempotencyKey !== null ? later : plain).push(place);
	});
	const pick = (places: readonly number[]) => places.flatMap((place) => items[place] ?? []);
	const inserted = await insertPlain(host, pick(plain));
	plain.forEach((place, at) => (results[place] = inserted[at] ?? new Failed(undefined)));
	// Repeats and those with a key look at what stands by now, one by one.
	for (const place of later) {
		const [item] = pick([place]);
		if (item) results[place] = await insertWithKey(host, item);
	}
	return results;
}

async function insertPlain(
	host: Inserter,
	items: readonly NewGroup[],
): Promise<(InsertResult | Failed)[]> {
	const now = host.now();
	const stamp = host.stamp();
	const made = items.map((item) => keptOfNew(item, now));
	const documents = items.flatMap((item) => payloadsOf(item));
	await withoutDuplicates(host.collections.payloads, documents);
	const errors = await insertAll(
		host.collections.groups,
		made.map((kept) => documentOf(kept, stamp)),
	);
	const repeated = items.filter((_, place) => errors.get(place) === "duplicate");
	const standing = await host.groups.read(repeated.map(({ id }) => id));
	for (const { _id, content, context } of documents) {
		host.payloads.put(_id, { content, ...(context !== undefined && { context }) });
	}
	return items.map((item, place) => {
		const error = errors.get(place);
		const kept = made[place];
		if (error === "duplicate") {
			const group = standing.get(item.id)?.group;
			return group
				? answerOf(item, group)
				: new Failed(new Error(`group ${item.id} is going`));
		}
		if (error || !kept) return new Failed(error);
		host.groups.cache.put(kept);
		host.timeline.tell(item.id, kept.told);
		host.activity.prepared(kept.group);
		host.counters.changed(undefined, kept.group);
		return { result: "created" };
	});
}

/** @see IdempotencyKeys for why the key comes before the group and is settled after it */
async function insertWithKey(host: Inserter, item: NewGroup): Promise<InsertResult | Failed> {
	const { idempotencyKey: key, source, id } = item;
	const standing = (await host.groups.read([id])).get(id)?.group;
	if (standing) return answerOf(item, standing);
	if (key === null) return (await insertPlain(host, [item]))[0] ?? new Failed(undefined);
	const holder = await host.keys.take(source, key, id);
	if (holder) return existing(holder);
	const [result] = await insertPlain(host, [item]);
	if (!result || result instanceof Failed || result.result !== "created") {
		return result ?? new Failed(undefined);
	}
	if (await host.keys.settle(source, key, id)) return result;
	// Another one took the key over before the group was there.
	host.groups.cache.drop(id);
	const { deletedCount } = await host.collections.groups.deleteOne({ _id: id, version: 1 });
	if (deletedCount === 1) host.counters.changed(keptOfNew(item, 0).group, undefined);
	const other = await host.keys.take(source, key, id);
	return other ? existing(other) : insertWithKey(host, item);
}

function existing({ id, state }: Holder): InsertResult {
	return { result: "exists", id, state };
}

function answerOf({ id, hash }: NewGroup, { hash: stored, state }: GroupRecord): InsertResult {
	return stored === hash ? { result: "exists", id, state } : { result: "differs", state };
}

function keptOfNew(item: NewGroup, now: number): Kept {
	const { group, entries } = prepared(item, now);
	return {
		group,
		beside: item.messages.map(({ terms = [] }, index) => ({
			bodies: [bodyKey(item.id, index, 0, item.hash)],
			terms: [...new Set(terms)],
		})),
		told: storedEntries(group, entries, now),
	};
}
