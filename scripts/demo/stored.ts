import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** @returns how many rows of the group a service's database has, read from its file */
export function countRows(folder: string, service: string, table: string, group: string): number {
	const file = new DatabaseSync(join(folder, `${service}.db`), {
		readOnly: true,
		timeout: 1_000,
	});
	try {
		const rows = file.prepare(`SELECT doc FROM "${table}"`).all() as { doc: string }[];
		return rows.filter(({ doc }) => (JSON.parse(doc) as { group: string }).group === group)
			.length;
	} finally {
		file.close();
	}
}

/** @returns how often the service's handler ran for messages of the group */
export function countRuns(folder: string, service: string, group: string): number {
	const path = join(folder, `${service}.runs`);
	if (!existsSync(path)) return 0;
	const lines = readFileSync(path, "utf8").split("\n");
	return lines.filter((line) => line.startsWith(`${group}.`)).length;
}
