import {
	type Clock,
	LottorError,
	newStoreId,
	type Outcome,
	type Random,
} from "../../../protocol/index.ts";
import type { UnsettledMessage } from "../contract.ts";
import type { RecordedBackend } from "../recorded.ts";
import type { InboxRow, OutcomeRow } from "../rules.ts";
import { StoreClock } from "../../store-clock.ts";
import { Connection, type RedisSource } from "./connection.ts";
import { checkSafety } from "./safety.ts";
import {
	CONFIRM,
	END_OUTCOME,
	INSERT_OUTCOME,
	NAME_STORE,
	PURGE,
	READ,
	type Script,
	SETTLE,
	SWAP_INBOX,
	TIME,
} from "./scripts.ts";

/** Version of the keys. A store with a higher one is refused. */
const VERSION = 1;
/** Most rows that one step touches: Redis does nothing else meanwhile. */
const CHUNK = 200;
const OUTCOME_FIELDS = ["state", "node", "instance", "coordinator", "at", "confirmed"];
const INBOX_FIELDS = ["row", "settled"];

/** What the store on Redis is made with. */
export interface RedisBackendOptions {
	readonly clock: Clock;
	readonly random: Random;
	/** First part of every key; what is in braces decides the slot of a cluster. */
	readonly prefix: string;
	/** The time that rows get. For tests. @default the server's */
	readonly now?: () => number;
}

type Fields = readonly (string | null)[];

/** The recorded guarantee's steps on Redis: one Lua script each. */
export class RedisBackend implements RecordedBackend {
	readonly #connection: Connection;
	readonly #options: RedisBackendOptions;
	readonly #time: StoreClock;
	#durability = "";

