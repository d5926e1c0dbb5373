import type { Collection } from "mongodb";

import { isServerFault } from "./connection.ts";
import { type EntryDocument, entryDocument, type StoredEntry } from "./documents.ts";
import { Gatherer } from "./gather.ts";
import { withoutDuplicates } from "./writes.ts";

const BATCH_ENTRIES = 1_000;

/** Groups of which is remembered how far their timelines are written. */
const REMEMBERED = 20_000;

interface News {
	readonly group: string;
	readonly entries: readonly StoredEntry[];
}

/**
 * Writes timelines after the groups (R29). What a write tells is in the group's document first; it
 * goes along from write to write until it is known to be in the timeline, so that none is lost with
 * a process, and none is waited for.
 */
export class TimelineWriter {
	readonly #gatherer: Gatherer<News, void>;
	readonly #written = new Map<string, number>();

	constructor(timeline: () => Collection<EntryDocument>) {
		this.#gatherer = new Gatherer(
			async (batch) => {
				const documents = batch.flatMap(({ group, entries }) =>
					entries.map((entry) => entryDocument(group, entry)),
				);
				await withoutDuplicates(timeline(), documents);
				return batch.map(({ group, entries }) => this.#remember(group, entries));
			},
			BATCH_ENTRIES,
			isServerFault,
		);
	}

	/** Writes entries some time soon. One that fails stays in its group's document. */
	tell(group: string, entries: readonly StoredEntry[]): void {
		if (entries.length === 0) return;
		this.#gatherer.submit([{ group, entries }]).catch(() => undefined);
	}

	/** @returns those that may not be in the timeline yet */
	unwritten(group: string, entries: readonly StoredEntry[]): readonly StoredEntry[] {
		const written = this.#written.get(group) ?? 0;
		return entries.filter(({ version }) => version > written);
	}

	idle(): Promise<void> {
		return this.#gatherer.idle();
	}

	#remember(group: string, entries: readonly StoredEntry[]): void {
		const version = Math.max(...entries.map((entry) => entry.version));
		const known = this.#written.get(group) ?? 0;
		this.#written.delete(group);
		this.#written.set(group, Math.max(version, known));
		for (const oldest of this.#written.keys()) {
			if (this.#written.size <= REMEMBERED) break;
			this.#written.delete(oldest);
		}
	}
}
