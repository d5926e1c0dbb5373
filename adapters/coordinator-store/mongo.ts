import {
	applyChange,
	type Change,
	type Clock,
	decide,
	type Decision,
	type Duration,
	type GroupRecord,
	limited,
	type MessageRecord,
	type NewGroup,
	newStoreId,
	type PayloadRecord,
	type Random,
	released,
	systemClock,
	systemRandom,
	type TimelineEntry,
	toMs,
} from "../../protocol/index.ts";
import { StoreClock } from "../store-clock.ts";
import { decideAnswer, isSendable, letGo, statesAlone, totalOf } from "./answers.ts";
import type {
	Activity,
	ActivityStep,
	ApplyResult,
	AuditEntry,
	AuditFilter,
	Claimed,
	ClaimRequest,
	CoordinatorStore,
	DecideResult,
	Facets,
	FailureKind,
	GroupFilter,
	InsertResult,
	MessageFilter,
	MessageRow,
	NewAuditEntry,
	OpenedCoordinatorStore,
	Page,
	PageRequest,
	StoreStats,
	Total,
} from "./contract.ts";
import { ActivityWriter } from "./mongo/activity.ts";
import { AuditLog } from "./mongo/audit.ts";
import { PayloadCache } from "./mongo/cache.ts";
import { claimGroups, wakeGroups } from "./mongo/claims.ts";
import {
	type Address,
	addressOf,
	connect,
	type Connection,
	connectionOf,
	type Driver,
	faultOf,
	isServerFault,
	loadDriver,
	unavailable,
} from "./mongo/connection.ts";
import { Counters } from "./mongo/counters.ts";
import { bodyKey, contextKey, entryOf, type Kept, keysOf } from "./mongo/documents.ts";
import { Gatherer } from "./mongo/gather.ts";
import { Groups, type Step, type Stepped } from "./mongo/groups.ts";
import { insertGroups } from "./mongo/insert.ts";
import { IdempotencyKeys } from "./mongo/keys.ts";
import {
	countFailures,
	countGroups,
	countMessages,
	listGroups,
	listMessages,
} from "./mongo/lists.ts";
import { purgeGroups } from "./mongo/purge.ts";
import { type Collections, collectionsOf, prepareDatabase, serverTime } from "./mongo/schema.ts";
import { readStats } from "./mongo/stats.ts";
import { TimelineWriter } from "./mongo/timeline.ts";

export interface MongoCoordinatorStoreOptions {
	/**
	 * `mongodb://…` or `mongodb+srv://…`, with the driver's own settings. Write concern majority with
	 * journal and reads at the primary are the store's; a URL that asks for less is refused at start.
	 * The database is that of the URL, `lottor` where it names none.
	 */
	readonly url: string;
	/**
	 * How long a call waits for a server that can be written to.
	 * @default "3s"
	 */
	readonly timeout?: Duration;
	/** @default the machine's randomness */
	readonly random?: Random;
	/** A clock in place of the server's: for tests, all of whose stores must have the same. */
	readonly clock?: Clock;
	/** Loads the client library, for tests with another of its versions. @default the package `mongodb` */
	readonly driver?: () => Promise<unknown>;
}

/** Steps that one bulk write takes, and new groups that one takes. */
const BATCH_STEPS = 500;
const BATCH_GROUPS = 200;
const BATCH_CLAIMS = 100;
const BATCH_READS = 50;

/** What there is to filter by is told up to so many of a kind. */
const MOST_KINDS = 1_000;

/** A call that took this many times the time-out is answered: nobody waits for a silent server. */
const PATIENCE = 4;

/** A clock that no change of the machine's time of day reaches (R19). */
const monotonic: Clock = {
	...systemClock,
	now: () => performance.timeOrigin + performance.now(),
};

/** Makes a coordinator store in a MongoDB database. */
export function mongoCoordinatorStore(
	options: MongoCoordinatorStoreOptions,
): MongoCoordinatorStore {
	return new MongoCoordinatorStore(options);
}

/**
 * The coordinator store in MongoDB 4.4 or newer: one document a group, each step one atomic write of
 * it, payloads and timeline beside it. Any number of coordinators share the database.
 */
