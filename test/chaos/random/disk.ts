import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";

const MOST_PAGES = 1_073_741_823;
const IOERR_FSYNC = 1_034;

/** The disk under a process's files: every connection is made here, so that it can fail. */
export class Disk {
	readonly #connections = new Set<DatabaseSync>();
	#failing: "before" | "after" | undefined;

	/** For the stores' option `connect`. */
	readonly connect = (path: string, timeout = 10): DatabaseSync => {
		const db = new DatabaseSync(path, { timeout });
		const exec = db.exec.bind(db);
		const prepare = db.prepare.bind(db);
		const close = db.close.bind(db);
		db.exec = (sql) => this.#run(sql, () => exec(sql));
		db.prepare = (sql) => this.#statement(sql, prepare(sql));
		db.close = () => {
			this.#connections.delete(db);
			close();
		};
		this.#connections.add(db);
		return db;
	};

	/** No file takes another page, until it is said otherwise. Files opened meanwhile are not held to it. */
	full(on: boolean): void {
		for (const db of this.#connections) {
			db.prepare(`PRAGMA max_page_count = ${on ? 1 : MOST_PAGES}`).get();
		}
	}

	/** The next COMMIT is answered with an I/O error, before or after it took effect. */
	failCommit(after: boolean): void {
		this.#failing = after ? "after" : "before";
	}

	#statement(sql: string, statement: StatementSync): StatementSync {
		if (sql === "COMMIT") {
			const run = statement.run.bind(statement);
			statement.run = (...values) =>
				this.#run(sql, () => run(...(values as SQLInputValue[])));
		}
		return statement;
	}

	#run<T>(sql: string, run: () => T): T {
		if (sql !== "COMMIT" || !this.#failing) return run();
		const took = this.#failing === "after";
		this.#failing = undefined;
		if (took) run();
		throw Object.assign(new Error("disk I/O error (injected)"), {
			code: "ERR_SQLITE_ERROR",
			errcode: IOERR_FSYNC,
		});
	}
}
