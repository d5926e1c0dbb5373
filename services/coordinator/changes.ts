import type { ServiceBroker } from "moleculer";

import type { CoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import {
	CHANGED_EVENT,
	type Changed,
	type ChangedNotice,
	type Clock,
	type GroupRecord,
} from "../../protocol/index.ts";

/** Changes are told together, at most every so many milliseconds, the last so many of them. */
const TOLD_EVERY_MS = 500;
const MOST_TOLD = 500;

/** Tells whoever listens to {@link CHANGED_EVENT}, on any node, which groups changed. */
export class Changes {
	readonly #broker: ServiceBroker;
	readonly #clock: Clock;
	#changed = new Map<string, Changed>();
	#more = false;
	#waiting = false;

	constructor(broker: ServiceBroker, clock: Clock) {
		this.#broker = broker;
		this.#clock = clock;
	}

	add({ id, state }: Pick<GroupRecord, "id" | "state">): void {
		if (!this.#waiting) {
			if (!this.#broker.hasEventListener(CHANGED_EVENT)) return;
			this.#waiting = true;
			this.#clock.after(TOLD_EVERY_MS, () => this.#tell());
		}
		this.#changed.delete(id);
		this.#changed.set(id, { id, state });
		if (this.#changed.size <= MOST_TOLD) return;
		this.#more = true;
		for (const oldest of this.#changed.keys()) {
			this.#changed.delete(oldest);
			break;
		}
	}

	#tell(): void {
		const notice: ChangedNotice = { changed: [...this.#changed.values()], more: this.#more };
		this.#changed = new Map();
		this.#more = false;
		this.#waiting = false;
		this.#broker
			.broadcast(CHANGED_EVENT, notice)
			.catch((error: unknown) => this.#broker.logger.debug("Changes were not told", error));
	}
}

/** @returns the store, with its changes of groups noticed */
export function noticed(store: CoordinatorStore, changes: Changes): CoordinatorStore {
	const calls: Partial<CoordinatorStore> = {
		async insert(groups) {
			const results = await store.insert(groups);
			results.forEach(({ result }, index) => {
				const id = groups[index]?.id;
				if (result === "created" && id !== undefined)
					changes.add({ id, state: "prepared" });
			});
			return results;
		},
		async decide(decisions) {
			const results = await store.decide(decisions);
			for (const result of results) {
				if (result.result === "done") changes.add(result.group);
			}
			return results;
		},
		async apply(items) {
			const results = await store.apply(items);
			for (const result of results) {
				if (result.result === "done") changes.add(result.group);
			}
			return results;
		},
	};
	return new Proxy(store, {
		get(target, name) {
			if (Object.hasOwn(calls, name)) return calls[name as keyof CoordinatorStore];
			const value = Reflect.get(target, name, target) as unknown;
			return typeof value === "function"
				? (value as (...args: unknown[]) => unknown).bind(target)
				: value;
		},
	});
}
