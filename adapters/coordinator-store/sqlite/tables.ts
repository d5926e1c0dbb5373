import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";

import {
	type GroupRecord,
	type GroupState,
	messageId,
	type MessageRecord,
	type NewEntry,
	type NewGroup,
	type PayloadRecord,
	type TimelineEntry,
} from "../../../protocol/index.ts";
import { groupCame, type Happened, messageCame } from "../activity.ts";
import type { MessageRow } from "../contract.ts";
import { ActivityCounts } from "./activity.ts";
import {
	entryOf,
	entryValues,
	groupOf,
	groupValues,
	INSERT_ENTRY,
	INSERT_GROUP,
	INSERT_MESSAGE,
	messageOf,
	messageValues,
	newGroupValues,
	newMessageValues,
	type Row,
	type Stored,
	UPDATE_GROUP,
	UPDATE_MESSAGE,
} from "./rows.ts";

/**
 * Messages whose groups are kept from one transaction to the next: enough for those between
 * prepare and report, and for a group of the largest size, whose reports come one by one.
 */
const CACHED_MESSAGES = 8_192;

/**
 * The tables of the store: loads and saves whole groups and keeps the counters true. What is
 * written belongs to the transaction that the caller has open.
 */
export class Tables {
	readonly #db: DatabaseSync;
	readonly #statements = new Map<string, StatementSync>();
	readonly #cache = new Map<string, Stored>();
	#cachedMessages = 0;
	readonly #deltas = new Map<string, number>();
	readonly #activity = new ActivityCounts();
	#dataVersion: unknown;
	#lastCreated: number | undefined;

	constructor(db: DatabaseSync) {
		this.#db = db;
	}

