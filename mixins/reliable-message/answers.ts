import type { Resolution } from "../../adapters/participant-store/contract.ts";
import {
	type AskAnswer,
	type AskItem,
	type CheckAnswer,
	type CheckItem,
	decodePayload,
	type FenceAnswer,
	type FenceItem,
	isGroupId,
	isRecord,
	messageOf,
	type Outcome,
	parseMessageId,
	sameOwner,
} from "../../protocol/index.ts";
import type { Confirms } from "./confirms.ts";
import type { Consumer } from "./consumer.ts";
import type { Core } from "./core.ts";
import { isOwnerLiving } from "./registry.ts";
import type { Reports } from "./reports.ts";
import { within } from "./timing.ts";
import type { ResolvedAs, UnresolvedGroup } from "./types.ts";

/** How long an owner must be gone before "rolled back" counts (R15). */
const DEAD_AFTER_MS = 5 * 60_000;
/** Limit of `resolveTransaction`: under the coordinator's limit of a check call. */
const RESOLVE_WITHIN_MS = 2_500;

interface Parts {
	readonly core: Core;
	readonly confirms: Confirms;
	readonly consumer: Consumer;
	readonly reports: Reports;
}

/** Answers the coordinator's questions: check-back, ask, fence. A bad item is answered "none". */
export class Answers {
	readonly #core: Core;
	readonly #confirms: Confirms;
	readonly #consumer: Consumer;
	readonly #reports: Reports;

	constructor({ core, confirms, consumer, reports }: Parts) {
		this.#core = core;
		this.#confirms = confirms;
		this.#consumer = consumer;
		this.#reports = reports;
	}

