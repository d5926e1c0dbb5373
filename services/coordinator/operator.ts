import type { ApplyResult } from "../../adapters/coordinator-store/index.ts";
import {
	type Change,
	type Decision,
	isGroupId,
	type ItemAnswer,
	LottorError,
	type MessageRecord,
	type OperatorEvent,
	type Outcome,
	parseMessageId,
} from "../../protocol/index.ts";
import { searchTerms } from "../payload-paths.ts";
import type { CheckBack } from "./check-back.ts";
import type { Dispatcher } from "./dispatcher.ts";
import { apply, type Engine } from "./engine.ts";
import type { Fences } from "./fences.ts";
import {
	inOrder,
	type Intake,
	invalid,
	itemError,
	jsonText,
	record,
	text,
	whole,
} from "./intake.ts";

/** What an operator says with every action. */
export interface OperatorItem {
	/** A message id, or a group id. */
	readonly id: string;
	/** The message's version that the operator saw; left out: whatever it is. */
	readonly version?: number;
	/** Who acts. @default "operator" */
	readonly by?: string;
	readonly why?: string;
	/** `edit`: the new payload. */
	readonly payload?: unknown;
	/** `retry`: lets the message go to another store than the one it is bound to (R3). @default false */
	readonly rebind?: boolean;
}

interface MessageOrder {
	readonly id: string;
	readonly group: string;
	readonly index: number;
	readonly event: OperatorEvent;
}

interface GroupOrder {
	readonly id: string;
	readonly who: string;
	readonly why?: string;
}

/** What people do: retry, edit, discard, decide a group in doubt, ask again (DESIGN, section 3.9). */
export class Operator {
	readonly #engine: Engine;
	readonly #fences: Fences;
	readonly #checkBack: CheckBack;
	readonly #intake: Intake;
	readonly #dispatcher: Dispatcher;

	constructor(
		engine: Engine,
		parts: { fences: Fences; checkBack: CheckBack; intake: Intake; dispatcher: Dispatcher },
	) {
		this.#engine = engine;
		this.#fences = parts.fences;
		this.#checkBack = parts.checkBack;
		this.#intake = parts.intake;
		this.#dispatcher = parts.dispatcher;
	}

