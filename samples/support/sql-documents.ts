import type { Knex } from "knex";

import type { TxBase } from "../../adapters/participant-store/index.ts";
import type { Documents, DocumentSource } from "./document-adapter.ts";
import type { Document } from "./sqlite-adapter.ts";

interface Stored {
	id: string;
	grouped: string | null;
	doc: string;
}

/** Longer than any group's or document's id. */
const ID_LENGTH = 64;
const CONNECTIONS = 3;

/**
 * Documents in a table of an SQL database, inside the transaction that Lottor began.
 *
 * @param from a URL of PostgreSQL or MariaDB, or a Knex instance, which stays the caller's
 */
export function sqlDocuments(from: string | Knex, table: string): DocumentSource {
	let knex: Knex | undefined;

	return {
		async connect() {
			knex ??= typeof from === "string" ? await open(from) : from;
			await makeTable(knex, table);
		},
		async disconnect() {
			const connected = knex;
			knex = undefined;
			if (connected !== from) await connected?.destroy();
		},
		plain() {
			if (!knex) throw new Error(`Table ${table} is not connected`);
			return documents(knex, table);
		},
		inside: (tx: TxBase & { readonly trx?: Knex.Transaction }) =>
			"trx" in tx && tx.trx ? documents(tx.trx, table) : undefined,
	};
}

async function open(url: string): Promise<Knex> {
	const { default: makeKnex } = await import("knex");
	const isMysql = /^(?:mysql|mariadb):/i.test(url);
	return makeKnex({
		client: isMysql ? "mysql2" : "pg",
		connection: isMysql ? url.replace(/^mariadb:/i, "mysql:") : { connectionString: url },
		pool: { min: 0, max: CONNECTIONS },
	});
}

async function makeTable(knex: Knex, table: string): Promise<void> {
	if (await knex.schema.hasTable(table)) return;
	try {
		await knex.schema.createTable(table, (columns) => {
			columns.increments("place");
			columns.string("id", ID_LENGTH).notNullable().unique();
			columns.string("grouped", ID_LENGTH).index();
			columns.text("doc").notNullable();
		});
	} catch (error) {
		// Another instance was faster.
		if (!(await knex.schema.hasTable(table))) throw error;
	}
}

function documents(knex: Knex, table: string): Documents {
	const parse = ({ doc }: Pick<Stored, "doc">) => JSON.parse(doc) as Document;
	const columns = (document: Document) => ({
		id: document["_id"] as string,
		grouped: (document["group"] as string | undefined) ?? null,
		doc: JSON.stringify(document),
	});
	return {
		async select({ group, limit, offset }) {
			const query = knex<Stored>(table).select("doc").orderBy("place");
			if (group !== undefined) void query.where({ grouped: group });
			if (limit !== undefined) void query.limit(limit);
			if (offset) void query.offset(offset);
			return (await query).map(parse);
		},
		async byId(id) {
			const row = await knex<Stored>(table).where({ id }).first("doc");
			return row && parse(row);
		},
		async add(document) {
			// Asked first: a statement that fails would end PostgreSQL's transaction.
			if (await knex(table).where({ id: document._id }).first("id")) return false;
			await knex(table).insert(columns(document));
			return true;
		},
		async replace(document) {
			await knex(table).where({ id: document._id }).update(columns(document));
		},
		async remove(id) {
			await knex(table).where({ id }).delete();
		},
	};
}
