import type { AnyBulkWriteOperation } from "mongodb";

import {
	type GroupRecord,
	newStoreId,
	type Random,
	type Transition,
} from "../../../protocol/index.ts";
import type { ActivityWriter } from "./activity.ts";
import { GroupCache } from "./cache.ts";
import type { Counters } from "./counters.ts";
import {
	type GroupDocument,
	type Beside,
	type Kept,
	keptOf,
	type PayloadDocument,
	storedEntries,
	type StoredEntry,
	type Times,
	updateOf,
} from "./documents.ts";
import { Failed } from "./gather.ts";
import type { Collections } from "./schema.ts";
import type { TimelineWriter } from "./timeline.ts";
import { updateAll, withoutDuplicates } from "./writes.ts";

/** Tries of one step against others that are faster each time. */
const RACES = 50;

/** A new payload of a message, and what the message is found by from then on, too. */
export interface NewBody {
	readonly index: number;
	readonly document: PayloadDocument;
	readonly terms: readonly string[];
}

/** One step of a group. */
export interface Step {
	readonly id: string;
	readonly transit: (group: GroupRecord, now: number) => Transition;
	/** A payload that is stored with the step: made once it is known to be done. */
	readonly body?: (after: GroupRecord) => NewBody;
}

/** What a step came to; undefined: there is no such group. */
export type Stepped =
	| {
			readonly transition: Transition;
			/** As the group stood before this step, and after all steps of the same write. */
			readonly before: GroupRecord;
			readonly kept: Kept;
	  }
	| undefined;

/** A compare-and-set of one group. */
export interface Swap {
	readonly before: Kept;
	readonly after: Kept;
	/** A claim, by its name: it stands only where the group is due by the server's clock. */
	readonly grip?: string;
}

/** What the groups of one store are read and written through. */
export interface GroupsHost {
	readonly collections: () => Collections;
	readonly timeline: TimelineWriter;
	readonly activity: ActivityWriter;
	readonly counters: Counters;
	readonly random: Random;
	readonly times: Times;
	now(): number;
}

/** Steps of one group within one write. */
interface Plan {
	readonly before: Kept;
	readonly after: Kept;
	readonly results: readonly NonNullable<Stepped>[];
	readonly documents: readonly PayloadDocument[];
	/** Whether it may be answered without a look at the store. */
	readonly certain: boolean;
}

/** Loads groups, takes them through the state machine, and writes them by compare-and-set. */
export class Groups {
	readonly cache = new GroupCache();
	readonly #host: GroupsHost;

	constructor(host: GroupsHost) {
		this.#host = host;
	}

	/** Reads groups, past the cache. */
	async read(ids: readonly string[]): Promise<Map<string, Kept>> {
		if (ids.length === 0) return new Map();
		const { groups } = this.#host.collections();
		const documents = await groups.find({ _id: { $in: [...new Set(ids)] } }).toArray();
		return new Map(documents.map((document) => [document._id, keptOf(document)]));
	}

	/** Takes every step; those of one group in order, in one write. */
	async take(steps: readonly Step[]): Promise<(Stepped | Failed)[]> {
		const results: (Stepped | Failed)[] = new Array<Stepped | Failed>(steps.length);
		const open = new Map<string, number[]>();
		steps.forEach(({ id }, place) => open.set(id, [...(open.get(id) ?? []), place]));
		let fresh = new Map<string, Kept>();
		let read = new Set<string>();
		for (let race = 0; open.size > 0; race++) {
			if (race === RACES) throw new Error("other coordinators keep being faster");
			const now = this.#host.now();
			const plans = new Map<string, Plan>();
			const again: string[] = [];
			for (const [id, places] of open) {
				const kept = fresh.get(id) ?? this.cache.get(id);
				const own = places.map((place) => steps[place]);
				const plan = kept && this.#plan(kept, own, read.has(id), now);
				if (plan?.certain) plans.set(id, plan);
				else if (plan || !read.has(id)) again.push(id);
				else {
					// There is no such group.
					open.delete(id);
				}
			}
			const settle = (id: string, give: (place: number, at: number) => Stepped | Failed) => {
				open.get(id)?.forEach((place, at) => (results[place] = give(place, at)));
				open.delete(id);
			};
			const { stand, failed } = await this.#store([...plans.values()], now);
			for (const [id, plan] of plans) {
				const error = failed.get(id);
				if (error) settle(id, () => new Failed(error));
				else if (stand.has(id)) settle(id, (_, at) => plan.results[at]);
				else again.push(id);
			}
			fresh = await this.read(again);
			read = new Set(again);
		}
		return results;
	}

