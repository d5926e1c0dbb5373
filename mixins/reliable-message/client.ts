import type { ServiceBroker } from "moleculer";
import {
	BATCH_BYTES,
	BATCH_ITEMS,
	type Clock,
	COORDINATOR_SERVICE,
	type DecideItem,
	ERRORS,
	type ErrorCode,
	hasCode,
	type ItemAnswer,
	type ItemError,
	LottorError,
	type PrepareAnswer,
	type PrepareItem,
	type Random,
	type Report,
} from "../../protocol/index.ts";
import { Prepares } from "./prepares.ts";
import { type Coordinator, livingCoordinators } from "./registry.ts";
import { within } from "./timing.ts";

/** Longest call of a commit, rollback or report. */
const CALL_TIMEOUT_MS = 5_000;
/** How often the registry is looked at while no coordinator lives. */
const ABSENT_POLL_MS = 100;
const TRY_DELAY_MS = 50;
const LONGEST_TRY_DELAY_MS = 500;
/** How long others are preferred to a coordinator that did not answer, or could not store. */
const SUSPECT_MS = 5_000;

/** Errors of a call that certainly never ran its action. */
const NOT_REACHED = new Set(["SERVICE_NOT_FOUND", "SERVICE_NOT_AVAILABLE"]);

/** A prepared group: where it is. */
export type Prepared = Extract<PrepareAnswer, { result: "prepared" | "existing" }>;

/** Calls the coordinators. */
export class CoordinatorClient {
	readonly #broker: ServiceBroker;
	readonly #clock: Clock;
	readonly #random: Random;
	readonly #prepares: Prepares;
	/** Turns of the round robin, by action: a common one would tie them to each other. */
	readonly #turns = new Map<string, number>();
	/** Nodes whose coordinator failed lately, with the time until which others are preferred. */
	readonly #suspects = new Map<string, number>();

