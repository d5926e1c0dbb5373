import { randomUUID } from "node:crypto";
import type { SQLInputValue } from "node:sqlite";
import { Errors, type Service, type ServiceBroker } from "moleculer";

import type { TxBase } from "../../adapters/participant-store/contract.ts";
import {
	openSqliteFile,
	type SqliteFile,
	type SqliteReader,
	type SqliteTx,
} from "../../adapters/sqlite/index.ts";
import { type Clock, hasCode, LottorError, messageOf } from "../../protocol/index.ts";

/** A row as moleculer-db hands it around. */
export type Document = Record<string, unknown>;

/** What moleculer-db's `find`, `list` and `count` ask for. */
export interface Filters {
	readonly limit?: number | null;
	readonly offset?: number | null;
	/** Field names, `-` before one for descending. */
	readonly sort?: string | readonly string[] | null;
	readonly search?: string | null;
	readonly searchFields?: string | readonly string[] | null;
	/** Fields that must equal a value, or be one of `{ $in: [...] }`. */
	readonly query?: Document | null;
}

/** moleculer-db's update object; only `$set`, whose names may be paths (`a.b`). */
export interface Update {
	readonly $set: Document;
}

/** Reads and writes of one table. */
export interface Rows<Row extends object = Document> {
	find(filters?: Filters): Promise<Row[]>;
	findOne(query: Document): Promise<Row | null>;
	findById(id: unknown): Promise<Row | null>;
	/** In the order of the ids; those that don't exist are left out. */
	findByIds(ids: readonly unknown[]): Promise<Row[]>;
	count(filters?: Filters): Promise<number>;
	/** @throws DUPLICATE_ID (409) when a row has the entity's `_id` */
	insert(entity: object): Promise<Row>;
	insertMany(entities: readonly object[]): Promise<Row[]>;
	/** @returns the row as it is then; null when there is none */
	updateById(id: unknown, update: Update): Promise<Row | null>;
	/** @returns how many rows */
	updateMany(query: Document, update: Update): Promise<number>;
	/** @returns the row as it was; null when there was none */
	removeById(id: unknown): Promise<Row | null>;
	/** @returns how many rows */
	removeMany(query: Document): Promise<number>;
	/** @returns how many rows */
	clear(): Promise<number>;
}

/** A moleculer-db adapter on a table of JSON documents. */
export interface SqliteAdapter<Row extends object = Document> extends Rows<Row> {
	init(broker: ServiceBroker, service: Service): void;
	connect(): Promise<void>;
	disconnect(): Promise<void>;
	/**
	 * The same table inside a transaction: what is done through it is committed or rolled back with
	 * the transaction. The handle of a recorded store, which has no transaction, gives plain writes.
	 */
	withTx(tx: TxBase): Rows<Row>;
	entityToObject(entity: Row): Row;
	beforeSaveTransformID(entity: Document, idField: string): Document;
	afterRetrieveTransformID(entity: Document, idField: string): Document;
}

/** Options of {@link sqliteAdapter}. */
export interface SqliteAdapterOptions {
	/** The file, best the one of the service's participant store. */
	readonly file: string;
	/** Letters, digits and `_`. */
	readonly table: string;
	/** Fields to index. @default [] */
	readonly indexes?: readonly string[];
	/** @default the machine's */
	readonly clock?: Clock;
}

type Use<Handle extends SqliteReader> = <T>(fn: (handle: Handle) => T) => Promise<T>;

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;
const PATH = /^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$/;
const UNIQUE_VIOLATION = 2067;

/**
 * A moleculer-db adapter on a SQLite file that it shares with Lottor's participant store: every
 * write takes the file's one lock, so none is lost with another request's rollback.
 *
 * A file that can't be used ends the process (`broker.fatal`): moleculer-db would try again for ever.
 */