	constructor(source: RedisSource, options: RedisBackendOptions) {
		this.#connection = new Connection(source, options.clock);
		this.#options = options;
		this.#time = new StoreClock(options.clock, async () => {
			const told = await this.#connection.run(TIME, [this.#key("store")], []);
			const [seconds, micros] = told as [string, string];
			return Number(seconds) * 1_000 + Number(micros) / 1_000;
		});
	}

	get description(): string {
		const more = this.#durability === "" ? "" : `, ${this.#durability}`;
		return `${this.#connection.place} (recorded${more})`;
	}

	async open() {
		const connection = this.#connection;
		await connection.open();
		try {
			this.#durability = await checkSafety(connection);
			const named = await connection.run(
				NAME_STORE,
				[this.#key("store")],
				[VERSION, newStoreId(this.#options.random)],
			);
			const [version, storeId] = named as [string, string];
			if (Number(version) !== VERSION) {
				throw new LottorError(
					"LOTTOR_STORE_UNUSABLE",
					`${connection.place} can't be started on: its keys have version ${version}, this one knows ${VERSION}; install the version of Lottor that made them, or a newer one`,
					{ place: connection.place },
				);
			}
			if (!this.#options.now) await this.#time.measure();
			return { storeId };
		} catch (error) {
			const reported = connection.storeError(error);
			if (reported.type === "LOTTOR_STORE_UNUSABLE") await connection.close();
			throw reported;
		}
	}

	close(): Promise<void> {
		return this.#connection.close();
	}

	now(): number {
		return this.#options.now?.() ?? this.#time.now();
	}

	async insertOutcome(row: OutcomeRow): Promise<boolean> {
		const { id, owner } = row;
		const token = newStoreId(this.#options.random);
		const inserted = await this.#connection.run(
			INSERT_OUTCOME,
			[this.#outcomeKey(id), this.#key("unconfirmed"), this.#key("done")],
			[
				id,
				token,
				row.state,
				owner?.nodeID ?? "",
				owner?.instanceID ?? "",
				row.coordinator,
				row.at,
				row.confirmed ? 1 : 0,
			],
		);
		return inserted === 1;
	}

	async outcomes(ids: readonly string[]): Promise<(OutcomeRow | undefined)[]> {
		const rows = await this.#read(ids, OUTCOME_FIELDS, (id) => this.#outcomeKey(id));
		return rows.map(({ id, fields }) => outcomeOf(id, fields));
	}

	async endOutcome(id: string, to: Outcome, at: number): Promise<boolean> {
		const keys = [this.#outcomeKey(id), this.#key("unconfirmed")];
		return (await this.#connection.run(END_OUTCOME, keys, [id, to, at])) === 1;
	}

	async confirm(ids: readonly string[]): Promise<void> {
		for (const chunk of chunks(ids.filter(isText))) {
			await this.#steps(
				CONFIRM,
				["unconfirmed", "done"],
				chunk.map((id) => this.#outcomeKey(id)),
				chunk,
			);
		}
	}

	async unconfirmed(before: number, limit: number) {
		const ids = await this.#oldest("unconfirmed", before, limit);
		const rows = await this.outcomes(ids);
		return rows.flatMap((row) => (row ? [{ id: row.id, coordinator: row.coordinator }] : []));
	}

	insertInbox(row: InboxRow): Promise<boolean> {
		return this.#putInbox(undefined, row);
	}

	async inbox(ids: readonly string[]): Promise<(InboxRow | undefined)[]> {
		const rows = await this.#read(ids, INBOX_FIELDS, (id) => this.#inboxKey(id));
		return rows.map(({ fields }) => inboxOf(fields));
	}

	swapInbox(before: InboxRow, after: InboxRow): Promise<boolean> {
		return this.#putInbox(before, after);
	}

	async settle(reports: readonly { readonly id: string; readonly attempt: number }[]) {
		const sound = reports.filter(({ id, attempt }) => isText(id) && Number.isInteger(attempt));
		for (const chunk of chunks(sound)) {
			await this.#steps(
				SETTLE,
				["unsettled", "done"],
				chunk.map(({ id }) => this.#inboxKey(id)),
				chunk.flatMap(({ id, attempt }) => [id, attempt]),
			);
		}
	}

	async unsettled(before: number, limit: number): Promise<UnsettledMessage[]> {
		const rows = await this.inbox(await this.#oldest("unsettled", before, limit));
		return rows.flatMap((row) => {
			if (!row) return [];
			const { id, attempt, revision, receipt, coordinator } = row;
			return [{ id, attempt, revision, receipt, coordinator }];
		});
	}

	async purge(before: number, limit: number): Promise<number> {
		const names = await this.#oldest("done", before, limit);
		let purged = 0;
		for (const chunk of chunks(names)) {
			const keys = chunk.map((name) => this.#key(name));
			purged += Number(await this.#steps(PURGE, ["done"], keys, [before, ...chunk]));
		}
		return purged;
	}

	async #putInbox(before: InboxRow | undefined, after: InboxRow): Promise<boolean> {
		const put = await this.#connection.run(
			SWAP_INBOX,
			[this.#inboxKey(after.id), this.#key("unsettled"), this.#key("done")],
			[
				after.id,
				before ? withoutSettled(before) : "",
				before?.settled ? 1 : 0,
				withoutSettled(after),
				after.settled ? 1 : 0,
				after.state,
				after.attempt,
				after.at,
				newStoreId(this.#options.random),
			],
		);
		return put === 1;
	}

	async #steps(
		script: Script,
		lists: readonly string[],
		rows: readonly string[],
		values: readonly (string | number)[],
	): Promise<unknown> {
		const keys = [...lists.map((list) => this.#key(list)), ...rows];
		return this.#connection.run(script, keys, values);
	}

	async #read(
		ids: readonly string[],
		fields: readonly string[],
		keyOf: (id: string) => string,
	): Promise<{ readonly id: string; readonly fields: Fields }[]> {
		const found = new Map<string, Fields>();
		for (const chunk of chunks(ids.filter(isText))) {
			const rows = await this.#connection.run(READ, chunk.map(keyOf), fields);
			chunk.forEach((id, index) => found.set(id, (rows as Fields[])[index] ?? []));
		}
		return ids.map((id) => ({ id, fields: found.get(id) ?? [] }));
	}

	#oldest(list: string, before: number, limit: number): Promise<string[]> {
		return this.#connection.call((client) =>
			client.zrangebyscore(this.#key(list), "-inf", `(${before}`, "LIMIT", 0, limit),
		);
	}

	#outcomeKey(id: string): string {
		return this.#key(`outcome:${id}`);
	}

	#inboxKey(id: string): string {
		return this.#key(`inbox:${id}`);
	}

	/** One slot for all: a step touches a row and the lists that it is in. */
	#key(name: string): string {
		return `{${this.#options.prefix}}:${name}`;
	}
}

function outcomeOf(id: string, fields: Fields): OutcomeRow | undefined {
	const [state, node, instance, coordinator, at, confirmed] = fields;
	if (!state) return undefined;
	return {
		id,
		state: state as OutcomeRow["state"],
		owner: node && instance ? { nodeID: node, instanceID: instance } : null,
		coordinator: coordinator ?? "",
		at: Number(at),
		confirmed: confirmed === "1",
	};
}

function inboxOf([row, settled]: Fields): InboxRow | undefined {
	if (!row) return undefined;
	return { ...(JSON.parse(row) as InboxRow), settled: settled === "1" };
}

/** The fields in one order, so that equal rows are equal texts. */
function withoutSettled(row: InboxRow): string {
	const { id, state, attempt, revision, fence, receipt, coordinator } = row;
	const { error, owner, renewed, at } = row;
	const rest = { id, state, attempt, revision, fence, receipt, coordinator };
	return JSON.stringify({ ...rest, error, owner, renewed, at });
}

/** @returns whether the value can be an id at all: a bad item of a call must not fail the others */
function isText(value: unknown): value is string {
	return typeof value === "string" && value !== "";
}

function* chunks<T>(items: readonly T[]): Generator<T[]> {
	for (let from = 0; from < items.length; from += CHUNK) yield items.slice(from, from + CHUNK);
}
