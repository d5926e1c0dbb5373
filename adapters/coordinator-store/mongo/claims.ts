import type { Filter } from "mongodb";

import { claimed, newStoreId, type Random, woken } from "../../../protocol/index.ts";
import type { ClaimRequest } from "../contract.ts";
import { type GroupDocument, type Kept, keptOf } from "./documents.ts";
import type { Groups } from "./groups.ts";
import { type Collections, INDEXES } from "./schema.ts";

/** Groups that one round takes: their documents are in memory meanwhile. */
const ROUND = 200;

/** Rounds without a catch in which others were faster. */
const RACES = 20;

interface Host {
	readonly collections: Collections;
	readonly groups: Groups;
	readonly random: Random;
	now(): number;
}

/** The groups that are due, by the index on what they are due for; those of other slots only when overdue. */
export function dueFilter(request: ClaimRequest, now: number): Filter<GroupDocument> {
	const { kind, share } = request;
	return {
		"due.kind": kind,
		"due.at": { $lte: now },
		...(share && {
			$or: [{ slot: { $in: share.slots } }, { "due.at": { $lte: now - share.after } }],
		}),
	};
}

/**
 * Takes groups that are due for several claimers at once, oldest first, by compare-and-set (R20).
 * Claimers of one process would else all go for the same groups.
 *
 * @returns by claimer, what it got
 */
export async function claimGroups(
	host: Host,
	requests: readonly ClaimRequest[],
): Promise<Kept[][]> {
	const taken = requests.map((): Kept[] => []);
	const alike = new Map<string, number[]>();
	requests.forEach(({ kind, share }, place) => {
		const name = JSON.stringify([kind, share]);
		alike.set(name, [...(alike.get(name) ?? []), place]);
	});
	for (const places of alike.values()) {
		// One entry for each group that may be taken, named by who gets it.
		const room = places.flatMap((place) =>
			new Array<number>(requests[place]?.limit ?? 0).fill(place),
		);
		await fill(host, requests, room, taken);
	}
	return taken;
}

async function fill(
	host: Host,
	requests: readonly ClaimRequest[],
	room: number[],
	taken: readonly Kept[][],
): Promise<void> {
	const [first] = room;
	const alike = first === undefined ? undefined : requests[first];
	let races = 0;
	while (alike && room.length > 0 && races < RACES) {
		const now = host.now();
		const wanted = Math.min(ROUND, room.length);
		const documents = await host.collections.groups
			.find(dueFilter(alike, now))
			.hint(INDEXES.due.key)
			.sort({ "due.at": 1 })
			.limit(wanted)
			.toArray();
		if (documents.length === 0) return;
		const grip = newStoreId(host.random);
		const swaps = documents.map((document, at) => {
			const place = room[at] ?? 0;
			const { owner, lease } = requests[place] ?? alike;
			const before = keptOf(document);
			const after = host.groups.next(before, claimed(before.group, owner, lease, now), []);
			return { place, before, after, grip };
		});
		const { stand } = await host.groups.swap(swaps, now);
		const caught = swaps.filter(({ before }) => stand.has(before.group.id));
		for (const { place, after } of caught) {
			taken[place]?.push(after);
			room.splice(room.indexOf(place), 1);
		}
		if (caught.length === 0) races++;
		else if (caught.length === documents.length && documents.length < wanted) return;
	}
}

/** Makes due up to `limit` groups that wait for this. @returns how many */
export async function wakeGroups(
	host: Host,
	what: { readonly target: string } | { readonly storeId: string },
	limit: number,
): Promise<number> {
	let count = 0;
	let races = 0;
	while (count < limit && races < RACES) {
		const now = host.now();
		const wanted = Math.min(ROUND, limit - count);
		const filter =
			"target" in what
				? { wakes: `target ${what.target}` }
				: { wakes: `store ${what.storeId}`, checkAt: { $gt: now } };
		const documents = await host.collections.groups
			.find(filter as Filter<GroupDocument>)
			.hint(INDEXES.wakes.key)
			.limit(wanted)
			.toArray();
		const swaps = documents.map(keptOf).flatMap((before) => {
			const group = woken(before.group, what, now);
			return group === before.group
				? []
				: [{ before, after: host.groups.next(before, group, []) }];
		});
		if (swaps.length === 0) break;
		const { stand } = await host.groups.swap(swaps, now);
		count += stand.size;
		if (stand.size === 0) races++;
		else if (stand.size === documents.length && documents.length < wanted) break;
	}
	return count;
}
