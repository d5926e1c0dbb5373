import type { Collection } from "mongodb";

import { newStoreId, type Random } from "../../../protocol/index.ts";
import type { AuditEntry, AuditFilter, NewAuditEntry, Page, PageRequest } from "../contract.ts";
import { limitOf, wrongCursor } from "../pages.ts";

/** `<time>.<place>.<token>`, so that ids sort by the time, and those of one process by their order. */
const ID = /^\d{15}\.\d{10}\.[0-9a-f]{8}$/;

export interface AuditDocument extends NewAuditEntry {
	readonly _id: string;
	readonly at: number;
}

/** What operators did, which is never purged. */
export class AuditLog {
	readonly #audit: () => Collection<AuditDocument>;
	readonly #random: Random;
	#place = 0;

	constructor(audit: () => Collection<AuditDocument>, random: Random) {
		this.#audit = audit;
		this.#random = random;
	}

	async add(entries: readonly NewAuditEntry[], at: number): Promise<void> {
		if (entries.length === 0) return;
		const documents = entries.map((entry): AuditDocument => {
			const place = String(++this.#place).padStart(10, "0");
			const token = newStoreId(this.#random).slice(0, 8);
			return { _id: `${String(at).padStart(15, "0")}.${place}.${token}`, at, ...entry };
		});
		await this.#audit().insertMany(documents);
	}

	/** @throws LOTTOR_INVALID_REQUEST when the cursor or the limit is wrong */
	async list({ who, action }: AuditFilter, page: PageRequest): Promise<Page<AuditEntry>> {
		const limit = limitOf(page);
		const { cursor } = page;
		if (cursor !== undefined && !ID.test(cursor)) throw wrongCursor();
		const found = await this.#audit()
			.find({
				...(who !== undefined && { who }),
				...(action !== undefined && { action }),
				...(cursor !== undefined && { _id: { $lt: cursor } }),
			})
			.sort({ _id: -1 })
			.limit(limit + 1)
			.toArray();
		const items = found.slice(0, limit).map(({ _id: id, ...entry }) => ({ id, ...entry }));
		const last = items.at(-1);
		return found.length > limit && last ? { items, next: last.id } : { items };
	}
}