export class MongoCoordinatorStore implements CoordinatorStore {
	readonly description: string;
	readonly #address: Address;
	readonly #timeout: number;
	readonly #random: Random;
	readonly #load: () => Promise<unknown>;
	readonly #given: Clock | undefined;
	readonly #clock: Pick<Clock, "now">;
	readonly #timeline: TimelineWriter;
	readonly #activity: ActivityWriter;
	readonly #audit: AuditLog;
	readonly #groups: Groups;
	readonly #keys: IdempotencyKeys;
	readonly #payloads = new PayloadCache();
	readonly #counters: Counters;
	readonly #inserts: Gatherer<NewGroup, InsertResult>;
	readonly #steps: Gatherer<Step, Stepped>;
	readonly #claims: Gatherer<ClaimRequest, Kept[]>;
	/** Lists ask for the payloads of each of their rows. */
	readonly #payloadReads: Gatherer<string, PayloadRecord[]>;
	#driver: Driver | undefined;
	#connection: Connection | undefined;
	#collections: Collections | undefined;
	#opening: Promise<OpenedCoordinatorStore> | undefined;
	#closing: Promise<void> | undefined;
	/** When a call last worked, or the client was last made anew, by `performance.now()`. */
	#workedAt = 0;
	#refusal: string | undefined = "it is not open";

