import type { EndedRun, TxBase } from "../../adapters/participant-store/contract.ts";
import {
	hasCode,
	isRecord,
	LottorError,
	messageOf,
	newGroupId,
	type PrepareItem,
	type PrepareMessage,
} from "../../protocol/index.ts";
import type { CoordinatorClient } from "./client.ts";
import type { Confirms } from "./confirms.ts";
import type { AnyContext, Core, HandlerScope } from "./core.ts";
import { LateOutcomes } from "./late-outcomes.ts";
import type { TransactionResult } from "./metrics.ts";
import {
	callContext,
	checkContext,
	invalid,
	readMessages,
	readTransactionOptions,
	type TransactionSettings,
} from "./request.ts";
import type { TransactionOptions } from "./types.ts";

/**
 * Transactions that run in this process at once. More are refused: a local database that is slower
 * than its callers would else fill the memory.
 */
const MOST_RUNNING = 10_000;

type Work<T> = (tx: TxBase) => Promise<T> | T;

/** A prepared group and what its work needs. */
interface Prepared<T> {
	readonly id: string;
	/** Id of the coordinator store that has it. */
	readonly coordinator: string;
	readonly work: Work<T>;
	readonly timeout: number;
	/** The handler whose transaction the work joins (R11). */
	readonly scope: HandlerScope | undefined;
}

/** The producer's side: ties messages to local transactions. */
export class Producer {
	readonly #core: Core;
	readonly #client: CoordinatorClient;
	readonly #confirms: Confirms;
	readonly #late: LateOutcomes;
	readonly #running = new Set<Promise<unknown>>();
	#stopping = false;

	constructor(core: Core, client: CoordinatorClient, confirms: Confirms) {
		this.#core = core;
		this.#client = client;
		this.#confirms = confirms;
		this.#late = new LateOutcomes(core, confirms);
	}

	/** The `transaction` of `this.reliable`; see types.ts. */
	async transaction<T>(
		ctx: AnyContext | null,
		messages: unknown,
		work: Work<T>,
		options: TransactionOptions = {},
	): Promise<T> {
		const { settings, specials } = this.#core;
		checkContext(ctx);
		const scope = this.#scopeOf(ctx);
		// A handler that the stop waits for may still do all that it has to do.
		if (this.#stopping && !scope) throw stopping();
		const prepareMessages = readMessages(messages, settings.maxPayload, specials);
		if (typeof work !== "function") throw invalid("work", "must be a function");
		const transaction = readTransactionOptions(options, settings.workTimeout);
		if (this.#running.size >= MOST_RUNNING && !scope) throw overloaded();

		const running = this.#transaction(ctx, prepareMessages, work, transaction, scope);
		this.#running.add(running);
		try {
			return await running;
		} finally {
			this.#running.delete(running);
		}
	}

	/** Refuses new transactions from now on, except those of handlers under way. */
	stop(): void {
		this.#stopping = true;
	}

	/** Resolves once no transaction runs here. Never rejects. */
	async idle(): Promise<void> {
		while (this.#running.size > 0) await Promise.allSettled(this.#running);
	}

	close(): void {
		this.#late.close();
	}

	async #transaction<T>(
		ctx: AnyContext | null,
		messages: readonly PrepareMessage[],
		work: Work<T>,
		options: TransactionSettings,
		scope: HandlerScope | undefined,
	): Promise<T> {
		const { active, settings } = this.#core;
		const id = newGroupId(settings.clock, settings.random);
		// Before prepare: from its arrival on, check-back may ask for the group (R13).
		active.set(id, {});
		let keep = false;
		try {
			const coordinator = await this.#prepare(id, ctx, messages, options);
			const prepared = { id, coordinator, work, timeout: options.timeout, scope };
			const { result, working } = await this.#run(prepared);
			if (result.state === "joined") {
				keep = true;
				void this.#concludeJoined(prepared, result.ended);
				return result.value;
			}
			keep = this.#keepInMemory(prepared, result, working);
			return this.#conclude(prepared, result);
		} catch (error) {
			throw withGroup(error, id);
		} finally {
			if (!keep) active.delete(id);
		}
	}

	/** @returns id of the coordinator store that has the group now */
	async #prepare(
		id: string,
		ctx: AnyContext | null,
		messages: readonly PrepareMessage[],
		options: TransactionSettings,
	): Promise<string> {
		const { service, storeId, guarantee, owner, logger, settings } = this.#core;
		const context = callContext(ctx, service.fullName);
		const item: PrepareItem = {
			id,
			source: service.fullName,
			storeId,
			guarantee,
			owner,
			messages,
			...(options.idempotencyKey !== undefined && { idempotencyKey: options.idempotencyKey }),
			...(options.checkAfter !== undefined && { checkAfter: options.checkAfter }),
			...(context !== undefined && { context }),
		};
		let answer;
		try {
			answer = await this.#client.prepare(item, settings.prepareTimeout);
		} catch (error) {
			this.#count("notPrepared");
			throw error;
		}
		if (answer.id !== id) {
			this.#count("notPrepared");
			throw new LottorError(
				"LOTTOR_DUPLICATE_REQUEST",
				`The idempotency key belongs to group ${answer.id}, which is ${answer.state}`,
				{ group: answer.id, state: answer.state },
			);
		}
		if (answer.state !== "prepared") throw this.#fenced(id);
		logger.info(`Lottor: group ${id} prepared, ${messages.length} message(s)`);
		return answer.coordinator;
	}

	async #run<T>(prepared: Prepared<T>) {
		const { store, owner } = this.#core;
		const { id, coordinator, work, timeout, scope } = prepared;
		let working: Promise<T> | undefined;
		const result = await store.run(
			{ id, owner, coordinator, timeout, ...(scope && { join: scope.tx }) },
			(tx) => {
				working = (async () => work(tx))();
				return working;
			},
		);
		return { result, working };
	}

