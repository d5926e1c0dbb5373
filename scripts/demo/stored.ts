import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

import { type SampleAdapter, sampleDatabase } from "../../samples/support/stores.ts";
import type { DatabaseOwner, Databases } from "./databases.ts";

/** What the demo's databases hold, read beside the services. */
export class Stored {
	readonly #databases: Databases;
	readonly #adapters = new Map<string, SampleAdapter<{ group: string }>>();

	constructor(databases: Databases) {
		this.#databases = databases;
	}

	/** @returns how many rows of the group the owner's database has */
	async count(owner: DatabaseOwner, table: string, group: string): Promise<number> {
		const url = this.#databases[owner];
		const file = /^sqlite:([^?]*)/.exec(url)?.[1];
		if (file !== undefined) return countInFile(file, table, group);
		const key = `${owner} ${table}`;
		let adapter = this.#adapters.get(key);
		if (!adapter) {
			adapter = sampleDatabase<{ group: string }>(url, table).adapter;
			this.#adapters.set(key, adapter);
			await adapter.connect();
		}
		return adapter.count({ query: { group } });
	}

	async close(): Promise<void> {
		for (const adapter of this.#adapters.values()) await adapter.disconnect();
	}
}

/** From the file itself, whatever the service that writes it believes. */
function countInFile(path: string, table: string, group: string): number {
	const file = new DatabaseSync(path, { readOnly: true, timeout: 1_000 });
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