	/** @throws LOTTOR_INVALID_OPTIONS when an option has a wrong value */
	constructor(options: MongoCoordinatorStoreOptions) {
		this.#address = addressOf(options.url, "url");
		this.description = `MongoDB ${this.#address.place}`;
		this.#timeout = toMs(options.timeout ?? "3s", "timeout");
		this.#random = options.random ?? systemRandom;
		this.#load = options.driver ?? loadDriver;
		this.#given = options.clock;
		this.#clock =
			this.#given ??
			new StoreClock(monotonic, () => {
				if (!this.#connection) throw new Error("it is not open");
				return serverTime(this.#connection.db);
			});
		const collections = () => this.#opened();
		this.#timeline = new TimelineWriter(() => this.#opened().timeline);
		this.#activity = new ActivityWriter(
			() => this.#opened().activity,
			() => this.#opened().kinds,
		);
		this.#audit = new AuditLog(() => this.#opened().audit, this.#random);
		this.#counters = new Counters(collections, newStoreId(this.#random));
		this.#groups = new Groups({
			collections,
			counters: this.#counters,
			timeline: this.#timeline,
			activity: this.#activity,
			random: this.#random,
			times: this.#given ? "given" : "server",
			now: () => this.now(),
		});
		this.#keys = new IdempotencyKeys(collections, this.#groups);
		const patience = PATIENCE * this.#timeout;
		this.#inserts = new Gatherer(
			(items) => insertGroups(this.#host(), items),
			BATCH_GROUPS,
			isServerFault,
			patience,
		);
		this.#claims = new Gatherer(
			(items) => claimGroups(this.#host(), items),
			BATCH_CLAIMS,
			isServerFault,
			patience,
		);
		this.#payloadReads = new Gatherer(
			(ids) => this.#readPayloads(ids),
			BATCH_READS,
			isServerFault,
			patience,
		);
		this.#steps = new Gatherer(
			(steps) => this.#groups.take(steps),
			BATCH_STEPS,
			isServerFault,
			patience,
		);
	}

	open(): Promise<OpenedCoordinatorStore> {
		this.#opening ??= this.#connect().catch((error: unknown) => {
			this.#opening = undefined;
			throw error;
		});
		return this.#opening;
	}

	close(): Promise<void> {
		this.#closing ??= this.#shut().finally(() => {
			this.#closing = undefined;
		});
		return this.#closing;
	}

	now(): number {
		return Math.round(this.#clock.now());
	}

	insert(groups: readonly NewGroup[]): Promise<InsertResult[]> {
		return this.#call(() => this.#inserts.submit(groups));
	}

	decide(decisions: readonly Decision[]): Promise<DecideResult[]> {
		return this.#call(async () => {
			const steps = decisions.map((decision) => ({
				id: decision.id,
				transit: (group: GroupRecord, now: number) => decide(group, decision, now),
			}));
			const stepped = await this.#steps.submit(steps);
			const wanted = stepped.flatMap((one) =>
				one?.transition.outcome.result === "done"
					? [{ kept: one.kept, messages: letGo(one.before, one.transition.group) }]
					: [],
			);
			const bodies = await this.#bodiesOf(wanted);
			return stepped.map((one): DecideResult => {
				if (!one) return { result: "unknown" };
				return decideAnswer(one.transition, () => ({
					payloads: bodies.payloads(one.kept, letGo(one.before, one.transition.group)),
					context: bodies.context(one.kept),
				}));
			});
		});
	}

	claim(request: ClaimRequest): Promise<Claimed[]> {
		return this.#call(async () => {
			const [taken = []] = await this.#claims.submit([request]);
			const now = this.now();
			const due = taken.map((kept) => ({
				kept,
				messages: kept.group.messages.filter((message) => isSendable(message, now)),
			}));
			const bodies = await this.#bodiesOf(due);
			return due.map(({ kept, messages }) => ({
				group: kept.group,
				payloads: bodies.payloads(kept, messages),
				context: bodies.context(kept),
			}));
		});
	}

	release(
		items: readonly { readonly id: string; readonly epoch: number }[],
	): Promise<ApplyResult[]> {
		return this.#apply(
			items.map(({ id, epoch }) => ({ id, transit: (group) => released(group, epoch) })),
		);
	}

	apply(changes: readonly Change[]): Promise<ApplyResult[]> {
		return this.#apply(changes.map((change) => this.#stepOf(change)));
	}

	wake(
		what: { readonly target: string } | { readonly storeId: string },
		limit: number,
	): Promise<number> {
		return this.#call(() => wakeGroups(this.#host(), what, limit));
	}

	get(ids: readonly string[]): Promise<(GroupRecord | undefined)[]> {
		return this.#call(async () => {
			const found = await this.#groups.read(ids);
			return ids.map((id) => found.get(id)?.group);
		});
	}

	payloads(id: string): Promise<PayloadRecord[]> {
		return this.#call(async () => (await this.#payloadReads.submit([id]))[0] ?? []);
	}

	context(id: string): Promise<string | undefined> {
		return this.#call(async () => {
			const kept = (await this.#groups.read([id])).get(id);
			if (!kept) return undefined;
			const group = { group: id, _id: contextKey(kept.group) };
			return (await this.#opened().payloads.findOne(group))?.context;
		});
	}

	timeline(id: string): Promise<TimelineEntry[]> {
		return this.#call(async () => {
			// First the group: what it tells may move to the timeline meanwhile, never back.
			const kept = (await this.#groups.read([id])).get(id);
			if (!kept) return [];
			const written = await this.#opened()
				.timeline.find({ group: id, _id: keysOf(id) })
				.toArray();
			const entries = [...written, ...kept.told].map((entry) => entryOf(id, entry));
			const byPlace = new Map(
				entries.map((entry) => [`${entry.version}.${entry.place}`, entry]),
			);
			return [...byPlace.values()].sort((a, b) => a.version - b.version || a.place - b.place);
		});
	}

	/**
	 * Newest first. See `planGroups` for what the index answers and what filters on top.
	 *
	 * @throws LOTTOR_INVALID_REQUEST when the cursor or the limit (1 to 1000) is wrong
	 */
	list(filter: GroupFilter, page: PageRequest): Promise<Page<GroupRecord>> {
		return this.#call(() => listGroups(this.#opened(), filter, page));
	}

	/**
	 * Newest first by group, last message first within one.
	 *
	 * @throws LOTTOR_INVALID_REQUEST when the cursor or the limit (1 to 1000) is wrong
	 */
	listMessages(filter: MessageFilter, page: PageRequest): Promise<Page<MessageRow>> {
		return this.#call(() => listMessages(this.#opened(), filter, page));
	}

	countGroups(filter: GroupFilter, most: number): Promise<Total> {
		return this.#call(async () => {
			const known = statesAlone(filter) && (await this.#counters.read()).groups;
			return known
				? totalOf(known, filter.states)
				: countGroups(this.#opened(), filter, most);
		});
	}

	countMessages(filter: MessageFilter, most: number): Promise<Total> {
		return this.#call(async () => {
			const known = statesAlone(filter) && (await this.#counters.read()).messages;
			return known
				? totalOf(known, filter.states)
				: countMessages(this.#opened(), filter, most);
		});
	}

	/** What was ever seen, also where all groups that had it were purged. */
	facets(): Promise<Facets> {
		return this.#call(async () => {
			await this.#activity.idle();
			const kinds = this.#opened().kinds;
			const [sources = [], targets = [], types = [], errorCodes = []] = await Promise.all(
				["source", "target", "type", "error"].map(async (kind) => {
					const found = await kinds
						.find({ _id: { $gte: `${kind} `, $lt: `${kind}!` } })
						.sort({ _id: 1 })
						.limit(MOST_KINDS)
						.toArray();
					return found.map(({ _id }) => _id.slice(kind.length + 1));
				}),
			);
			return { sources, targets, types, errorCodes };
		});
	}

	failures(): Promise<FailureKind[]> {
		return this.#call(() => countFailures(this.#opened(), this.#counters));
	}

	activity(step: ActivityStep, since: number, until: number): Promise<Activity[]> {
		return this.#call(() => this.#activity.read(step, since, until));
	}

	record(entries: readonly NewAuditEntry[]): Promise<void> {
		return this.#call(() => this.#audit.add(entries, this.now()));
	}

	audits(filter: AuditFilter, page: PageRequest): Promise<Page<AuditEntry>> {
		return this.#call(() => this.#audit.list(filter, page));
	}

	stats(): Promise<StoreStats> {
		return this.#call(() => readStats(this.#opened(), this.#counters));
	}

	purge(request: {
		readonly state: "completed" | "rolledBack";
		readonly age: number;
		readonly limit: number;
	}): Promise<number> {
		const { state, age, limit } = request;
		return this.#call(() => purgeGroups(this.#host(), state, age, limit));
	}

	async #connect(): Promise<OpenedCoordinatorStore> {
		await this.#closing;
		const driver = (await this.#load()) as Driver;
		const connection = await connect(driver, this.#address, this.#timeout);
		try {
			const { db } = connection;
			const identity = await prepareDatabase(db, driver, this.#address, this.#random);
			this.#driver = driver;
			this.#connection = connection;
			this.#workedAt = performance.now();
			this.#collections = collectionsOf(db);
			await this.#counters.open();
			if (this.#clock instanceof StoreClock) await this.#clock.measure();
			this.#refusal = undefined;
			return identity;
		} catch (error) {
			this.#connection = undefined;
			this.#collections = undefined;
			await connection.client.close().catch(() => undefined);
			throw faultOf(this.#address, error);
		}
	}

	async #shut(): Promise<void> {
		const opening = this.#opening;
		this.#opening = undefined;
		this.#refusal ??= "it is closed";
		await opening?.catch(() => undefined);
		this.#refusal = "it is closed";
		await Promise.all([this.#inserts.idle(), this.#steps.idle(), this.#claims.idle()]);
		await Promise.all([this.#timeline.idle(), this.#activity.idle()]);
		if (this.#collections) await this.#counters.close().catch(() => undefined);
		const connection = this.#connection;
		this.#connection = undefined;
		this.#collections = undefined;
		await connection?.client.close().catch(() => undefined);
	}

	#opened(): Collections {
		if (this.#collections) return this.#collections;
		throw unavailable(this.#address, this.#refusal ?? "it is not open");
	}

	#host() {
		return {
			collections: this.#opened(),
			groups: this.#groups,
			payloads: this.#payloads,
			timeline: this.#timeline,
			activity: this.#activity,
			counters: this.#counters,
			keys: this.#keys,
			random: this.#random,
			now: () => this.now(),
			stamp: () => newStoreId(this.#random),
		};
	}

	async #readPayloads(ids: readonly string[]): Promise<PayloadRecord[][]> {
		const groups = await this.#groups.read(ids);
		const keys = [...groups.values()].flatMap(({ beside }) =>
			beside.flatMap(({ bodies }) => bodies),
		);
		const documents =
			keys.length === 0
				? []
				: await this.#opened()
						.payloads.find({ _id: { $in: keys }, group: { $in: [...ids] } })
						.toArray();
		const byKey = new Map(documents.map((document) => [document._id, document]));
		return ids.map((id) => {
			const kept = groups.get(id);
			return (kept?.group.messages ?? []).flatMap(({ id: message, index }) =>
				(kept?.beside[index]?.bodies ?? []).flatMap((key) => {
					const document = byKey.get(key);
					if (!document) return [];
					const { revision, content } = document;
					return [{ message, revision, content }];
				}),
			);
		});
	}

	/** Runs a call: refuses it while closed, gives up on a silent server, names what went wrong. */
	async #call<T>(run: () => Promise<T>): Promise<T> {
		if (this.#refusal !== undefined) throw unavailable(this.#address, this.#refusal);
		const timeout = PATIENCE * this.#timeout;
		const timeoutError = () =>
			unavailable(this.#address, `it did not answer within ${timeout} ms`);
		try {
			const result = await limited(monotonic, { timeout, timeoutError }, run());
			this.#workedAt = performance.now();
			return result;
		} catch (error) {
			if (isServerFault(error)) this.#renew();
			throw faultOf(this.#address, error);
		}
	}

	/**
	 * Goes on with a client of its own making where the present one has not worked for a while: the
	 * driver stops looking at a server whose connections end just when it is about to look.
	 */
	#renew(): void {
		const { client } = this.#connection ?? {};
		if (!client || !this.#driver || performance.now() - this.#workedAt < this.#timeout) return;
		this.#workedAt = performance.now();
		this.#connection = connectionOf(this.#driver, this.#address, this.#timeout);
		this.#collections = collectionsOf(this.#connection.db);
		client.close(true).catch(() => undefined);
	}

	#apply(steps: readonly Step[]): Promise<ApplyResult[]> {
		return this.#call(async () => {
			const stepped = await this.#steps.submit(steps);
			return stepped.map((one): ApplyResult => {
				if (!one) return { result: "unknown" };
				const { outcome, group } = one.transition;
				return { ...outcome, group };
			});
		});
	}

	#stepOf(change: Change): Step {
		const { id } = change;
		const step = {
			id,
			transit: (group: GroupRecord, now: number) => applyChange(group, change, now),
		};
		if (!("index" in change) || change.event.type !== "edit") return step;
		const { index } = change;
		const { content, terms = [] } = change.event;
		const token = newStoreId(this.#random);
		return {
			...step,
			body: (after) => {
				const revision = after.messages[index]?.revision ?? 0;
				const _id = bodyKey(id, index, revision, token);
				return { index, terms, document: { _id, group: id, revision, content } };
			},
		};
	}

	/** Reads the current payloads of these messages, and their groups' contexts. */
	async #bodiesOf(
		wanted: readonly { readonly kept: Kept; readonly messages: readonly MessageRecord[] }[],
	) {
		const keyOf = ({ beside }: Kept, { index }: MessageRecord) =>
			beside[index]?.bodies.at(-1) ?? "";
		const keys = wanted.flatMap(({ kept, messages }) => [
			contextKey(kept.group),
			...messages.map((message) => keyOf(kept, message)),
		]);
		const bodies = new Map(
			keys.flatMap((key) => {
				const body = this.#payloads.get(key);
				return body ? [[key, body] as const] : [];
			}),
		);
		const missing = [...new Set(keys.filter((key) => !bodies.has(key)))];
		if (missing.length > 0) {
			const found = this.#opened().payloads.find({ _id: { $in: missing } });
			for await (const { _id, content, context } of found) {
				bodies.set(_id, { content, ...(context !== undefined && { context }) });
			}
		}
		// They are with their consumers now; what is sent again is read again.
		for (const key of keys) this.#payloads.drop(key);
		return {
			context: (kept: Kept) => bodies.get(contextKey(kept.group))?.context ?? "{}",
			payloads: (kept: Kept, messages: readonly MessageRecord[]): PayloadRecord[] =>
				messages.flatMap((message) => {
					const key = keyOf(kept, message);
					const content = bodies.get(key)?.content;
					if (content === undefined) return [];
					return [{ message: message.id, revision: Number(key.split(".")[2]), content }];
				}),
		};
	}
}
