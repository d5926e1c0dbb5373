import type {
	ApplyResult,
	DecideResult,
	InsertResult,
} from "../../adapters/coordinator-store/index.ts";
import {
	type Change,
	checkReceipt,
	contentHash,
	type DecideItem,
	type Decision,
	type ErrorCode,
	ERRORS,
	GUARANTEES,
	HIGHEST_COUNT,
	isGroupId,
	isRecord,
	isWhole,
	type ItemAnswer,
	type ItemError,
	LONGEST_MS,
	LottorError,
	messageOf,
	type NewGroup,
	type NewMessage,
	type Outcome,
	OTHER_STORE,
	type Owner,
	parseMessageId,
	type PrepareAnswer,
	type PrepareItem,
	type Report,
} from "../../protocol/index.ts";
import { searchTerms } from "../payload-paths.ts";
import { failureOf, policyOf } from "./answers.ts";
import { apply, type Engine } from "./engine.ts";
import type { Dispatcher } from "./dispatcher.ts";
import type { Settings } from "./options.ts";

const LONGEST_NAME = 255;
/** How much more than what is left free one node may have under way. */
const FREE_TIMES = 3;

/** What is held in memory while it is prepared. */
interface Held {
	groups: number;
	bytes: number;
}

/** Takes what producers and consumers say: prepare, commit, rollback, report. */
export class Intake {
	readonly #engine: Engine;
	readonly #dispatcher: Dispatcher;
	/** What prepares under way hold in memory. */
	readonly #preparing: Held = { groups: 0, bytes: 0 };
	/** The same by the node that called. */
	readonly #byCaller = new Map<string, Held>();

	constructor(engine: Engine, dispatcher: Dispatcher) {
		this.#engine = engine;
		this.#dispatcher = dispatcher;
	}

	/**
	 * Stores groups, then acknowledges each (R6). What would be too much at once is refused before
	 * anything is stored, so that memory has a bound however fast producers are; what finishes groups,
	 * such as commits and reports, is never refused.
	 *
	 * @param caller the node that called
	 */
	async prepare(items: readonly unknown[], caller: string): Promise<PrepareAnswer[]> {
		const { store, storeId, meters, logger, complaints } = this.#engine;
		const admitted: Held = { groups: 0, bytes: 0 };
		return inOrder(
			items,
			(item) => {
				const group = this.#newGroup(item, caller);
				this.#admit(group, admitted, caller);
				return group;
			},
			(groups) => store.insert(groups).finally(() => this.#prepared(admitted, caller)),
			(result: InsertResult, group): PrepareAnswer => {
				if (result.result === "differs") {
					return refused(
						"LOTTOR_GROUP_DIFFERS",
						`Group ${group.id} exists with other content; it is ${result.state}`,
						{ group: group.id, state: result.state },
					);
				}
				if (result.result === "created") {
					meters.count("prepared");
					logger.debug(`Group ${group.id} of ${group.source} prepared`);
					return {
						result: "prepared",
						id: group.id,
						state: "prepared",
						coordinator: storeId,
					};
				}
				const again = result.id === group.id && result.state === "prepared";
				return {
					result: again ? "prepared" : "existing",
					id: result.id,
					state: result.state,
					coordinator: storeId,
				};
			},
			(error) => {
				const overloaded = error.code === "LOTTOR_OVERLOADED";
				meters.count(overloaded ? "overloaded" : "refusedPrepares");
				complaints.say(
					"warn",
					error.code,
					caller,
					() => `A prepare of node ${caller} was refused: ${error.message}`,
				);
				return { result: "refused", error };
			},
		);
	}

	/**
	 * A caller may hold as much as is left free, and {@link FREE_TIMES} times that: alone it gets most
	 * of the room, and however many flood it, something is left for the next.
	 */
	#admit(group: NewGroup, admitted: Held, caller: string): void {
		const { maxPreparing, maxPreparingBytes } = this.#engine.settings;
		const bytes = bytesOf(group);
		const all = this.#preparing;
		const own = this.#byCaller.get(caller) ?? { groups: 0, bytes: 0 };
		const room =
			fits(own.groups, 1, all.groups, maxPreparing) &&
			fits(own.bytes, bytes, all.bytes, maxPreparingBytes);
		// One alone is always taken, whatever its size: it has limits of its own.
		if (!room && all.groups > 0) {
			throw new LottorError(
				"LOTTOR_OVERLOADED",
				`Group ${group.id} was refused: ${all.groups} groups with ${all.bytes} bytes are being prepared, ${own.groups} with ${own.bytes} of them for node ${caller}`,
				{ group: group.id },
			);
		}
		this.#byCaller.set(caller, own);
		for (const count of [all, own, admitted]) {
			count.groups++;
			count.bytes += bytes;
		}
	}

