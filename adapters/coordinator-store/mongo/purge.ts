import { newStoreId, type Random } from "../../../protocol/index.ts";
import type { Counters } from "./counters.ts";
import { type GroupDocument, keysOf } from "./documents.ts";
import type { Groups } from "./groups.ts";
import type { IdempotencyKeys } from "./keys.ts";
import { type Collections, INDEXES } from "./schema.ts";

/** Groups that one round deletes. */
const ROUND = 200;

/** Milliseconds after which a purge that did not end is another's to end. */
const LEFT_BEHIND_MS = 60_000;

interface Host {
	readonly collections: Collections;
	readonly groups: Groups;
	readonly keys: IdempotencyKeys;
	readonly counters: Counters;
	readonly random: Random;
	now(): number;
}

/**
 * Deletes groups, then what is theirs. What is about to be deleted is noted first, so that a purge
 * that dies halfway leaves nothing behind for good.
 *
 * @returns how many groups were deleted
 */
export async function purgeGroups(
	host: Host,
	state: "completed" | "rolledBack",
	age: number,
	limit: number,
): Promise<number> {
	await endOthers(host);
	let count = 0;
	while (count < limit) {
		const until = host.now() - age;
		const wanted = Math.min(ROUND, limit - count);
		const due = { "purge.state": state, "purge.since": { $lte: until } };
		const found = await host.collections.groups
			.find(due)
			.hint(INDEXES.purge.key)
			.project<Pick<GroupDocument, "_id" | "source" | "idempotencyKey" | "tally">>({
				source: 1,
				idempotencyKey: 1,
				tally: 1,
			})
			.limit(wanted)
			.toArray();
		if (found.length === 0) break;
		const ids = found.map(({ _id }) => _id);
		const note = `${host.now()} ${newStoreId(host.random)}`;
		await host.collections.purges.insertOne({ _id: note, ids });
		const { deletedCount } = await host.collections.groups.deleteMany({
			_id: { $in: ids },
			...due,
		});
		for (const id of ids) host.groups.cache.drop(id);
		if (deletedCount === ids.length) host.counters.gone(countOf(state, found));
		// Another one was at it, too: nobody knows who deleted which.
		else host.counters.lost();
		const holders = found.flatMap(({ _id: id, source, idempotencyKey: key }) =>
			key === null ? [] : [{ source, key, id }],
		);
		await host.keys.release(holders);
		await endPurge(host, note, ids);
		count += deletedCount;
		if (found.length < wanted) break;
	}
	return count;
}

/** What is not there any more, as counters have it. */
function countOf(state: string, groups: readonly Pick<GroupDocument, "tally">[]) {
	const counts = new Map([[`group.${state}`, groups.length]]);
	for (const [of, count] of groups.flatMap(({ tally }) => Object.entries(tally))) {
		counts.set(`message.${of}`, (counts.get(`message.${of}`) ?? 0) + count);
	}
	return counts;
}

/** Ends purges of coordinators that died over them. */
async function endOthers(host: Host): Promise<void> {
	const before = String(host.now() - LEFT_BEHIND_MS);
	const left = await host.collections.purges.find({ _id: { $lt: before } }).toArray();
	for (const { _id, ids } of left) await endPurge(host, _id, ids);
}

async function endPurge(host: Host, note: string, ids: readonly string[]): Promise<void> {
	const { groups, payloads, timeline, purges } = host.collections;
	const standing = await groups
		.find({ _id: { $in: [...ids] } })
		.project<{ _id: string }>({ _id: 1 })
		.toArray();
	const kept = new Set(standing.map(({ _id }) => _id));
	const ranges = ids.filter((id) => !kept.has(id)).map((id) => ({ group: id, _id: keysOf(id) }));
	if (ranges.length > 0) {
		await payloads.deleteMany({ $or: ranges });
		await timeline.deleteMany({ $or: ranges });
	}
	await purges.deleteOne({ _id: note });
}