export function sqliteAdapter<Row extends object = Document>(
	options: SqliteAdapterOptions,
): SqliteAdapter<Row> {
	const { table, indexes = [] } = options;
	if (!NAME.test(table)) throw badRequest(`"${table}" is no table name`);
	for (const field of indexes) checkField(field);
	let file: SqliteFile | undefined;
	let broker: ServiceBroker | undefined;

	const opened = (): SqliteFile => {
		if (file) return file;
		throw new LottorError("LOTTOR_STORE_UNAVAILABLE", `Table ${table} is not connected`);
	};
	const plain = rows<Row>(
		table,
		async (fn) => opened().read(fn),
		async (fn) => opened().write(fn),
	);

	return {
		...plain,
		init: (ownBroker) => {
			broker = ownBroker;
		},
		connect: async () => {
			if (file) return;
			const clock = options.clock ? { clock: options.clock } : {};
			try {
				const shared = await openSqliteFile(options.file, clock);
				try {
					await shared.write((tx) => makeTable(tx, table, indexes));
				} catch (error) {
					await shared.close();
					throw error;
				}
				file = shared;
			} catch (error) {
				const text = `Table ${table}: ${messageOf(error)}`;
				if (hasCode(error, "LOTTOR_STORE_UNUSABLE")) broker?.fatal(text, error as Error);
				throw error;
			}
		},
		disconnect: async () => {
			const shared = file;
			file = undefined;
			await shared?.close();
		},
		withTx: (tx) => {
			if (opened().owns(tx)) return rows<Row>(table, inside(tx), inside(tx));
			if (Object.keys(tx).length === 1) return plain;
			throw badRequest(`the transaction is not one of file ${options.file}`);
		},
		entityToObject: (entity) => entity,
		beforeSaveTransformID: (entity, idField) => {
			const { [idField]: id, ...others } = entity;
			return idField === "_id" || id === undefined ? { ...entity } : { ...others, _id: id };
		},
		afterRetrieveTransformID: (entity, idField) => {
			const { _id, ...others } = entity;
			return idField === "_id" ? entity : { ...others, [idField]: _id };
		},
	};
}

function inside(tx: SqliteTx): Use<SqliteTx> {
	return async (fn) => fn(tx);
}

function makeTable(tx: SqliteTx, table: string, indexes: readonly string[]): void {
	tx.run(
		`CREATE TABLE IF NOT EXISTS ${table} (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, doc TEXT NOT NULL) STRICT`,
	);
	for (const field of indexes) {
		tx.run(
			`CREATE INDEX IF NOT EXISTS ${table}_${field.replaceAll(".", "_")} ON ${table} (${column(field)})`,
		);
	}
}

function rows<Row extends object>(
	table: string,
	read: Use<SqliteReader>,
	write: Use<SqliteTx>,
): Rows<Row> {
	const parse = (row: Readonly<Record<string, unknown>> | undefined): Row | null =>
		row === undefined ? null : (JSON.parse(String(row["doc"])) as Row);
	const parseAll = (found: readonly Readonly<Record<string, unknown>>[]): Row[] =>
		found.map((row) => JSON.parse(String(row["doc"])) as Row);
	const byId = (reader: SqliteReader, id: unknown): Row | null =>
		parse(reader.get(`SELECT doc FROM ${table} WHERE id = ?`, String(id)));
	const insertOne = (tx: SqliteTx, entity: object): Row => {
		const document: Document = { _id: randomUUID(), ...entity };
		if (typeof document["_id"] !== "string") throw badRequest("`_id` must be a string");
		const doc = JSON.stringify(document);
		try {
			tx.run(`INSERT INTO ${table} (id, doc) VALUES (?, ?)`, document["_id"], doc);
		} catch (error) {
			throw isDuplicate(error) ? duplicate(document["_id"]) : error;
		}
		return JSON.parse(doc) as Row;
	};
	const updateOne = (tx: SqliteTx, row: Row, update: Update): Row => {
		const id = String((row as Document)["_id"]);
		const changed = { ...withSet(row, update), _id: id };
		tx.run(`UPDATE ${table} SET doc = ? WHERE id = ?`, JSON.stringify(changed), id);
		return changed as unknown as Row;
	};
	const select = (reader: SqliteReader, filters: Filters): Row[] => {
		const where = condition(filters);
		const sql = `SELECT doc FROM ${table} ${where.sql} ${order(filters.sort)} LIMIT ? OFFSET ?`;
		return parseAll(reader.all(sql, ...where.values, filters.limit || -1, filters.offset ?? 0));
	};

	return {
		find: (filters = {}) => read((reader) => select(reader, filters)),
		findOne: (query) => read((reader) => select(reader, { query, limit: 1 })[0] ?? null),
		findById: (id) => read((reader) => byId(reader, id)),
		findByIds: (ids) =>
			read((reader) => ids.map((id) => byId(reader, id)).filter((row) => row !== null)),
		count: (filters = {}) =>
			read((reader) => {
				const where = condition(filters);
				const sql = `SELECT count(*) AS n FROM ${table} ${where.sql}`;
				return Number(reader.get(sql, ...where.values)?.["n"]);
			}),
		insert: (entity) => write((tx) => insertOne(tx, entity)),
		insertMany: (entities) => write((tx) => entities.map((entity) => insertOne(tx, entity))),
		updateById: (id, update) =>
			write((tx) => {
				const row = byId(tx, id);
				return row && updateOne(tx, row, update);
			}),
		updateMany: (query, update) =>
			write((tx) => {
				const found = select(tx, { query });
				for (const row of found) updateOne(tx, row, update);
				return found.length;
			}),
		removeById: (id) =>
			write((tx) => {
				const row = byId(tx, id);
				if (row) tx.run(`DELETE FROM ${table} WHERE id = ?`, String(id));
				return row;
			}),
		removeMany: (query) =>
			write((tx) => {
				const where = condition({ query });
				return tx.run(`DELETE FROM ${table} ${where.sql}`, ...where.values).changes;
			}),
		clear: () => write((tx) => tx.run(`DELETE FROM ${table}`).changes),
	};
}