	/** Takes the write lock; what another process wrote meanwhile makes the cache void. */
	begin(): void {
		this.statement("BEGIN IMMEDIATE").run();
		const version = this.row("PRAGMA data_version")?.["data_version"];
		if (version !== this.#dataVersion) this.#forget();
		this.#dataVersion = version;
	}

	commit(): void {
		for (const [name, delta] of this.#deltas) {
			if (delta === 0) continue;
			const [kind = "", part = ""] = splitOnce(name);
			this.run(
				"INSERT INTO lottor_counters (name, part, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
				kind,
				part,
				delta,
			);
		}
		this.#deltas.clear();
		this.#activity.write(this);
		this.statement("COMMIT").run();
	}

	rollback(): void {
		this.#forget();
		this.#deltas.clear();
		this.#activity.clear();
		if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
	}

	/** Runs `read` on one snapshot. */
	snapshot<T>(read: () => T): T {
		this.statement("BEGIN").run();
		try {
			return read();
		} finally {
			if (this.#db.isTransaction) this.statement("COMMIT").run();
		}
	}

	statement(sql: string): StatementSync {
		let statement = this.#statements.get(sql);
		if (!statement) {
			statement = this.#db.prepare(sql);
			this.#statements.set(sql, statement);
		}
		return statement;
	}

	run(sql: string, ...values: SQLInputValue[]): { changes: number; seq: number } {
		const { changes, lastInsertRowid } = this.statement(sql).run(...values);
		return { changes: Number(changes), seq: Number(lastInsertRowid) };
	}

	row(sql: string, ...values: SQLInputValue[]): Row | undefined {
		return this.statement(sql).get(...values);
	}

	rows(sql: string, ...values: SQLInputValue[]): Row[] {
		return this.statement(sql).all(...values);
	}

	/** The group as it stands within the open transaction. */
	load(id: string): Stored | undefined {
		const cached = this.#cache.get(id);
		if (cached) return cached;
		const row = this.row("SELECT * FROM lottor_groups WHERE id = ?", id);
		return row && this.#keep(this.#withMessages(row));
	}

	/** The group by its id or `seq`, past the cache: for reads on a snapshot. */
	find(key: string | number): Stored | undefined {
		const column = typeof key === "string" ? "id" : "seq";
		const row = this.row(`SELECT * FROM lottor_groups WHERE ${column} = ?`, key);
		return row && this.#withMessages(row);
	}

	findMessage(key: string | number, index: number): MessageRow | undefined {
		const column = typeof key === "string" ? "id" : "seq";
		const row = this.row(
			"SELECT m.*, g.id AS g_id, g.state AS g_state, g.source AS g_source, g.created_at AS g_created " +
				`FROM lottor_groups g JOIN lottor_messages m ON m.seq = g.seq WHERE g.${column} = ? AND m.idx = ?`,
			key,
			index,
		);
		if (!row) return undefined;
		const group = row["g_id"] as string;
		return {
			...messageOf(group, row),
			group,
			groupState: row["g_state"] as GroupState,
			source: row["g_source"] as string,
			createdAt: row["g_created"] as number,
		};
	}

	/** When the last group was made: no later one is stored with an earlier time. */
	lastCreated(): number {
		this.#lastCreated ??=
			(this.row("SELECT created_at FROM lottor_groups ORDER BY seq DESC LIMIT 1")?.[
				"created_at"
			] as number | undefined) ?? 0;
		return this.#lastCreated;
	}

	/** @returns undefined, having done nothing, when a group of this id exists */
	insert(group: GroupRecord, source: NewGroup, entries: readonly NewEntry[]): Stored | undefined {
		const { changes, seq } = this.run(INSERT_GROUP, ...newGroupValues(group));
		if (changes === 0) return undefined;
		this.#lastCreated = group.createdAt;
		this.#count("group", group.state, 1);
		this.#happened(groupCame(group, group.createdAt), group.createdAt);
		this.run("INSERT INTO lottor_contexts (seq, content) VALUES (?, ?)", seq, source.context);
		for (const message of group.messages) {
			this.run(INSERT_MESSAGE, ...newMessageValues(seq, message));
			this.#count("message", message.state, 1);
		}
		source.messages.forEach(({ content, terms = [] }, index) => {
			this.addPayload(seq, index, 0, content);
			this.addTerms(seq, index, terms);
		});
		const stored = { seq, group };
		this.#write(stored, entries, group.createdAt);
		return this.#keep(stored);
	}

	/** Stores what a transition made of a group: only rows that changed are written. */
	save(before: Stored, group: GroupRecord, entries: readonly NewEntry[], at: number): Stored {
		const { seq } = before;
		this.run(UPDATE_GROUP, ...groupValues(group), seq);
		if (before.group.state !== group.state) {
			this.#count("group", before.group.state, -1);
			this.#count("group", group.state, 1);
			if (group.state !== "prepared") this.#happened(groupCame(group, at), at);
		}
		group.messages.forEach((message, index) => {
			const old = before.group.messages[index];
			if (old === message || !old) return;
			this.run(UPDATE_MESSAGE, ...messageValues(message), seq, index);
			if (old.state === message.state) return;
			this.#countMessage(old, -1);
			this.#countMessage(message, 1);
			this.#happened(messageCame(message), at);
		});
		const stored = { seq, group };
		this.#write(stored, entries, at);
		return this.#keep(stored);
	}

	addPayload(seq: number, index: number, revision: number, content: string): void {
		this.run(
			"INSERT INTO lottor_payloads (seq, idx, revision, content) VALUES (?, ?, ?, ?)",
			seq,
			index,
			revision,
			content,
		);
	}

	addTerms(seq: number, index: number, terms: readonly string[]): void {
		for (const term of terms) {
			this.run(
				"INSERT INTO lottor_terms (term, seq, idx) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
				term,
				seq,
				index,
			);
		}
	}

	/** The payload that the message has now. Its revision may be lower: a retry can raise the message's. */
	payloadOf({ seq, group }: Stored, message: MessageRecord): PayloadRecord {
		const row = this.row(
			"SELECT revision, content FROM lottor_payloads WHERE seq = ? AND idx = ? AND revision <= ? ORDER BY revision DESC LIMIT 1",
			seq,
			message.index,
			message.revision,
		);
		if (!row) throw new Error(`message ${group.id}.${message.index} has no payload`);
		return {
			message: message.id,
			revision: row["revision"] as number,
			content: row["content"] as string,
		};
	}

	payloadsOf(id: string): PayloadRecord[] {
		return this.rows(
			"SELECT idx, revision, content FROM lottor_payloads WHERE seq = ? ORDER BY idx, revision",
			this.seqOf(id) ?? null,
		).map((row) => ({
			message: messageId(id, row["idx"] as number),
			revision: row["revision"] as number,
			content: row["content"] as string,
		}));
	}

	contextOf(seq: number): string {
		const row = this.row("SELECT content FROM lottor_contexts WHERE seq = ?", seq);
		return String(row?.["content"]);
	}

	timelineOf(id: string): TimelineEntry[] {
		return this.rows(
			"SELECT * FROM lottor_timeline WHERE seq = ? ORDER BY version, place",
			this.seqOf(id) ?? null,
		).map((row) => entryOf(id, row));
	}

	seqOf(id: string): number | undefined {
		return this.row("SELECT seq FROM lottor_groups WHERE id = ?", id)?.["seq"] as
			number | undefined;
	}

	delete({ seq, group }: Stored): void {
		this.#drop(group.id);
		this.#count("group", group.state, -1);
		for (const message of group.messages) this.#countMessage(message, -1);
		for (const table of ["terms", "timeline", "payloads", "contexts", "messages", "groups"]) {
			this.run(`DELETE FROM lottor_${table} WHERE seq = ?`, seq);
		}
	}

	#forget(): void {
		this.#cache.clear();
		this.#cachedMessages = 0;
		this.#lastCreated = undefined;
	}

	#withMessages(row: Row): Stored {
		const seq = row["seq"] as number;
		const messages = this.rows("SELECT * FROM lottor_messages WHERE seq = ? ORDER BY idx", seq);
		return { seq, group: groupOf(row, messages) };
	}

	#keep(stored: Stored): Stored {
		const { id, messages, state } = stored.group;
		this.#drop(id);
		if (state === "completed") return stored;
		this.#cache.set(id, stored);
		this.#cachedMessages += messages.length;
		for (const oldest of this.#cache.keys()) {
			if (this.#cachedMessages <= CACHED_MESSAGES) break;
			this.#drop(oldest);
		}
		return stored;
	}

	#drop(id: string): void {
		this.#cachedMessages -= this.#cache.get(id)?.group.messages.length ?? 0;
		this.#cache.delete(id);
	}

	#write(stored: Stored, entries: readonly NewEntry[], at: number): void {
		entries.forEach((entry, place) => {
			this.run(INSERT_ENTRY, ...entryValues(stored, entry, place, at));
		});
	}

	#happened(happened: readonly Happened[], at: number): void {
		for (const { what, part } of happened) this.#activity.add(what, part, at);
	}

	#countMessage(message: MessageRecord, by: number): void {
		this.#count("message", message.state, by);
		if (message.state === "pending" || message.state === "delivering") {
			this.#count("backlog", message.target, by);
		}
	}

	#count(name: string, part: string, by: number): void {
		const key = `${name} ${part}`;
		this.#deltas.set(key, (this.#deltas.get(key) ?? 0) + by);
	}
}

function splitOnce(key: string): [string, string] {
	const at = key.indexOf(" ");
	return [key.slice(0, at), key.slice(at + 1)];
}