	/** Changes messages: `failed` ones are retried or edited; these, pending and sent ones discarded. */
	async messages(type: OperatorEvent["type"], items: readonly unknown[]): Promise<ItemAnswer[]> {
		return inOrder(
			items,
			(item) => this.#order(type, item),
			(orders) => Promise.all(orders.map((order) => this.#obey(order))),
			(answer: ItemAnswer) => answer,
			(error): ItemAnswer => ({ result: "invalid", error }),
		);
	}

	#order(type: OperatorEvent["type"], item: unknown): MessageOrder {
		const given = record<OperatorItem>(item, "item");
		const place = parseMessageId(given.id);
		if (!place) throw invalid("id", "must be a message id");
		const said = {
			who: given.by === undefined ? "operator" : text(given.by, "by"),
			...(given.why === undefined ? {} : { why: text(given.why, "why", 1_000) }),
			...(given.version === undefined ? {} : { version: whole(given.version, "version", 0) }),
		};
		const at = { id: given.id, group: place.group, index: place.index };
		if (type === "retry")
			return { ...at, event: { type, ...said, rebind: given.rebind === true } };
		if (type === "discard") return { ...at, event: { type, ...said, fenced: false } };
		if (given.payload === undefined) throw invalid("payload", "must be given");
		const content = jsonText(contentOf(given.payload), "payload");
		const bytes = Buffer.byteLength(content);
		if (bytes > this.#engine.settings.maxPayload) {
			throw new LottorError(
				"LOTTOR_PAYLOAD_TOO_LARGE",
				`The payload has ${bytes} bytes, over ${this.#engine.settings.maxPayload}`,
				{ message: given.id, field: "payload" },
			);
		}
		const terms = searchTerms(content, this.#engine.settings.searchFields);
		return { ...at, event: { type, ...said, content, bytes, terms } };
	}

	async #obey(order: MessageOrder): Promise<ItemAnswer> {
		let { event } = order;
		if (event.type === "discard") {
			const fenced = await this.#fenceFirst(order);
			if (typeof fenced === "object") return fenced;
			event = { ...event, fenced };
		}
		const change: Change = { id: order.group, index: order.index, event };
		const [result] = await apply(this.#engine, [change]);
		return this.#answer(order, result);
	}

	/** @returns whether the inbox refuses every copy now; or the answer, when the discard can't be */
	async #fenceFirst(order: MessageOrder): Promise<boolean | ItemAnswer> {
		const message = await this.#find(order);
		if (
			!message ||
			!["failed", "pending", "delivering"].includes(message.state) ||
			message.sends === 0
		) {
			return false;
		}
		if (order.event.version !== undefined && order.event.version !== message.version)
			return false;
		const answer = await this.#fences.all(message);
		if (answer.result === "busy") {
			return {
				result: "conflict",
				state: message.state,
				error: itemError(
					"LOTTOR_FENCE_BUSY",
					`Message ${order.id} is running at ${message.target}`,
				),
			};
		}
		if (answer.result === "consumed") {
			const event = { type: "consumed", revision: answer.revision, who: "fence" } as const;
			await apply(this.#engine, [{ id: order.group, index: order.index, event }]);
			return {
				result: "conflict",
				state: "consumed",
				error: itemError(
					"LOTTOR_ILLEGAL_TRANSITION",
					`Message ${order.id} had been consumed (revision ${answer.revision}) and can't be discarded`,
				),
			};
		}
		return answer.result === "fenced";
	}

	async #find(order: MessageOrder): Promise<MessageRecord | undefined> {
		const [group] = await this.#engine.store.get([order.group]);
		return group?.messages[order.index];
	}

	#answer(order: MessageOrder, result: ApplyResult | undefined): ItemAnswer {
		if (!result || result.result === "unknown") {
			return {
				result: "unknown",
				error: itemError("LOTTOR_MESSAGE_UNKNOWN", `No message ${order.id}`),
			};
		}
		const message = result.group.messages[order.index];
		if (!message) {
			return {
				result: "unknown",
				error: itemError("LOTTOR_MESSAGE_UNKNOWN", `No message ${order.id}`),
			};
		}
		if (result.result === "done") {
			this.#dispatcher.landed(order.id);
			this.#engine.logger.info(
				`Message ${order.id}: ${order.event.type} by ${order.event.who}`,
			);
			return { result: "ok", state: message.state };
		}
		if (result.result === "already") return { result: "already", state: message.state };
		const outdated =
			order.event.version !== undefined && order.event.version !== message.version;
		const why = result.result === "conflict" ? result.why : result.result;
		return {
			result: "conflict",
			state: message.state,
			error: itemError(
				outdated ? "LOTTOR_VERSION_CONFLICT" : "LOTTOR_ILLEGAL_TRANSITION",
				`Message ${order.id}: ${why}`,
				{ version: message.version },
			),
		};
	}

	/** Decides groups in doubt, after asking their source once more: a sound answer beats the operator (R18). */
	async decide(to: Outcome, items: readonly unknown[]): Promise<ItemAnswer[]> {
		return inOrder(
			items,
			groupOrder,
			(orders) => Promise.all(orders.map((order) => this.#decide(to, order))),
			(answer: ItemAnswer) => answer,
			(error): ItemAnswer => ({ result: "invalid", error }),
		);
	}

	async #decide(to: Outcome, order: GroupOrder): Promise<ItemAnswer> {
		const { store, logger } = this.#engine;
		const [group] = await store.get([order.id]);
		if (group?.state === "inDoubt") {
			const answer = (await this.#checkBack.ask([group])).get(group.id);
			if (answer?.result === "committed" || answer?.result === "rolledBack") {
				const sound = this.#checkBack.decisionOf(
					group,
					answer.result,
					"asked before an operator's decision",
				);
				const [result] = await store.decide([sound]);
				const told = result && this.#intake.decided(result, sound);
				if (told?.result === "ok" && answer.result !== to) {
					return {
						result: "conflict",
						state: told.state ?? answer.result,
						error: itemError(
							"LOTTOR_DECISION_CONFLICT",
							`Group ${order.id}: its source answered ${answer.result}, which beats the operator`,
						),
					};
				}
				if (told?.result === "ok" || told?.result === "already") return told;
			}
		}
		const decision: Decision = {
			id: order.id,
			to,
			by: "operator",
			who: order.who,
			...(order.why === undefined ? {} : { why: order.why }),
			...(to === "committed" ? { dispatch: this.#dispatcher.lease() } : {}),
		};
		const [result] = await store.decide([decision]);
		if (!result) throw new LottorError("LOTTOR_GROUP_UNKNOWN", `No group ${order.id}`);
		if (result.result === "conflict") {
			return {
				result: "conflict",
				state: result.state,
				error: itemError(
					"LOTTOR_ILLEGAL_TRANSITION",
					`Group ${order.id} is ${result.state}: ${result.why}`,
				),
			};
		}
		if (result.result === "done") logger.info(`Group ${order.id} ${to} by ${order.who}`);
		return this.#intake.decided(result, decision);
	}

	/** Has the check-back of undecided groups made now; which a decided one does not need. */
	async recheck(items: readonly unknown[]): Promise<ItemAnswer[]> {
		return inOrder(
			items,
			groupOrder,
			(orders) =>
				apply(
					this.#engine,
					orders.map((order): Change => ({
						id: order.id,
						event: { ...order, type: "recheck" },
					})),
				),
			(result: ApplyResult, order): ItemAnswer => {
				if (result.result === "unknown") {
					return {
						result: "unknown",
						error: itemError("LOTTOR_GROUP_UNKNOWN", `No group ${order.id}`),
					};
				}
				if (result.result === "done") return { result: "ok", state: result.group.state };
				return {
					result: "conflict",
					state: result.group.state,
					error: itemError(
						"LOTTOR_ILLEGAL_TRANSITION",
						`Group ${order.id} is ${result.group.state}`,
					),
				};
			},
			(error): ItemAnswer => ({ result: "invalid", error }),
		);
	}
}

function groupOrder(item: unknown): GroupOrder {
	const given = record<OperatorItem>(item, "item");
	if (!isGroupId(given.id)) throw invalid("id", "must be a group id");
	return {
		id: given.id,
		who: given.by === undefined ? "operator" : text(given.by, "by"),
		...(given.why === undefined ? {} : { why: text(given.why, "why", 1_000) }),
	};
}

function contentOf(payload: unknown): unknown {
	try {
		return JSON.stringify(payload);
	} catch (error) {
		throw new LottorError(
			"LOTTOR_INVALID_PAYLOAD",
			"The payload can't be written as JSON",
			{ field: "payload" },
			error,
		);
	}
}
