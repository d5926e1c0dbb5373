import { DatabaseSync } from "node:sqlite";
import { resolve } from "node:path";

import {
	type Change,
	type Clock,
	type Decision,
	type Duration,
	type GroupRecord,
	invalidOptions,
	LottorError,
	type NewGroup,
	type PayloadRecord,
	type Random,
	released,
	systemClock,
	systemRandom,
	type TimelineEntry,
	toMs,
} from "../../protocol/index.ts";
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
import { statesAlone, totalOf } from "./answers.ts";
import { activityOf } from "./sqlite/activity.ts";
import { limitOf, wrongCursor } from "./pages.ts";
import {
	applyOne,
	claimSome,
	decideOne,
	insertOne,
	purgeSome,
	statsOf,
	storeTransition,
	wakeSome,
} from "./sqlite/calls.ts";
import { isBusy, isFatal, resultCode, unavailable } from "./sqlite/faults.ts";
import { addAudit, auditsOf, facetsOf, failuresOf } from "./sqlite/figures.ts";
import {
	cursorOf,
	type Plan,
	planGroups,
	planMessages,
	type Position,
	positionOf,
	step,
} from "./sqlite/lists.ts";
import { connect, migrate } from "./sqlite/schema.ts";
import { Tables } from "./sqlite/tables.ts";
import { BatchWriter } from "./sqlite/writer.ts";

export interface SqliteCoordinatorStoreOptions {
	/** The database file; its folder is made when missing. */
	readonly file: string;
	/**
	 * How long a call waits while another process holds the file's write lock.
	 * @default "3s"
	 */
	readonly lockTimeout?: Duration;
	/** @default the machine's clock */
	readonly clock?: Clock;
	/** @default the machine's randomness */
	readonly random?: Random;
	/** Told after each commit how many calls shared it. */
	readonly onCommit?: (calls: number) => void;
	/** Makes the connection; for tests of what goes wrong with one. */
	readonly connect?: (file: string, timeout: number) => DatabaseSync;
}

/** Messages that one piece of a larger call writes, about: other calls may come between two pieces. */
const PIECE_ROWS = 200;

/** Groups that one piece of a claim, wake or purge takes. */
const CLAIM_PIECE = 100;

/** A count takes this many rows in one go, and gives up after looking at so many. */
const COUNT_PIECE = 2_000;
const COUNT_SCAN = 8_000;

/** Milliseconds between two tries to read or open while another process locks the file. */
const RETRY_MS = 10;

/** Makes a coordinator store in an SQLite file. */
export function sqliteCoordinatorStore(
	options: SqliteCoordinatorStoreOptions,
): SqliteCoordinatorStore {
	return new SqliteCoordinatorStore(options);
}

/**
 * The coordinator store on an SQLite file, durable at each commit (WAL, `synchronous=FULL`), with
 * group commit. Several processes of one host may share the file (R31).
 */
export class SqliteCoordinatorStore implements CoordinatorStore {
	readonly description: string;
	readonly #file: string;
	readonly #clock: Clock;
	readonly #random: Random;
	readonly #lockTimeout: number;
	readonly #make: (file: string, timeout: number) => DatabaseSync;
	readonly #writer: BatchWriter;
	#db: DatabaseSync | undefined;
	#tables: Tables | undefined;
	/** Why calls are refused; undefined while they are taken. */
	#refusal: unknown = new Error("it is not open");
	#opening: Promise<OpenedCoordinatorStore> | undefined;
	#closing: Promise<void> | undefined;

