import { randomUUID } from "node:crypto";
import { Errors } from "moleculer";

import type { TxBase } from "../../adapters/participant-store/contract.ts";
import type { Document, Filters, Rows, SqliteAdapter, Update } from "./sqlite-adapter.ts";

/** Which documents: all, or those that have a value in the one indexed field. */
export interface Selection {
	readonly group?: string;
	readonly limit?: number;
	readonly offset?: number;
}

/** What a database must do to keep a sample's documents. Each has a text `_id`. */
export interface Documents {
	/** In the order in which they were added. */
	select(selection: Selection): Promise<Document[]>;
	byId(id: string): Promise<Document | undefined>;
	/** @returns false when there is one of this id */
	add(document: Document & { readonly _id: string }): Promise<boolean>;
	replace(document: Document & { readonly _id: string }): Promise<void>;
	remove(id: string): Promise<void>;
}

/** Where documents are kept. */
export interface DocumentSource {
	connect(): Promise<void>;
	disconnect(): Promise<void>;
	/** Outside of any transaction. */
	plain(): Documents;
	/** Inside one, if the handle is of one. */
	inside(tx: TxBase): Documents | undefined;
}

/**
 * A moleculer-db adapter on any database: it finds by the field `group` there, and does everything
 * else that moleculer-db asks for in memory, which is enough for a sample.
 */
export function documentAdapter<Row extends object = Document>(
	source: DocumentSource,
): SqliteAdapter<Row> {
	const plain = rows<Row>(() => source.plain());
	return {
		...plain,
		init: () => undefined,
		connect: () => source.connect(),
		disconnect: () => source.disconnect(),
		withTx: (tx) => {
			const inside = source.inside(tx);
			return inside ? rows<Row>(() => inside) : plain;
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

function rows<Row extends object>(documents: () => Documents): Rows<Row> {
	const insert = async (entity: object): Promise<Row> => {
		const document = { _id: randomUUID() as string, ...entity };
		if (await documents().add(document)) return document as unknown as Row;
		const text = `A row with _id "${document._id}" exists`;
		throw new Errors.MoleculerClientError(text, 409, "DUPLICATE_ID");
	};
	const update = async (row: Document, { $set }: Update): Promise<Row> => {
		const changed = { ...row, ...$set, _id: String(row["_id"]) };
		await documents().replace(changed);
		return changed as unknown as Row;
	};
	const removeById = async (id: unknown): Promise<Row | null> => {
		const row = await documents().byId(String(id));
		if (row) await documents().remove(String(id));
		return (row as Row | undefined) ?? null;
	};
	const find = async (filters: Filters = {}): Promise<Document[]> => {
		const { query, sort, search, offset } = filters;
		const { group, ...others } = query ?? {};
		const limit = filters.limit ?? Number.MAX_SAFE_INTEGER;
		const page = { limit, offset: offset ?? 0 };
		const byGroup = typeof group === "string" ? { group } : {};
		const simple =
			!sort && !search && Object.keys(others).length === 0 && (!query || "group" in byGroup);
		if (simple) return documents().select({ ...byGroup, ...page });
		const found = (await documents().select(byGroup)).filter(
			(row) => matches(row, query ?? {}) && contains(row, search, filters.searchFields),
		);
		return found.sort(order(sort)).slice(page.offset, page.offset + page.limit);
	};

	return {
		find: async (filters) => (await find(filters)) as Row[],
		findOne: async (query) => ((await find({ query, limit: 1 }))[0] ?? null) as Row | null,
		findById: async (id) => ((await documents().byId(String(id))) ?? null) as Row | null,
		findByIds: async (ids) => {
			const found = await Promise.all(ids.map((id) => documents().byId(String(id))));
			return found.filter((row) => row !== undefined) as Row[];
		},
		count: async (filters = {}) =>
			(await find({ ...filters, limit: null, offset: null, sort: null })).length,
		insert,
		insertMany: async (entities) => {
			const inserted: Row[] = [];
			for (const entity of entities) inserted.push(await insert(entity));
			return inserted;
		},
		updateById: async (id, change) => {
			const row = await documents().byId(String(id));
			return row ? update(row, change) : null;
		},
		updateMany: async (query, change) => {
			const found = await find({ query });
			for (const row of found) await update(row, change);
			return found.length;
		},
		removeById,
		removeMany: (query) => removeAll({ query }),
		clear: () => removeAll({}),
	};

	async function removeAll(filters: Filters): Promise<number> {
		const found = await find(filters);
		for (const row of found) await documents().remove(String(row["_id"]));
		return found.length;
	}
}

function matches(row: Document, query: Document): boolean {
	return Object.entries(query).every(([field, wanted]) => {
		const list = (wanted as { $in?: unknown } | null)?.$in;
		return Array.isArray(list) ? list.includes(row[field]) : row[field] === wanted;
	});
}

function contains(
	row: Document,
	search: Filters["search"],
	fields: Filters["searchFields"],
): boolean {
	if (!search) return true;
	const names = namesOf(fields);
	return (names.length > 0 ? names : Object.keys(row)).some((name) =>
		String(row[name]).toLowerCase().includes(search.toLowerCase()),
	);
}

function order(sort: Filters["sort"]): (a: Document, b: Document) => number {
	return (a, b) => {
		for (const name of namesOf(sort)) {
			const field = name.replace(/^-/, "");
			const [left, right] = [JSON.stringify(a[field]) ?? "", JSON.stringify(b[field]) ?? ""];
			if (left !== right) return (left < right ? -1 : 1) * (name.startsWith("-") ? -1 : 1);
		}
		return 0;
	};
}

function namesOf(names: string | readonly string[] | null | undefined): readonly string[] {
	if (typeof names === "string") return names.split(/[,\s]+/).filter((name) => name !== "");
	return names ?? [];
}