	#prepared(admitted: Held, caller: string): void {
		const own = this.#byCaller.get(caller);
		for (const count of own ? [this.#preparing, own] : [this.#preparing]) {
			count.groups -= admitted.groups;
			count.bytes -= admitted.bytes;
		}
		if (own?.groups === 0) this.#byCaller.delete(caller);
	}

	/**
	 * Takes the producers' decisions. What is committed is on its way before this resolves.
	 *
	 * @param caller the node that called
	 */
	async decide(to: Outcome, items: readonly unknown[], caller: string): Promise<ItemAnswer[]> {
		const { meters, complaints } = this.#engine;
		const dispatch = this.#dispatcher.lease();
		return inOrder(
			items,
			(item): Decision => {
				const { id, storeId, why } = record<DecideItem>(item, "item");
				if (!isGroupId(id)) throw invalid("id", "must be a group id");
				const named = text(storeId, "storeId");
				this.#assertKnows(caller, named, id);
				return {
					id,
					to,
					by: "producer",
					who: "producer",
					storeId: named,
					...(why === undefined ? {} : { why: text(why, "why", 1_000) }),
					...(to === "committed" ? { dispatch } : {}),
				};
			},
			(decisions) => this.#engine.store.decide(decisions),
			(result, decision) => this.decided(result, decision, caller),
			(error) => {
				meters.count("refusedDecisions");
				complaints.say(
					"warn",
					"decision",
					caller,
					() => `A ${to} of node ${caller} was refused: ${error.message}`,
				);
				return { result: "invalid", error };
			},
		);
	}