	/** Whether check-back must still find the group in memory once the caller has its answer. */
	#keepInMemory<T>(
		{ id, coordinator }: Prepared<T>,
		result: EndedRun<T>,
		working: Promise<T> | undefined,
	): boolean {
		// A transactional store knows by itself what stands; a recorded one only learns it from here.
		if (result.state !== "unknown" || !working || this.#core.guarantee === "transactional") {
			return false;
		}
		this.#late.follow(id, coordinator, working);
		return true;
	}

	/** Tells the outcome of a nested group once the handler's transaction has ended (R11). */
	async #concludeJoined<T>(prepared: Prepared<T>, ended: Promise<EndedRun<T>>): Promise<void> {
		try {
			this.#conclude(prepared, await ended);
		} catch {
			// Told and logged; the caller has had the value of its work long ago.
		} finally {
			this.#core.active.delete(prepared.id);
		}
	}

	#conclude<T>({ id, coordinator }: Prepared<T>, result: EndedRun<T>): T {
		const { logger } = this.#core;
		switch (result.state) {
			case "committed":
				logger.info(`Lottor: group ${id} committed`);
				this.#confirms.commit(coordinator, id);
				this.#count("committed");
				return result.value;
			case "rolledBack":
				logger.info(`Lottor: group ${id} rolled back: ${messageOf(result.error)}`);
				this.#confirms.rollback(coordinator, id);
				this.#count("rolledBack");
				throw result.error;
			case "fenced":
				throw this.#fenced(id);
			case "unknown":
				logger.error(`Lottor: group ${id}: outcome unknown: ${messageOf(result.error)}`);
				this.#count("unknown");
				throw new LottorError(
					"LOTTOR_OUTCOME_UNKNOWN",
					`It is unclear whether the local work of group ${id} took effect; check-back will decide`,
					{ group: id },
					result.error,
				);
			case "conflict":
				logger.error(`Lottor: group ${id} took effect after it had been rolled back`);
				// Puts the group in doubt (R17).
				this.#confirms.commit(coordinator, id);
				this.#count("conflict");
				throw new LottorError(
					"LOTTOR_OUTCOME_CONFLICT",
					`The local work took effect after group ${id} had been rolled back; an operator must decide`,
					{ group: id },
				);
		}
	}

	#scopeOf(ctx: AnyContext | null): HandlerScope | undefined {
		const scope = ctx ? this.#core.scopes.get(ctx) : undefined;
		if (scope && !scope.open) {
			throw new LottorError(
				"LOTTOR_TX_CLOSED",
				"The message handler that this context belongs to has ended",
			);
		}
		return scope;
	}

	#fenced(id: string): LottorError {
		this.#count("fenced");
		const message = `Group ${id} was rolled back before its local work began`;
		return new LottorError("LOTTOR_FENCED", message, { group: id });
	}

	#count(result: TransactionResult): void {
		this.#core.metrics.transaction(this.#core.service.fullName, result);
	}
}

/** @returns the error of a service that takes no new work */
export function stopping(): LottorError {
	return new LottorError("LOTTOR_STOPPING", "The service is stopping and takes no new work");
}

function overloaded(): LottorError {
	const message = `${MOST_RUNNING} transactions run in this process already`;
	return new LottorError("LOTTOR_OVERLOADED", message);
}

/** Notes the group in the error's data where the error can carry it, and returns the same error. */
function withGroup(error: unknown, group: string): unknown {
	if (typeof error !== "object" || error === null) return error;
	if (hasCode(error, "LOTTOR_DUPLICATE_REQUEST")) return error;
	const data: unknown = "data" in error ? error.data : undefined;
	try {
		if (data === undefined || data === null) Object.assign(error, { data: { group } });
		else if (isRecord(data) && !("group" in data)) data["group"] = group;
	} catch {
		// A frozen error stays as it is.
	}
	return error;
}