function condition(filters: Filters): { readonly sql: string; readonly values: SQLInputValue[] } {
	const terms: string[] = [];
	const values: SQLInputValue[] = [];
	for (const [field, wanted] of Object.entries(filters.query ?? {})) {
		checkField(field);
		if (isObject(wanted)) {
			const list = wanted["$in"];
			if (!Array.isArray(list) || Object.keys(wanted).length > 1) {
				throw badRequest(`query.${field} must be a value or { $in: [...] }`);
			}
			terms.push(`${column(field)} IN (${list.map(() => "?").join(", ")})`);
			values.push(...list.map((value: unknown) => bound(field, value)));
		} else {
			terms.push(`${column(field)} IS ?`);
			values.push(bound(field, wanted));
		}
	}
	if (filters.search) {
		const fields = namesOf(filters.searchFields);
		fields.forEach(checkField);
		const like = (expression: string) => `instr(lower(${expression}), lower(?)) > 0`;
		if (fields.length > 0) {
			terms.push(`(${fields.map((field) => like(column(field))).join(" OR ")})`);
			values.push(...fields.map(() => filters.search ?? ""));
		} else {
			terms.push(`EXISTS (SELECT 1 FROM json_each(doc) WHERE ${like("json_each.value")})`);
			values.push(filters.search);
		}
	}
	return { sql: terms.length > 0 ? `WHERE ${terms.join(" AND ")}` : "", values };
}

function order(sort: Filters["sort"]): string {
	const terms = namesOf(sort).map((name) => {
		const descending = name.startsWith("-");
		const field = descending ? name.slice(1) : name;
		checkField(field);
		return `${column(field)} ${descending ? "DESC" : "ASC"}`;
	});
	return `ORDER BY ${[...terms, "place"].join(", ")}`;
}

function namesOf(names: string | readonly string[] | null | undefined): readonly string[] {
	if (typeof names === "string") return names.split(/[,\s]+/).filter((name) => name !== "");
	return names ?? [];
}

/** Names become part of the statement, so only plain ones are let through. */
function checkField(field: string): void {
	if (!PATH.test(field) || field.split(".").includes("__proto__"))
		throw badRequest(`"${field}" is no field name`);
}

function column(field: string): string {
	return field === "_id" ? "id" : `json_extract(doc, '$.${field}')`;
}

function bound(field: string, value: unknown): SQLInputValue {
	if (value === null || typeof value === "string" || typeof value === "number") return value;
	if (typeof value === "boolean") return value ? 1 : 0;
	throw badRequest(`query.${field} must be text, a number, true, false or null`);
}

function withSet(row: object, update: Update): Document {
	const copy = structuredClone(row) as Document;
	for (const [path, value] of Object.entries(update.$set)) {
		checkField(path);
		const names = path.split(".");
		const last = names.pop() ?? path;
		let place = copy;
		for (const name of names) {
			const next = place[name];
			place = isObject(next) ? next : (place[name] = {});
		}
		place[last] = value;
	}
	return copy;
}

function isObject(value: unknown): value is Document {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isDuplicate(error: unknown): boolean {
	return isObject(error) && error["errcode"] === UNIQUE_VIOLATION;
}

function duplicate(id: string): Errors.MoleculerClientError {
	return new Errors.MoleculerClientError(`A row with _id "${id}" exists`, 409, "DUPLICATE_ID");
}

function badRequest(problem: string): Errors.MoleculerClientError {
	return new Errors.MoleculerClientError(`SQLite adapter: ${problem}`, 422, "BAD_QUERY");
}