	/**
	 * Only a node with the participant store can know how a group of it ended (R3). One that this
	 * coordinator has not seen with it yet tells again; and check-back asks in any case.
	 */
	#assertKnows(caller: string, storeId: string, group: string): void {
		const { view, broker } = this.#engine;
		if (caller === broker.nodeID || view.hasStore(caller, storeId)) return;
		const error = new LottorError(
			"LOTTOR_STORE_MISMATCH",
			`Node ${caller} has no service with the store ${storeId}, and decides nothing for group ${group}`,
			{ group },
		);
		error.retryable = true;
		throw error;
	}

	/** What follows a decision, whoever took it: dispatch, counters, log, the answer. */
	decided(result: DecideResult, decision: Decision, caller = decision.who): ItemAnswer {
		const { meters, logger, complaints } = this.#engine;
		switch (result.result) {
			case "done":
				meters.count(decision.to);
				logger.debug(`Group ${decision.id} ${decision.to} by ${decision.who}`);
				if (decision.to === "committed") this.#dispatcher.committed(result);
				return { result: "ok", state: result.group.state };
			case "already":
				return { result: "already", state: result.state };
			case "unknown":
				if (decision.to === "committed") {
					meters.count("unknownCommits");
					complaints.say(
						"error",
						"unknown",
						caller,
						() =>
							`Commit of group ${decision.id} by ${caller}, which this store does not know`,
					);
				}
				return {
					result: "unknown",
					error: itemError("LOTTOR_GROUP_UNKNOWN", `No group ${decision.id}`),
				};
			case "conflict": {
				meters.count("conflicts");
				const code =
					result.why === OTHER_STORE
						? "LOTTOR_STORE_MISMATCH"
						: "LOTTOR_DECISION_CONFLICT";
				const message = `Group ${decision.id} is ${result.state}: ${result.why}`;
				complaints.say(
					"error",
					code,
					caller,
					() =>
						`${decision.to === "committed" ? "Commit" : "Rollback"} refused. ${message}`,
				);
				return {
					result: code === "LOTTOR_STORE_MISMATCH" ? "invalid" : "conflict",
					state: result.state,
					error: itemError(code, message, { group: decision.id }),
				};
			}
		}
	}

	/**
	 * Takes reports (R26): every answer is final, and given only when the fact is durable.
	 *
	 * @param caller the node that called, or that the report came from as an answer
	 */
	async report(items: readonly unknown[], caller: string): Promise<ItemAnswer[]> {
		const { meters, complaints } = this.#engine;
		return inOrder(
			items,
			(item) => this.#changeOf(item),
			(reports) =>
				apply(
					this.#engine,
					reports.map((one) => one.change),
				),
			(result: ApplyResult, { report }) => this.#reported(result, report),
			(error) => {
				meters.count("refusedReports");
				complaints.say(
					"warn",
					"report",
					caller,
					() => `A report of node ${caller} was refused: ${error.message}`,
				);
				return { result: "invalid", error };
			},
		);
	}

	#reported(result: ApplyResult, report: Report): ItemAnswer {
		const { meters, logger } = this.#engine;
		if (result.result === "unknown") {
			return {
				result: "unknown",
				error: itemError("LOTTOR_MESSAGE_UNKNOWN", `No message ${report.id}`),
			};
		}
		const message = result.group.messages[parseMessageId(report.id)?.index ?? -1];
		const state = message?.state ?? "unknown";
		if (report.result === "running") return this.#again(result, report);
		if (result.result !== "stale" && result.result !== "conflict")
			this.#dispatcher.landed(report.id);
		switch (result.result) {
			case "done":
				if (report.result === "consumed") {
					meters.count("consumed");
					logger.info(`Message ${report.id} consumed by ${message?.target}`);
				} else if (report.result === "failed") {
					meters.count(state === "failed" ? "failed" : "attemptsFailed");
					const text = `Message ${report.id} to ${message?.target} failed: ${report.error.message}`;
					if (state === "failed") logger.warn(`${text}. It waits for an operator`);
					else logger.info(`${text}. It will be tried again`);
				}
				return { result: "ok", state };
			case "conflict":
				return {
					result: "conflict",
					state,
					error: itemError(
						"LOTTOR_ILLEGAL_TRANSITION",
						`Message ${report.id}: ${result.why}`,
					),
				};
			case "fenced":
				return { result: "stale", state };
			default:
				return { result: result.result, state };
		}
	}

	/** A copy that was handed over before is about to run: whether it may (R23). */
	#again(
		result: Exclude<ApplyResult, { result: "unknown" }>,
		{ id, owner }: Extract<Report, { result: "running" }>,
	): ItemAnswer {
		const message = result.group.messages[parseMessageId(id)?.index ?? -1];
		if (result.result === "conflict") {
			const text = `Message ${id}: ${result.why}`;
			return { result: "conflict", error: itemError("LOTTOR_FENCE_BUSY", text) };
		}
		const vanished = message?.vanished ?? 0;
		if (result.result === "done" && vanished > 0) {
			this.#engine.logger.warn(
				`Message ${id} runs again, on ${owner.nodeID}: ${vanished} instances of ${message?.target} ended while they ran it`,
			);
		}
		if (result.result !== "done") return { result: result.result === "stale" ? "stale" : "ok" };
		return { result: vanished >= this.#engine.settings.maxVanished ? "stale" : "ok" };
	}

	#changeOf(item: unknown): { report: Report; change: Change } {
		const report = record<Report>(item, "item");
		const place = parseMessageId(report.id);
		if (!place) throw invalid("id", "must be a message id");
		if (!checkReceipt(this.#engine.key, report.id, report.receipt)) {
			throw new LottorError(
				"LOTTOR_RECEIPT_INVALID",
				`Message ${report.id} was not sent to whoever reports for it`,
				{ message: report.id },
			);
		}
		const at = { id: place.group, index: place.index };
		const attempt = whole(report.attempt, "attempt", 1, HIGHEST_COUNT);
		const revision = whole(report.revision, "revision", 0, HIGHEST_COUNT);
		const who = "consumer";
		switch (report.result) {
			case "consumed":
				return { report, change: { ...at, event: { type: "consumed", revision, who } } };
			case "expired":
				return {
					report,
					change: { ...at, event: { type: "expired", attempt, revision, who } },
				};
			case "running":
				return { report, change: { ...at, event: this.#runs(report, attempt, revision) } };
			case "failed":
				return {
					report,
					change: {
						...at,
						event: {
							type: "failed",
							attempt,
							revision,
							who,
							error: failureOf(
								record<Record<string, unknown>>(report.error, "error"),
							),
							policy:
								report.policy === undefined
									? this.#engine.settings.retry
									: policyOf(report.policy),
							fraction: this.#engine.settings.random.fraction(),
						},
					},
				};
			default:
				throw invalid("result", 'must be "consumed", "failed", "expired" or "running"');
		}
	}

	#runs({ owner }: { readonly owner?: unknown }, attempt: number, revision: number) {
		const { nodeID, instanceID } = record<Owner>(owner, "owner");
		return {
			type: "running",
			attempt,
			revision,
			instance: {
				nodeID: text(nodeID, "owner.nodeID"),
				instanceID: text(instanceID, "owner.instanceID"),
			},
			living: this.#engine.view.participants.map((one) => ({
				nodeID: one.nodeID,
				instanceID: one.instanceID,
			})),
			maxVanished: this.#engine.settings.maxVanished,
			ackTimeout: this.#engine.settings.ackTimeout,
		} as const;
	}

	#newGroup(item: unknown, caller: string): NewGroup {
		const { settings, view, complaints } = this.#engine;
		const given = record<PrepareItem>(item, "item");
		if (!isGroupId(given.id)) throw invalid("id", "must be a group id");
		if (!GUARANTEES.includes(given.guarantee))
			throw invalid("guarantee", `must be one of ${GUARANTEES.join()}`);
		if (!Array.isArray(given.messages) || given.messages.length === 0) {
			throw invalid("messages", "must be an array of at least one message");
		}
		if (given.messages.length > settings.maxMessages) {
			throw new LottorError(
				"LOTTOR_TOO_MANY_MESSAGES",
				`A group may have ${settings.maxMessages} messages, this one has ${given.messages.length}`,
				{ group: given.id },
			);
		}
		const owner = record<PrepareItem["owner"]>(given.owner, "owner");
		const context = given.context === undefined ? "{}" : jsonText(given.context, "context");
		// Not `map`, which passes over holes.
		const messages = Array.from(given.messages as unknown[], (message, index) =>
			newMessage(message, index, settings),
		);
		const bytes = bytesOf({ messages, context });
		if (bytes > settings.maxGroup) {
			throw new LottorError(
				"LOTTOR_PAYLOAD_TOO_LARGE",
				`The group has ${bytes} bytes, over ${settings.maxGroup}`,
				{ group: given.id },
			);
		}
		for (const { target } of messages) {
			if (view.knows(target)) continue;
			const note = `No service ${target} was ever seen by this coordinator`;
			if (settings.unknownTargets === "refuse") {
				throw new LottorError("LOTTOR_UNKNOWN_TARGET", note, { group: given.id, target });
			}
			complaints.say(
				"warn",
				"target",
				caller,
				() => `${note}; the message of group ${given.id} will wait for it`,
			);
		}
		const group = {
			id: given.id,
			source: text(given.source, "source"),
			storeId: text(given.storeId, "storeId"),
			guarantee: given.guarantee,
			owner: {
				nodeID: text(owner.nodeID, "owner.nodeID"),
				instanceID: text(owner.instanceID, "owner.instanceID"),
			},
			idempotencyKey:
				given.idempotencyKey === undefined
					? null
					: text(given.idempotencyKey, "idempotencyKey"),
			checkAfter:
				given.checkAfter === undefined
					? settings.checkAfter
					: whole(given.checkAfter, "checkAfter", 0, LONGEST_MS),
			context,
			messages,
		};
		const { source, storeId, guarantee, idempotencyKey, checkAfter } = group;
		const content = [
			source,
			storeId,
			guarantee,
			idempotencyKey,
			checkAfter,
			messages.map(Object.values),
		];
		// Which fields can be searched is not what the producer says, and no part of the hash.
		const searchable = messages.map((message) => ({
			...message,
			terms: searchTerms(message.content, settings.searchFields),
		}));
		const hash = contentHash(JSON.stringify(content));
		return { ...group, hash, messages: searchable };
	}
}