	/** @throws LOTTOR_INVALID_OPTIONS when an option has a wrong value */
	constructor(options: SqliteCoordinatorStoreOptions) {
		if (typeof options.file !== "string" || options.file === "") {
			throw invalidOptions("file", "must be the path of the database file");
		}
		this.#file = resolve(options.file);
		this.description = `SQLite ${this.#file}`;
		this.#clock = options.clock ?? systemClock;
		this.#random = options.random ?? systemRandom;
		this.#lockTimeout = toMs(options.lockTimeout ?? "3s", "lockTimeout");
		this.#make = options.connect ?? ((file, timeout) => new DatabaseSync(file, { timeout }));
		this.#writer = new BatchWriter(
			{
				begin: () => this.#connected().begin(),
				commit: () => this.#connected().commit(),
				rollback: () => this.#rollback(),
				fault: (error) => this.#fault(error),
				committed: (calls) => options.onCommit?.(calls),
			},
			{
				clock: this.#clock,
				fraction: () => this.#random.fraction(),
				lockTimeout: this.#lockTimeout,
			},
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
		return this.#clock.now();
	}

	insert(groups: readonly NewGroup[]): Promise<InsertResult[]> {
		return this.#pieces(
			groups,
			(group) => group.messages.length,
			(tables, group) => insertOne(tables, group, this.now()),
		);
	}

	decide(decisions: readonly Decision[]): Promise<DecideResult[]> {
		return this.#pieces(
			decisions,
			() => 1,
			(tables, decision) => decideOne(tables, decision, this.now()),
		);
	}

	apply(changes: readonly Change[]): Promise<ApplyResult[]> {
		return this.#pieces(
			changes,
			() => 1,
			(tables, change) => applyOne(tables, change, this.now()),
		);
	}

	release(
		items: readonly { readonly id: string; readonly epoch: number }[],
	): Promise<ApplyResult[]> {
		return this.#pieces(
			items,
			() => 1,
			(tables, { id, epoch }) => {
				const now = this.now();
				return storeTransition(tables, id, now, (group) => released(group, epoch));
			},
		);
	}

	async claim(request: ClaimRequest): Promise<Claimed[]> {
		const found: Claimed[] = [];
		await this.#untilLimit(request.limit, CLAIM_PIECE, (tables, limit) => {
			const piece = claimSome(tables, { ...request, limit }, this.now());
			found.push(...piece);
			return piece.length;
		});
		return found;
	}

	wake(
		what: { readonly target: string } | { readonly storeId: string },
		limit: number,
	): Promise<number> {
		return this.#untilLimit(limit, CLAIM_PIECE, (tables, piece) =>
			wakeSome(tables, what, piece, this.now()),
		);
	}

	purge(request: {
		readonly state: "completed" | "rolledBack";
		readonly age: number;
		readonly limit: number;
	}): Promise<number> {
		return this.#untilLimit(request.limit, CLAIM_PIECE, (tables, piece) =>
			purgeSome(tables, request.state, this.now() - request.age, piece),
		);
	}

	get(ids: readonly string[]): Promise<(GroupRecord | undefined)[]> {
		return this.#read((tables) => ids.map((id) => tables.find(id)?.group));
	}

	payloads(id: string): Promise<PayloadRecord[]> {
		return this.#read((tables) => tables.payloadsOf(id));
	}

	context(id: string): Promise<string | undefined> {
		return this.#read((tables) => {
			const seq = tables.seqOf(id);
			return seq === undefined ? undefined : tables.contextOf(seq);
		});
	}

	timeline(id: string): Promise<TimelineEntry[]> {
		return this.#read((tables) => tables.timelineOf(id));
	}

	/**
	 * Newest first. A filter on one field is answered by an index alone; see `planGroups` for
	 * what filters on top of what. Lists by `idPrefix` go by the id itself, all others by the
	 * order of insertion, which is that of `createdAt`.
	 *
	 * @throws LOTTOR_INVALID_REQUEST when the cursor or the limit (1 to 1000) is wrong
	 */
	async list(filter: GroupFilter, page: PageRequest): Promise<Page<GroupRecord>> {
		const plan = await this.#read((tables) => planGroups(tables, filter, page.order));
		return this.#page(plan, page, (tables, { key }) => tables.find(key)?.group);
	}

	/**
	 * Newest first by group, last message first within one. See `planMessages` for what filters
	 * on top of what.
	 *
	 * @throws LOTTOR_INVALID_REQUEST when the cursor or the limit (1 to 1000) is wrong
	 */
	async listMessages(filter: MessageFilter, page: PageRequest): Promise<Page<MessageRow>> {
		const plan = await this.#read((tables) => planMessages(tables, filter, page.order));
		return this.#page(plan, page, (tables, { key, index }) => tables.findMessage(key, index));
	}

	async countGroups(filter: GroupFilter, most: number): Promise<Total> {
		if (statesAlone(filter)) return totalOf((await this.stats()).groups, filter.states);
		return this.#count(await this.#read((tables) => planGroups(tables, filter)), most);
	}

	async countMessages(filter: MessageFilter, most: number): Promise<Total> {
		if (statesAlone(filter)) return totalOf((await this.stats()).messages, filter.states);
		return this.#count(await this.#read((tables) => planMessages(tables, filter)), most);
	}

	facets(): Promise<Facets> {
		return this.#read(facetsOf);
	}

	failures(): Promise<FailureKind[]> {
		return this.#read(failuresOf);
	}

	activity(step: ActivityStep, since: number, until: number): Promise<Activity[]> {
		return this.#read((tables) => activityOf(tables, step, since, until));
	}

	async record(entries: readonly NewAuditEntry[]): Promise<void> {
		await this.#pieces(
			entries,
			() => 1,
			(tables, entry) => addAudit(tables, entry, this.now()),
		);
	}

	async audits(filter: AuditFilter, page: PageRequest): Promise<Page<AuditEntry>> {
		const limit = limitOf(page);
		const before =
			page.cursor === undefined ? Number.MAX_SAFE_INTEGER : auditCursor(page.cursor);
		const found = await this.#read((tables) => auditsOf(tables, filter, before, limit + 1));
		const items = found.slice(0, limit);
		const last = items.at(-1);
		return found.length > limit && last ? { items, next: last.id } : { items };
	}

	stats(): Promise<StoreStats> {
		return this.#read(statsOf);
	}

	async #connect(): Promise<OpenedCoordinatorStore> {
		await this.#closing;
		return this.#patiently(() => {
			const db = connect(this.#file, this.#make);
			try {
				const identity = migrate(db, this.#file, this.#random);
				this.#db = db;
				this.#tables = new Tables(db);
				this.#refusal = undefined;
				return identity;
			} catch (error) {
				db.close();
				throw error;
			}
		});
	}

	async #shut(): Promise<void> {
		const opening = this.#opening;
		this.#opening = undefined;
		this.#refusal ??= new Error("it is closed");
		await opening?.catch(() => undefined);
		this.#refusal ??= new Error("it is closed");
		await this.#writer.idle();
		this.#disconnect();
	}

	#disconnect(): void {
		this.#db?.close();
		this.#db = undefined;
		this.#tables = undefined;
	}

	#connected(): Tables {
		if (this.#tables) return this.#tables;
		throw unavailable(this.#file, this.#refusal);
	}

	/** What a call gets that met a fault of the database. After some faults the file must be opened anew. */
	#fault(error: unknown): LottorError {
		if (error instanceof LottorError) return error;
		if (isFatal(error)) this.#break(error);
		return unavailable(this.#file, error);
	}

	#rollback(): void {
		try {
			this.#tables?.rollback();
		} catch (error) {
			this.#break(error);
		}
	}

	/** Closes the connection, which can't be trusted any more, and refuses all until `open()`. */
	#break(error: unknown): void {
		if (!this.#tables) return;
		this.#refusal = error;
		this.#opening = undefined;
		this.#disconnect();
		this.#writer.abort(unavailable(this.#file, error));
	}

	async #write<T>(run: (tables: Tables) => T): Promise<T> {
		if (this.#refusal !== undefined) throw unavailable(this.#file, this.#refusal);
		return this.#writer.submit(() => run(this.#connected()));
	}

	/** Runs `one` for each item, in pieces of about PIECE_ROWS that other calls may come between. */
	async #pieces<Item, Result>(
		items: readonly Item[],
		rows: (item: Item) => number,
		one: (tables: Tables, item: Item) => Result,
	): Promise<Result[]> {
		const pieces: Item[][] = [];
		let room = 0;
		for (const item of items) {
			if (room <= 0) {
				pieces.push([]);
				room = PIECE_ROWS;
			}
			pieces.at(-1)?.push(item);
			room -= rows(item);
		}
		const results = await Promise.all(
			pieces.map((piece) => this.#write((tables) => piece.map((item) => one(tables, item)))),
		);
		return results.flat();
	}

	/** Runs `some` with a piece of the limit until the limit is used up or nothing is left. */
	async #untilLimit(
		limit: number,
		most: number,
		some: (tables: Tables, piece: number) => number,
	): Promise<number> {
		let total = 0;
		while (total < limit) {
			const piece = Math.min(most, limit - total);
			const count = await this.#write((tables) => some(tables, piece));
			total += count;
			if (count < piece) break;
		}
		return total;
	}

	async #read<T>(read: (tables: Tables) => T): Promise<T> {
		return this.#patiently(() => {
			if (this.#refusal !== undefined) throw unavailable(this.#file, this.#refusal);
			const tables = this.#connected();
			return tables.snapshot(() => read(tables));
		});
	}

	/** Runs `attempt`, again and again while another process locks the file, without blocking the loop. */
	async #patiently<T>(attempt: () => T): Promise<T> {
		const until = this.now() + this.#lockTimeout;
		for (;;) {
			try {
				return attempt();
			} catch (error) {
				if (resultCode(error) === undefined) throw error;
				if (!isBusy(error) || this.now() >= until) throw this.#fault(error);
			}
			await new Promise<void>((again) => {
				this.#clock.after(1 + RETRY_MS * this.#random.fraction(), again);
			});
		}
	}

	async #count(plan: Plan, most: number): Promise<Total> {
		let count = 0;
		let looked = 0;
		let after: Position | undefined;
		for (;;) {
			const wanted = Math.min(COUNT_PIECE, most - count);
			const taken = await this.#read((tables) => step(tables, plan, after, wanted));
			count += taken.hits.length;
			looked += taken.looked;
			after = taken.next;
			if (after === undefined) return { count, exact: true };
			if (count >= most || looked >= COUNT_SCAN) return { count, exact: false };
			await new Promise((turn) => setImmediate(turn));
		}
	}

	async #page<T>(
		plan: Plan,
		page: PageRequest,
		load: (tables: Tables, position: Position) => T | undefined,
	): Promise<Page<T>> {
		const limit = limitOf(page);
		let after = page.cursor === undefined ? undefined : positionOf(page.cursor, plan);
		const found: { position: Position; item: T }[] = [];
		let looked = 0;
		// One more than asked for tells whether there is a next page.
		while (found.length <= limit) {
			after = await this.#read((tables) => {
				const { hits, ...taken } = step(tables, plan, after, limit + 1 - found.length);
				for (const position of hits) {
					const item = load(tables, position);
					if (item) found.push({ position, item });
				}
				looked += taken.looked;
				return taken.next;
			});
			if (after === undefined) break;
			if (found.length <= limit && looked >= (page.scan ?? Infinity)) {
				return { items: found.map(({ item }) => item), next: cursorOf(after) };
			}
			await new Promise((turn) => setImmediate(turn));
		}
		const items = found.slice(0, limit).map(({ item }) => item);
		const last = found[limit - 1];
		return found.length > limit && last ? { items, next: cursorOf(last.position) } : { items };
	}
}

function auditCursor(cursor: string): number {
	if (/^\d{1,15}$/.test(cursor)) return Number(cursor);
	throw wrongCursor();
}
