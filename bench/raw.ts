import { DatabaseSync } from "node:sqlite";

const ROW = "x".repeat(200);

export type Commit = (rows: readonly string[]) => void;

/** A table of rows on a file of its own, durable as the store's: WAL, FULL. */
export function rawTable(file: string): { commit: Commit; close: () => void } {
	const db = new DatabaseSync(file);
	db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
	db.exec("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, content TEXT)");
	const insert = db.prepare("INSERT INTO rows (content) VALUES (?)");
	return {
		commit(rows) {
			db.exec("BEGIN IMMEDIATE");
			for (const row of rows) insert.run(row);
			db.exec("COMMIT");
		},
		close: () => db.close(),
	};
}

/** Group commit: gathers what comes while `write` is at it, and writes that next. */
export function grouped(
	write: (rows: readonly string[]) => void | Promise<void>,
): () => Promise<void> {
	let waiting: (() => void)[] = [];
	let busy = false;
	const flush = async (): Promise<void> => {
		const batch = waiting;
		waiting = [];
		await write(batch.map(() => ROW));
		for (const resolve of batch) resolve();
		busy = false;
		schedule();
	};
	const schedule = (): void => {
		if (busy || waiting.length === 0) return;
		busy = true;
		setImmediate(() => void flush());
	};
	return () =>
		new Promise((resolve) => {
			waiting.push(resolve);
			schedule();
		});
}