function bytesOf({ messages, context }: Pick<NewGroup, "messages" | "context">): number {
	return messages.reduce((sum, message) => sum + message.bytes, Buffer.byteLength(context));
}

/** @returns whether a caller that has `own` of all that is held may have `more` */
function fits(own: number, more: number, all: number, most: number): boolean {
	return all + more <= most && own + more <= FREE_TIMES * (most - all);
}

function newMessage(item: unknown, index: number, { maxPayload, delivery }: Settings): NewMessage {
	const at = `messages[${index}]`;
	const given = record<PrepareItem["messages"][number]>(item, at);
	const content = jsonText(given.content, `${at}.content`);
	const bytes = Buffer.byteLength(content);
	const limit = Math.min(maxPayload, delivery.maxBytes);
	if (bytes > limit) {
		throw new LottorError(
			"LOTTOR_PAYLOAD_TOO_LARGE",
			`The payload of ${at} has ${bytes} bytes, over ${limit}`,
			{ field: `${at}.payload` },
		);
	}
	if (given.deliver !== undefined && given.deliver !== "action" && given.deliver !== "channel") {
		throw invalid(`${at}.deliver`, 'must be "action", "channel" or left out');
	}
	if (given.deliver === "channel" && !delivery.durable) {
		throw invalid(`${at}.deliver`, 'is "channel", and delivery here is by direct calls');
	}
	const target = text(given.target, `${at}.target`);
	const problem = given.deliver === "action" ? undefined : delivery.targetProblem?.(target);
	if (problem !== undefined) throw invalid(`${at}.target`, `is ${target}, ${problem}`);
	return {
		target,
		type: text(given.type, `${at}.type`),
		content,
		bytes,
		delay: given.delay === undefined ? 0 : whole(given.delay, `${at}.delay`, 0, LONGEST_MS),
		maxAttempts:
			given.maxAttempts === undefined
				? null
				: whole(given.maxAttempts, `${at}.maxAttempts`, 1, HIGHEST_COUNT),
		orderingKey:
			given.orderingKey === undefined ? null : text(given.orderingKey, `${at}.orderingKey`),
		plain: given.deliver ?? false,
	};
}