	/** How local transactions ended (R13). */
	async check(items: readonly unknown[]): Promise<CheckAnswer[]> {
		const answers = items.map((item) => this.#checkInMemory(item));
		const open = items.filter((_, index) => !answers[index]) as CheckItem[];
		const resolved = new Map<string, CheckAnswer>();
		if (open.length > 0) {
			try {
				const stands = await this.#core.store.resolve(open.map(({ id }) => id));
				const answered = await Promise.all(
					open.map((item, index) => this.#checkAnswer(item, stands[index])),
				);
				open.forEach(({ id }, index) => {
					const answer = answered[index];
					if (answer) resolved.set(id, answer);
				});
			} catch (error) {
				const why = `The store cannot be reached: ${messageOf(error)}`;
				for (const { id } of open) resolved.set(id, { result: "none", why });
			}
		}
		return items.map((item, index) => {
			// One without an answer in memory was found to have an id.
			return answers[index] ?? resolved.get((item as CheckItem).id) ?? { result: "none" };
		});
	}

	/** What the inbox knows of messages (R23). */
	async ask(items: readonly unknown[]): Promise<AskAnswer[]> {
		const answers = items.map((item) => this.#askInMemory(item));
		const open = items.filter((_, index) => !answers[index]) as AskItem[];
		if (open.length === 0) return answers.map((answer) => answer ?? { result: "none" });
		try {
			const stands = await this.#core.store.look(open.map(({ id }) => id));
			let next = 0;
			return answers.map((answer) => {
				if (answer) return answer;
				const item = open[next] as AskItem;
				return this.#askAnswer(item, stands[next++]);
			});
		} catch (error) {
			this.#core.logger.warn(`Lottor: the inbox cannot be read: ${messageOf(error)}`);
			return answers.map((answer) => answer ?? { result: "none" });
		}
	}

	/** Refuses copies below a revision (R27). */
	fence(items: readonly unknown[]): Promise<FenceAnswer[]> {
		return Promise.all(items.map((item) => this.#fence(item)));
	}

	#checkInMemory(item: unknown): CheckAnswer | undefined {
		if (!isRecord(item) || !isGroupId(item["id"]) || !isRecord(item["owner"])) {
			return { result: "none", why: "malformed item" };
		}
		const { id, storeId } = item;
		if (storeId !== this.#core.storeId) {
			return { result: "none", why: "this service has another store" };
		}
		const told = this.#confirms.outcomeOf(id);
		if (told) return { result: told };
		const active = this.#core.active.get(id);
		return active && { result: active.outcome ?? "running" };
	}

	async #checkAnswer(item: CheckItem, stands: Resolution | undefined): Promise<CheckAnswer> {
		if (!stands) return { result: "none" };
		if (stands.result !== "started") return { result: stands.result };
		if (this.#core.active.has(item.id)) return { result: "running" };
		return this.#resolveStarted(item, stands.owner);
	}

	/** `started`, and whoever started it does not know it: only the service itself can tell (R15). */
	async #resolveStarted(item: CheckItem, owner: CheckItem["owner"]): Promise<CheckAnswer> {
		const { store } = this.#core;
		const said = await this.#resolveTransaction(item);
		if (said.result === "unknown") return said;
		const ours = sameOwner(owner, this.#core.owner);
		const gone = ours || (item.ownerGoneMs ?? 0) >= DEAD_AFTER_MS;
		if (said.result === "rolledBack" && !gone) {
			const why = "resolveTransaction says rolled back, but the owner may still be running";
			return { result: "unknown", why };
		}
		if (await store.force(item.id, said.result)) return said;
		const [stands] = await store.resolve([item.id]);
		return stands && stands.result !== "started"
			? { result: stands.result }
			: { result: "unknown" };
	}

	async #resolveTransaction(
		item: CheckItem,
	): Promise<{ result: Outcome | "unknown"; why?: string }> {
		const { service, settings } = this.#core;
		const method: unknown = Reflect.get(service, "resolveTransaction");
		if (typeof method !== "function") {
			const why = "the owner is gone, and the service has no method resolveTransaction";
			return { result: "unknown", why };
		}
		try {
			const group: UnresolvedGroup = {
				id: item.id,
				createdAt: item.createdAt,
				messages: (item.messages ?? []).map(({ target, type, content }) => ({
					target,
					type,
					payload: decodePayload(content),
				})),
			};
			const resolve = method as (group: UnresolvedGroup) => ResolvedAs | Promise<ResolvedAs>;
			const answer = (async () => resolve.call(service, group))();
			const said = await within(settings.clock, RESOLVE_WITHIN_MS, answer);
			if (said === "committed" || said === "rolledBack") return { result: said };
			return { result: "unknown", why: "resolveTransaction cannot tell" };
		} catch (error) {
			return { result: "unknown", why: `resolveTransaction failed: ${messageOf(error)}` };
		}
	}

	#askInMemory(item: unknown): AskAnswer | undefined {
		if (!isRecord(item) || !parseMessageId(item["id"])) return { result: "none" };
		if (item["storeId"] !== this.#core.storeId) return { result: "none" };
		const state = this.#consumer.stateOf(String(item["id"]));
		return state === "queued" || state === "running" ? { result: "running" } : undefined;
	}

	#askAnswer(
		{ id, attempt, type }: AskItem,
		stands: Awaited<ReturnType<Core["store"]["look"]>>[number] | undefined,
	): AskAnswer {
		const { storeId, broker, owner } = this.#core;
		switch (stands?.result) {
			case "consumed":
				return { result: "consumed", revision: stands.revision };
			case "failed": {
				if (stands.attempt < attempt) break;
				const kept = this.#reports.failureOf(id, stands.attempt);
				const policy = this.#consumer.policyOf(type);
				return {
					result: "failed",
					report: kept ?? {
						id,
						// The coordinator asked by itself: the answer needs no proof.
						receipt: "",
						storeId,
						attempt: stands.attempt,
						revision: stands.revision,
						result: "failed",
						error: stands.error,
						...(policy && { policy }),
					},
				};
			}
			case "running": {
				// A claim of this process that is not in its memory is one whose end was not written.
				const ours = sameOwner(stands.owner, owner);
				return {
					result: !ours && isOwnerLiving(broker, stands.owner) ? "running" : "unseen",
				};
			}
		}
		return { result: this.#consumer.stateOf(id) ? "running" : "unseen" };
	}

	async #fence(item: unknown): Promise<FenceAnswer> {
		if (!isRecord(item) || !parseMessageId(item["id"])) return { result: "none" };
		const { id, storeId, minRevision } = item as unknown as FenceItem;
		if (storeId !== this.#core.storeId || !Number.isSafeInteger(minRevision)) {
			return { result: "none" };
		}
		if (this.#consumer.drop(id, minRevision)) return { result: "busy" };
		try {
			return await this.#core.store.fence(id, minRevision);
		} catch (error) {
			this.#core.logger.warn(`Lottor: message ${id} is not fenced: ${messageOf(error)}`);
			return { result: "none" };
		}
	}
}
