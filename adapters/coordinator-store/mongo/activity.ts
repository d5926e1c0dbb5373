import type { Collection } from "mongodb";

import type { GroupRecord } from "../../../protocol/index.ts";
import { beginOf, groupCame, type Happened, messageCame } from "../activity.ts";
import { type Activity, ACTIVITY_KEPT_MS, ACTIVITY_MS, type ActivityStep } from "../contract.ts";
import { isServerFault } from "./connection.ts";
import { Gatherer } from "./gather.ts";
import { insertAll, updateAll } from "./writes.ts";

const STEPS = Object.keys(ACTIVITY_MS) as ActivityStep[];
const MOST_WAITING = 5_000;

/** Kinds of groups and messages of which is remembered that they are noted. */
const REMEMBERED = 10_000;

/** Digits of a time within a key, so that keys sort by it. */
const TIME_DIGITS = 15;

export interface ActivityDocument {
	/** Step, begin, what and part: texts that sort by time. */
	readonly _id: string;
	readonly at: number;
	readonly what: Activity["what"];
	readonly part: string;
	readonly count: number;
}

/** Something that lists can be filtered by. */
export interface KindDocument {
	/** `source user`, `target auth`, `type grant`, `error E_GRANT`. */
	readonly _id: string;
}

interface Count extends Happened {
	readonly at: number;
}

/**
 * Counts what happened, and notes what there is to filter by, after the writes that it belongs to:
 * figures for people, of which a process that dies takes some along.
 */
export class ActivityWriter {
	readonly #counts: Gatherer<Count, undefined>;
	readonly #kinds: Gatherer<string, undefined>;
	readonly #noted = new Set<string>();
	readonly #activity: () => Collection<ActivityDocument>;
	#waiting = 0;
	#cleanedAt = 0;

	constructor(
		activity: () => Collection<ActivityDocument>,
		kinds: () => Collection<KindDocument>,
	) {
		this.#activity = activity;
		this.#counts = new Gatherer(
			async (batch) => {
				this.#waiting -= batch.length;
				await this.#write(batch);
				return batch.map(() => undefined);
			},
			MOST_WAITING,
			isServerFault,
		);
		this.#kinds = new Gatherer(
			async (batch) => {
				await insertAll(
					kinds(),
					[...new Set(batch)].map((_id) => ({ _id })),
				);
				return batch.map(() => undefined);
			},
			MOST_WAITING,
			isServerFault,
		);
	}

	/** A group was stored. */
	prepared(group: GroupRecord): void {
		this.#count(groupCame(group, group.createdAt), group.createdAt);
		this.#note(`source ${group.source}`);
		for (const { target, type } of group.messages) {
			this.#note(`target ${target}`);
			this.#note(`type ${type}`);
		}
	}

	/** A group was written. */
	changed(before: GroupRecord, after: GroupRecord, at: number): void {
		const happened = before.state === after.state ? [] : groupCame(after, at);
		after.messages.forEach((message, index) => {
			const old = before.messages[index];
			if (old === message) return;
			if (old?.state !== message.state) happened.push(...messageCame(message));
			if (message.error && message.error !== old?.error) {
				this.#note(`error ${message.error.code}`);
			}
		});
		this.#count(happened, at);
	}

	/** Resolves once everything so far is written. */
	async idle(): Promise<void> {
		await Promise.all([this.#counts.idle(), this.#kinds.idle()]);
	}

	/** What happened from `since` to before `until`. */
	async read(step: ActivityStep, since: number, until: number): Promise<Activity[]> {
		await this.idle();
		const rows = await this.#activity()
			.find({ _id: { $gte: keyOf(step, beginOf(since, step)), $lt: keyOf(step, until) } })
			.sort({ _id: 1 })
			.toArray();
		return rows.map(({ at, what, part, count }) => ({ at, what, part, count }));
	}

	#count(happened: readonly Happened[], time: number): void {
		// While the store can't be written to, some of it is given up.
		if (happened.length === 0 || this.#waiting > MOST_WAITING) return;
		const at = beginOf(time, "minute");
		this.#waiting += happened.length;
		this.#counts.submit(happened.map((one) => ({ ...one, at }))).catch(() => undefined);
	}

	#note(kind: string): void {
		if (this.#noted.has(kind)) return;
		if (this.#noted.size >= REMEMBERED) this.#noted.clear();
		this.#noted.add(kind);
		this.#kinds.submit([kind]).catch(() => this.#noted.delete(kind));
	}

	async #write(batch: readonly Count[]): Promise<void> {
		const sums = new Map<string, ActivityDocument>();
		for (const { what, part, at: minute } of batch) {
			for (const step of STEPS) {
				const at = beginOf(minute, step);
				const _id = `${keyOf(step, at)} ${what} ${part}`;
				const count = (sums.get(_id)?.count ?? 0) + 1;
				sums.set(_id, { _id, at, what, part, count });
			}
		}
		const operations = [...sums.values()]
			.toSorted((a, b) => (a._id < b._id ? -1 : 1))
			.map(({ _id, count, ...rest }) => ({
				updateOne: {
					filter: { _id },
					update: { $inc: { count }, $setOnInsert: rest },
					upsert: true,
				},
			}));
		await updateAll(this.#activity(), operations);
		await this.#clean(Math.max(...batch.map(({ at }) => at)));
	}

	/** Once a minute, deletes what is past its time. */
	async #clean(now: number): Promise<void> {
		if (now <= this.#cleanedAt) return;
		this.#cleanedAt = now;
		for (const step of STEPS) {
			const until = keyOf(step, Math.max(0, now - ACTIVITY_KEPT_MS[step]));
			await this.#activity().deleteMany({ _id: { $gte: keyOf(step, 0), $lt: until } });
		}
	}
}

function keyOf(step: ActivityStep, time: number): string {
	return `${step} ${String(time).padStart(TIME_DIGITS, "0")}`;
}