	constructor(broker: ServiceBroker, clock: Clock, random: Random) {
		this.#broker = broker;
		this.#clock = clock;
		this.#random = random;
		this.#prepares = new Prepares({
			clock,
			pick: (storeId, takes) => this.#pick("prepare", storeId, takes),
			call: (coordinator, items, timeout) =>
				this.#call<PrepareAnswer>("prepare", coordinator, items, timeout),
		});
	}

	/**
	 * Prepares a group within one deadline over all tries (R6). Once a try may have reached a
	 * coordinator store, later ones go to the same store: two stores must never both hold a group.
	 *
	 * @param timeout milliseconds
	 * @throws LOTTOR_NO_COORDINATOR, LOTTOR_PREPARE_FAILED, LOTTOR_OVERLOADED, or the coordinator's
	 *   own refusal
	 */
	async prepare(item: PrepareItem, timeout: number): Promise<Prepared> {
		const deadline = this.#clock.now() + timeout;
		const data = { group: item.id };
		let storeId: string | undefined;
		let cause: unknown;

		for (let tries = 0; ; tries++) {
			const left = deadline - this.#clock.now();
			if (left <= 0) break;
			const { sentTo, result } = await this.#prepares.once(item, deadline, timeout, storeId);
			if (result.state === "overloaded") {
				const message = `Group ${item.id} was not prepared: more is to be prepared than the coordinators take`;
				const error = new LottorError("LOTTOR_OVERLOADED", message, data);
				if (storeId === undefined) throw error;
				// An earlier try may be stored all the same.
				cause ??= error;
				break;
			}
			if (this.#clock.now() >= deadline) {
				storeId ??= sentTo?.storeId;
				break;
			}

			if (result.state === "absent") {
				await this.#pause(Math.min(ABSENT_POLL_MS, deadline - this.#clock.now()));
				continue;
			}
			if (result.state === "answered") {
				const { answer } = result;
				if (answer.result !== "refused") return answer;
				if (!answer.error.retryable) throw refusal(answer.error, item.id);
				cause = refusal(answer.error, item.id);
			} else {
				cause = result.error;
			}
			if (sentTo && mayHaveReached(cause)) storeId = sentTo.storeId;
			if (sentTo) this.#suspect(sentTo);
			const delay = Math.min(TRY_DELAY_MS * 2 ** tries, LONGEST_TRY_DELAY_MS);
			await this.#pause(Math.min(delay * (0.5 + this.#random.fraction() / 2), left));
		}

		if (cause === undefined && storeId === undefined) {
			const message = "No living coordinator was found before the deadline of prepare";
			throw new LottorError("LOTTOR_NO_COORDINATOR", message, data);
		}
		if (hasCode(cause, "LOTTOR_OVERLOADED")) throw cause;
		const message = `Group ${item.id} could not be prepared within ${timeout} ms`;
		throw new LottorError("LOTTOR_PREPARE_FAILED", message, data, cause);
	}

	/** Tells the coordinators of one store decisions of producers. Rejects when nothing is known. */
	decide(to: "commit" | "rollback", storeId: string, items: readonly DecideItem[]) {
		return this.#tell(to, storeId, items);
	}

	/** Tells the coordinators of one store how consumptions ended. Rejects when nothing is known. */
	report(storeId: string, items: readonly Report[]) {
		return this.#tell("report", storeId, items);
	}

	async #tell(action: string, storeId: string, items: readonly unknown[]): Promise<ItemAnswer[]> {
		const coordinator = this.#pick(action, storeId);
		if (typeof coordinator === "string") {
			const message = `No living coordinator has the store ${storeId}`;
			throw new LottorError("LOTTOR_NO_COORDINATOR", message);
		}
		return this.#call<ItemAnswer>(action, coordinator, items, CALL_TIMEOUT_MS);
	}

	async #call<Answer>(
		action: string,
		coordinator: Coordinator,
		items: readonly unknown[],
		timeout: number,
	): Promise<Answer[]> {
		const call = this.#broker.call<unknown, { items: readonly unknown[] }>(
			`${COORDINATOR_SERVICE}.${action}`,
			{ items },
			{ nodeID: coordinator.nodeID, timeout, retries: 0 },
		);
		const answers = await within(this.#clock, timeout, call).catch((error: unknown) => {
			this.#suspect(coordinator);
			throw error;
		});
		if (!Array.isArray(answers) || answers.length !== items.length) {
			throw new Error(`lottor.${action} did not answer every item`);
		}
		return answers as Answer[];
	}

	/** A local one before remote ones, in turn, and those that answer before those that did not. */
	#pick(
		action: string,
		storeId?: string,
		takes: (coordinator: Coordinator) => boolean = () => true,
	): Coordinator | "none lives" | "none takes more" {
		const living = livingCoordinators(this.#broker, storeId);
		if (living.length === 0) return "none lives";
		const now = this.#clock.now();
		const trusted = living.filter(({ nodeID }) => (this.#suspects.get(nodeID) ?? 0) <= now);
		const choice = (trusted.length > 0 ? trusted : living).filter(takes);
		const turn = (this.#turns.get(action) ?? 0) + 1;
		this.#turns.set(action, turn);
		const chosen = choice.find(({ local }) => local) ?? choice[turn % choice.length];
		return chosen ?? "none takes more";
	}

	#suspect({ nodeID }: Coordinator): void {
		const now = this.#clock.now();
		for (const [other, until] of this.#suspects) {
			if (until <= now) this.#suspects.delete(other);
		}
		this.#suspects.set(nodeID, now + SUSPECT_MS);
	}

	#pause(ms: number): Promise<void> {
		return new Promise((resolve) => void this.#clock.after(ms, resolve));
	}
}

/** Splits items, in order, so that no batch is over the limits of one call (R29). */
export function batches<T extends { readonly bytes: number }>(items: readonly T[]): T[][] {
	const all: T[][] = [];
	let batch: T[] = [];
	let bytes = 0;
	for (const item of items) {
		const full = batch.length === BATCH_ITEMS || bytes + item.bytes > BATCH_BYTES;
		if (full && batch.length > 0) {
			all.push(batch);
			batch = [];
			bytes = 0;
		}
		batch.push(item);
		bytes += item.bytes;
	}
	if (batch.length > 0) all.push(batch);
	return all;
}

function mayHaveReached(error: unknown): boolean {
	const type = typeof error === "object" && error !== null && "type" in error ? error.type : "";
	return !NOT_REACHED.has(String(type));
}

/** A coordinator's refusal as the error that the caller gets. */
function refusal(error: ItemError, group: string): LottorError {
	const known = Object.hasOwn(ERRORS, error.code);
	const code = known ? (error.code as ErrorCode) : "LOTTOR_PREPARE_FAILED";
	const made = new LottorError(code, error.message, { group, ...error.data });
	made.retryable = error.retryable;
	return made;
}
