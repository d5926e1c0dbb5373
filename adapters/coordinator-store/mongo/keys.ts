import type { GroupState } from "../../../protocol/index.ts";
import type { Groups } from "./groups.ts";
import type { Collections } from "./schema.ts";
import { insertAll } from "./writes.ts";

/** The group that has a key. */
export interface Holder {
	readonly id: string;
	readonly state: GroupState;
}

/**
 * Idempotency keys, each a document of its own: in a sharded collection no index but that of the
 * shard key can be unique. The key is taken before its group is stored, and settled after; a key that
 * is not settled and whose group is not there may be taken over, and then its former taker can't
 * settle it. So one of two that race for a key loses, whoever is paused where.
 */
export class IdempotencyKeys {
	readonly #collections: () => Collections;
	readonly #groups: Groups;

	constructor(collections: () => Collections, groups: Groups) {
		this.#collections = collections;
		this.#groups = groups;
	}

	/** Takes the key for the group. @returns the group that has it already */
	async take(source: string, key: string, group: string): Promise<Holder | undefined> {
		const { keys } = this.#collections();
		const _id = nameOf(source, key);
		for (;;) {
			const errors = await insertAll(keys, [{ _id, group, settled: false }]);
			if (errors.size === 0) return undefined;
			const found = await keys.findOne({ _id });
			if (!found) continue;
			const holder = (await this.#groups.read([found.group])).get(found.group)?.group;
			if (holder?.idempotencyKey === key) {
				if (found.settled || (await this.settle(source, key, holder.id))) {
					return { id: holder.id, state: holder.state };
				}
				continue;
			}
			// It rolled back, was purged, or never came to be.
			const { matchedCount } = await keys.updateOne(
				{ _id, group: found.group, settled: found.settled },
				{ $set: { group, settled: false } },
			);
			if (matchedCount === 1) return undefined;
		}
	}

	/** @returns whether the group has the key, now for good */
	async settle(source: string, key: string, group: string): Promise<boolean> {
		const { keys } = this.#collections();
		const filter = { _id: nameOf(source, key), group };
		return (await keys.updateOne(filter, { $set: { settled: true } })).matchedCount === 1;
	}

	/** Gives keys up whose groups are gone. */
	async release(
		holders: readonly { readonly source: string; readonly key: string; readonly id: string }[],
	): Promise<void> {
		const { keys } = this.#collections();
		for (const { source, key, id } of holders) {
			await keys.deleteOne({ _id: nameOf(source, key), group: id });
		}
	}
}

function nameOf(source: string, key: string): string {
	return JSON.stringify([source, key]);
}
