import {
	GROUP_STATES,
	type GroupState,
	MESSAGE_STATES,
	type MessageState,
} from "../../../protocol/index.ts";
import type { StoreStats } from "../contract.ts";
import { CONFLICT } from "./documents.ts";
import { type Collections, INDEXES } from "./schema.ts";

/** Milliseconds up to which a count is made anew each time. */
const CHEAP_MS = 100;

/** A count that takes longer is kept this many times as long as it took. */
const KEEP_FACTOR = 20;

type Row = { readonly _id: GroupState; readonly groups: number } & Readonly<
	Record<MessageState, number>
>;

/** Something that may take long to count, and then is not counted each time. */
class Counted<T> {
	readonly #count: () => Promise<T>;
	#running: Promise<T> | undefined;
	#last: { readonly value: T; readonly at: number; readonly took: number } | undefined;

	constructor(count: () => Promise<T>) {
		this.#count = count;
	}

	async get(): Promise<T> {
		const last = this.#last;
		if (last && last.took > CHEAP_MS) {
			if (performance.now() - last.at > last.took * KEEP_FACTOR) {
				// The former count serves until then.
				this.#anew().catch(() => undefined);
			}
			return last.value;
		}
		return this.#anew();
	}

	#anew(): Promise<T> {
		this.#running ??= this.#take().finally(() => (this.#running = undefined));
		return this.#running;
	}

	async #take(): Promise<T> {
		const start = performance.now();
		const value = await this.#count();
		const at = performance.now();
		this.#last = { value, at, took: at - start };
		return value;
	}
}

/**
 * The numbers at a glance. Groups under way and groups that are over are counted apart, by index;
 * each count is made anew each time while it is quick, and now and then when it is not.
 */
export class Stats {
	readonly #collections: () => Collections;
	readonly #live: Counted<Row[]>;
	readonly #over: Counted<Row[]>;
	readonly #backlog: Counted<StoreStats["backlog"]>;

	constructor(collections: () => Collections) {
		this.#collections = collections;
		this.#live = new Counted(() => this.#count("prepared", "committed", "inDoubt"));
		this.#over = new Counted(() => this.#count("completed", "rolledBack"));
		this.#backlog = new Counted(() => this.#countBacklog());
	}

	async read(): Promise<StoreStats> {
		const { groups } = this.#collections();
		const [live, over, backlog, conflicts, oldestPrepared, oldestInDoubt] = await Promise.all([
			this.#live.get(),
			this.#over.get(),
			this.#backlog.get(),
			groups.countDocuments({ facets: CONFLICT }, { hint: INDEXES.facets.key }),
			this.#oldest("prepared"),
			this.#oldest("inDoubt"),
		]);
		const rows = [...live, ...over];
		const byState = GROUP_STATES.map((state) => [
			state,
			rows.find(({ _id }) => _id === state)?.groups ?? 0,
		]);
		const messages = MESSAGE_STATES.map((state) => [
			state,
			rows.reduce((sum, row) => sum + row[state], 0),
		]);
		return {
			groups: Object.fromEntries(byState) as StoreStats["groups"],
			messages: Object.fromEntries(messages) as StoreStats["messages"],
			conflicts,
			oldestPrepared,
			oldestInDoubt,
			backlog,
		};
	}

	async #oldest(state: GroupState): Promise<number | null> {
		const [oldest] = await this.#collections()
			.groups.find({ facets: `state ${state}` })
			.hint(INDEXES.facets.key)
			.sort({ createdAt: 1, _id: 1 })
			.limit(1)
			.project<{ createdAt: number }>({ createdAt: 1 })
			.toArray();
		return oldest?.createdAt ?? null;
	}

	#count(...states: readonly GroupState[]): Promise<Row[]> {
		const sums = MESSAGE_STATES.map((state) => [state, { $sum: `$tally.${state}` }]);
		return this.#collections()
			.groups.aggregate<Row>(
				[
					{ $match: { facets: { $in: states.map((state) => `state ${state}`) } } },
					{
						$group: {
							_id: "$state",
							groups: { $sum: 1 },
							...(Object.fromEntries(sums) as object),
						},
					},
				],
				{ hint: INDEXES.facets.key },
			)
			.toArray();
	}

	async #countBacklog(): Promise<StoreStats["backlog"]> {
		const rows = await this.#collections()
			.groups.aggregate<{ _id: string; messages: number; since: number }>(
				[
					{ $match: { facets: { $in: ["message pending", "message delivering"] } } },
					{ $unwind: "$backlog" },
					{
						$group: {
							_id: "$backlog.target",
							messages: { $sum: 1 },
							since: { $min: "$backlog.since" },
						},
					},
				],
				{ hint: INDEXES.facets.key },
			)
			.toArray();
		return rows.map(({ _id: target, messages, since }) => ({ target, messages, since }));
	}
}