	/**
	 * Writes groups whose version still is the one that was read.
	 *
	 * @returns ids of those that now stand as written, and of those that can't be written at all
	 */
	async swap(
		wanted: readonly Swap[],
		now: number,
	): Promise<{
		readonly stand: ReadonlySet<string>;
		readonly failed: ReadonlyMap<string, Error>;
	}> {
		const stamp = newStoreId(this.#host.random);
		const { groups } = this.#host.collections();
		// In one order everywhere: an engine that locks all of a bulk would have deadlocks.
		const swaps = wanted.toSorted((a, b) => (a.before.group.id < b.before.group.id ? -1 : 1));
		const operations = swaps.map(({ before, after, grip }) => {
			const claim = grip === undefined ? {} : { grip, onlyDue: true };
			const write = { now, stamp, ...claim };
			const filter = { _id: before.group.id, version: before.group.version };
			const update = updateOf(before, after, write, this.#host.times);
			return { updateOne: { filter, update } };
		}) as unknown as AnyBulkWriteOperation<GroupDocument>[];
		const claims = swaps.some(({ grip }) => grip !== undefined);
		const outcome = await updateAll(groups, operations).catch((error: unknown) => {
			for (const { before } of swaps) this.cache.drop(before.group.id);
			throw error;
		});
		const failed = new Map<string, Error>();
		for (const [place, error] of outcome.errors) {
			const id = swaps[place]?.before.group.id;
			if (id !== undefined) failed.set(id, error);
		}
		let stand = new Set(swaps.map(({ before }) => before.group.id));
		if (claims || outcome.matched < swaps.length) {
			const written = await groups
				.find({ _id: { $in: [...stand] }, stamp })
				.project<{ _id: string }>({ _id: 1 })
				.toArray();
			stand = new Set(written.map(({ _id }) => _id));
		}
		for (const { before, after } of swaps) {
			const { id } = before.group;
			if (!stand.has(id)) {
				this.cache.drop(id);
				continue;
			}
			this.cache.put(after);
			this.#host.timeline.tell(id, after.told);
			this.#host.activity.changed(before.group, after.group, now);
			this.#host.counters.changed(before.group, after.group);
		}
		return { stand, failed };
	}

	/** A group with what is told of it: entries of before go along until they are in the timeline. */
	next(before: Kept, group: GroupRecord, entries: readonly StoredEntry[]): Kept {
		const { timeline } = this.#host;
		const told = [...timeline.unwritten(group.id, before.told), ...entries];
		return { ...before, group, told };
	}

	/** @param read whether the group comes from the store just now */
	#plan(kept: Kept, steps: readonly (Step | undefined)[], read: boolean, now: number): Plan {
		let { group } = kept;
		let beside = kept.beside;
		const entries: StoredEntry[] = [];
		const documents: PayloadDocument[] = [];
		const taken: { transition: Transition; before: GroupRecord }[] = [];
		let certain = true;
		for (const step of steps) {
			if (!step) continue;
			const before = group;
			const transition = step.transit(before, now);
			const done = transition.outcome.result === "done";
			group = transition.group;
			if (group !== before) entries.push(...storedEntries(group, transition.entries, now));
			if (done && step.body) {
				const body = step.body(group);
				documents.push(body.document);
				beside = beside.map((own, at) => (at === body.index ? withBody(own, body) : own));
			}
			certain &&= done || read;
			taken.push({ transition, before });
		}
		const after = group === kept.group ? kept : { ...this.next(kept, group, entries), beside };
		return {
			before: kept,
			after,
			documents,
			certain,
			results: taken.map((one) => ({ ...one, kept: after })),
		};
	}

	/** Payloads first, then the groups (R29). */
	async #store(plans: readonly Plan[], now: number) {
		const changed = plans.filter(({ before, after }) => before !== after);
		const unchanged = plans.filter(({ before, after }) => before === after);
		const documents = changed.flatMap((plan) => plan.documents);
		await withoutDuplicates(this.#host.collections().payloads, documents);
		const { stand, failed } =
			changed.length === 0
				? { stand: new Set<string>(), failed: new Map<string, Error>() }
				: await this.swap(changed, now);
		for (const { before } of unchanged) this.cache.put(before);
		return {
			stand: new Set([...stand, ...unchanged.map(({ before }) => before.group.id)]),
			failed,
		};
	}
}

function withBody({ bodies, terms }: Beside, body: NewBody): Beside {
	const more = body.terms.filter((term) => !terms.includes(term));
	return {
		bodies: [...bodies, body.document._id],
		terms: more.length > 0 ? [...terms, ...more] : terms,
	};
}