/**
 * Checks items one by one, hands the good ones over together, and answers all in order: a bad
 * item never affects the others.
 */
export async function inOrder<Item, Result, Answer>(
	items: readonly unknown[],
	check: (item: unknown) => Item,
	run: (items: Item[]) => Promise<Result[]>,
	answer: (result: Result, item: Item) => Answer,
	refuse: (error: ItemError) => Answer,
): Promise<Answer[]> {
	const answers: Answer[] = [];
	const good: { item: Item; place: number }[] = [];
	items.forEach((item, place) => {
		try {
			good.push({ item: check(item), place });
		} catch (error) {
			answers[place] = refuse(errorOf(error));
		}
	});
	if (good.length > 0) {
		const results = await run(good.map((one) => one.item));
		good.forEach(({ item, place }, index) => {
			answers[place] = answer(results[index] as Result, item);
		});
	}
	return answers;
}

export function itemError(
	code: ErrorCode,
	message: string,
	data?: Record<string, unknown>,
): ItemError {
	return { code, message, retryable: ERRORS[code].retryable, ...(data ? { data } : {}) };
}

function errorOf(error: unknown): ItemError {
	if (error instanceof LottorError) {
		return {
			...itemError(
				error.type as ErrorCode,
				error.message,
				error.data as Record<string, unknown>,
			),
			retryable: error.retryable,
		};
	}
	return itemError("LOTTOR_INVALID_REQUEST", messageOf(error));
}

function refused(code: ErrorCode, message: string, data: Record<string, unknown>): PrepareAnswer {
	return { result: "refused", error: itemError(code, message, data) };
}

export function invalid(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_INVALID_REQUEST", `Field ${field} ${problem}`, { field });
}

/** @returns the value as an object whose fields are still to be checked */
export function record<T>(
	value: unknown,
	field: string,
): Partial<T> & Record<keyof T, unknown> & T {
	if (!isRecord(value)) throw invalid(field, "must be an object");
	return value as Partial<T> & Record<keyof T, unknown> & T;
}

export function text(value: unknown, field: string, longest = LONGEST_NAME): string {
	if (typeof value !== "string" || value.length === 0 || value.length > longest) {
		throw invalid(field, `must be a text of 1 to ${longest} characters`);
	}
	return value;
}

export function whole(
	value: unknown,
	field: string,
	least: number,
	most = Number.MAX_SAFE_INTEGER,
): number {
	if (!isWhole(value, least, most)) {
		throw invalid(field, `must be a whole number from ${least} to ${most}`);
	}
	return value;
}

/** @returns the value, which must be a text that JSON can read: it is handed on unread */
export function jsonText(value: unknown, field: string): string {
	if (typeof value !== "string") throw invalid(field, "must be JSON text");
	try {
		JSON.parse(value);
	} catch {
		throw invalid(field, "must be JSON text");
	}
	return value;
}
