import type { GroupState } from "../../../protocol/index.ts";
import type { StoreStats } from "../contract.ts";
import type { Counters } from "./counters.ts";
import { CONFLICT } from "./documents.ts";
import { type Collections, INDEXES } from "./schema.ts";

/** Of the groups that wait, so many of the oldest tell since when something waits for each target. */
const OLDEST_GROUPS = 500;

/** The numbers at a glance: counters, and the ends of index ranges. */
export async function readStats(collections: Collections, counters: Counters): Promise<StoreStats> {
	const [counts, conflicts, oldestPrepared, oldestInDoubt, waiting] = await Promise.all([
		counters.read(),
		collections.groups.countDocuments({ facets: CONFLICT }, { hint: INDEXES.facets.key }),
		oldest(collections, "prepared"),
		oldest(collections, "inDoubt"),
		waitingSince(collections),
	]);
	return {
		groups: counts.groups,
		messages: counts.messages,
		conflicts,
		oldestPrepared,
		oldestInDoubt,
		backlog: [...counts.backlog].map(([target, messages]) => ({
			target,
			messages,
			since: waiting.of.get(target) ?? waiting.others,
		})),
	};
}

async function oldest({ groups }: Collections, state: GroupState): Promise<number | null> {
	const [found] = await groups
		.find({ facets: `state ${state}` })
		.hint(INDEXES.facets.key)
		.sort({ createdAt: 1, _id: 1 })
		.limit(1)
		.project<{ createdAt: number }>({ createdAt: 1 })
		.toArray();
	return found?.createdAt ?? null;
}

/** Since when messages are pending or delivering, by target; of `others` it is not before that. */
async function waitingSince({ groups }: Collections) {
	const of = new Map<string, number>();
	let others = 0;
	const found = await Promise.all(
		["message pending", "message delivering"].map((facets) =>
			groups
				.find({ facets })
				.hint(INDEXES.facets.key)
				.sort({ createdAt: 1, _id: 1 })
				.limit(OLDEST_GROUPS)
				.project<{
					createdAt: number;
					backlog?: readonly { target: string; since: number }[];
				}>({ createdAt: 1, backlog: 1 })
				.toArray(),
		),
	);
	for (const { createdAt, backlog = [] } of found.flat()) {
		others = Math.max(others, createdAt);
		for (const { target, since } of backlog) {
			of.set(target, Math.min(of.get(target) ?? since, since));
		}
	}
	return { of, others };
}
