import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import makeKnex, { type Knex } from "knex";

/** What is used of a connection of better-sqlite3. */
export interface Sqlite {
	close(): void;
	exec(sql: string): unknown;
	pragma(sql: string): unknown;
	prepare(sql: string): SqliteStatement;
}

interface SqliteStatement {
	readonly reader: boolean;
	run(...values: unknown[]): unknown;
}

/** A SQLite file of a test's own, and Knex instances on it. */
export interface SqlitePlace {
	readonly path: string;
	/** Another Knex instance, with a connection of its own, and with the settings that Lottor asks for. */
	knex(config?: Knex.Config): Knex;
	/** A connection that no Knex has, as another process might. */
	connection(): Promise<Sqlite>;
	/** Lets the next statement that begins so fail before or after it took effect, on any connection. */
	failAt(beginning: string, when: "before" | "after", code?: string): void;
	/** Ends all of them, and deletes the file. */
	remove(): Promise<void>;
}

/** Settings of a pool with which Lottor takes a Knex instance on SQLite. */
export function safePool(also: (db: Sqlite) => void = () => undefined): Knex.PoolConfig {
	return {
		afterCreate: (db: Sqlite, done: (error: unknown, db: Sqlite) => void) => {
			db.pragma("journal_mode = WAL");
			db.pragma("synchronous = FULL");
			also(db);
			done(null, db);
		},
	};
}

/** What tests use of a Knex client, which has no type of its own. */
export interface SqliteClient {
	acquireConnection(): Promise<Sqlite>;
	acquireRawConnection(): Promise<Sqlite>;
	releaseConnection(connection: Sqlite): Promise<void>;
}

export function clientOf(knex: Knex): SqliteClient {
	return knex.client as SqliteClient;
}

export function newSqlitePlace(): SqlitePlace {
	const folder = mkdtempSync(join(tmpdir(), "lottor-knex-"));
	const path = join(folder, "a.db");
	const knexes: Knex[] = [];
	const taken: Sqlite[] = [];
	let fault:
		{ readonly beginning: string; readonly when: string; readonly code: string } | undefined;

	const failing = (db: Sqlite) => {
		const prepare = db.prepare.bind(db);
		db.prepare = (sql) => {
			const made = prepare(sql);
			if (!fault || !sql.startsWith(fault.beginning)) return made;
			const { when, code } = fault;
			fault = undefined;
			const run = (...values: unknown[]) => {
				if (when === "after") made.run(...values);
				throw Object.assign(new Error("disk I/O error"), { code });
			};
			return { reader: false, run };
		};
	};
	const place: SqlitePlace = {
		path,
		async connection() {
			const connection = await clientOf(place.knex()).acquireRawConnection();
			taken.push(connection);
			return connection;
		},
		knex(config = {}) {
			const silent = () => undefined;
			const knex = makeKnex({
				client: "better-sqlite3",
				connection: { filename: path },
				useNullAsDefault: true,
				log: { warn: silent, error: silent, deprecate: silent, debug: silent },
				...config,
				pool: { ...safePool(failing), ...config.pool },
			});
			knexes.push(knex);
			return knex;
		},
		failAt(beginning, when, code = "SQLITE_IOERR_FSYNC") {
			fault = { beginning, when, code };
		},
		async remove() {
			for (const connection of taken) connection.close();
			await Promise.all(knexes.map((knex) => knex.destroy()));
			rmSync(folder, { recursive: true, force: true });
		},
	};
	return place;
}
