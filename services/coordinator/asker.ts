import type { Claimed } from "../../adapters/coordinator-store/index.ts";
import {
	type AskAnswer,
	type AskItem,
	BATCH_ITEMS,
	type Change,
	ERRORS,
	type Failure,
	FENCED_ALL,
	type MessageRecord,
} from "../../protocol/index.ts";
import { readAsk } from "./answers.ts";
import type { Dispatcher } from "./dispatcher.ts";
import { apply, callParticipant, doubling, eachClaim, type Engine, groupBy } from "./engine.ts";
import type { Fences } from "./fences.ts";

/** How long a sent message waits for an instance that could be asked, at the most. */
const PARK_MS = 5 * 60_000;

interface Due {
	readonly claimed: Claimed;
	readonly message: MessageRecord;
}

type Event = Extract<Change, { index: number }>["event"];

/** Asks targets about messages whose report did not come in time (R23, R24, R25). */
export class Asker {
	readonly #engine: Engine;
	readonly #dispatcher: Dispatcher;
	readonly #fences: Fences;

	constructor(engine: Engine, dispatcher: Dispatcher, fences: Fences) {
		this.#engine = engine;
		this.#dispatcher = dispatcher;
		this.#fences = fences;
	}

	/** Looks through the store for messages that are due to be asked about, or fenced. */
	async pass(): Promise<void> {
		const { lease, askTimeout } = this.#engine.settings;
		// Who did not answer once is not waited for again in this pass.
		const silent = new Set<string>();
		await eachClaim(this.#engine, "ask", lease + askTimeout, (claimed) =>
			this.#handle(claimed, silent),
		);
	}

	async #handle(claimed: readonly Claimed[], silent: Set<string>): Promise<void> {
		const now = this.#engine.store.now();
		const asks: Due[] = [];
		const others: Promise<void>[] = [];
		for (const one of claimed) {
			for (const message of one.group.messages) {
				if (message.nextAt === null || message.nextAt > now) continue;
				const due = { claimed: one, message };
				if (message.state === "discarded") others.push(this.#fenceDiscarded(due));
				else if (message.state === "delivering" && message.plain)
					others.push(this.#unanswered(due));
				else if (message.state !== "delivering") continue;
				else if (message.vanished >= this.#engine.settings.maxVanished)
					others.push(this.#crashed(due, message.vanished));
				else asks.push(due);
			}
		}
		const byTarget = groupBy(asks, ({ message }) => `${message.target}|${message.storeId}`);
		await Promise.all([
			...others,
			...[...byTarget.values()].map((dues) => this.#askAll(dues, silent)),
		]);
		// A group can have pending messages due besides: nobody else may claim it until the lease ends.
		await this.#dispatcher.plan(await this.#again(claimed));
	}

	/** The claimed groups as they stand now, with payloads of what became pending. */
	async #again(claimed: readonly Claimed[]): Promise<Claimed[]> {
		const { store } = this.#engine;
		const groups = await store.get(claimed.map((one) => one.group.id));
		const again: Claimed[] = [];
		for (const [place, group] of groups.entries()) {
			const one = claimed[place];
			if (!one || !group || group.epoch !== one.group.epoch) continue;
			if (!group.messages.some((message) => message.state === "pending")) continue;
			again.push({ group, payloads: await store.payloads(group.id), context: one.context });
		}
		return again;
	}

	async #askAll(dues: readonly Due[], silent: Set<string>): Promise<void> {
		for (let start = 0; start < dues.length; start += BATCH_ITEMS) {
			await this.#ask(dues.slice(start, start + BATCH_ITEMS), silent);
		}
	}

	async #ask(dues: readonly Due[], silent: Set<string>): Promise<void> {
		const first = dues[0]?.message;
		if (!first || first.storeId === null) return;
		const { view } = this.#engine;
		const instances = view.instances(first.target, first.storeId);
		if (instances.length === 0) {
			const { arrivals } = view;
			const why = `no living instance of ${first.target} with the store that the message is bound to`;
			await this.#applyAll(dues, ({ message }) => ({
				type: "rescheduled",
				delay: PARK_MS,
				parked: true,
				why,
				instance: this.#engine.flights.instanceOf(message.id),
			}));
			if (view.arrivals !== arrivals) this.#dispatcher.wakeAgain([first.target]);
			return;
		}
		const items = dues.map(({ message }): AskItem => ({
			id: message.id,
			storeId: first.storeId ?? "",
			type: message.type,
			attempt: message.attempts + 1,
			revision: message.revision,
		}));
		const answers = await Promise.all(
			instances.map((instance) =>
				callParticipant<AskItem, AskAnswer>(
					this.#engine,
					instance,
					"ask",
					items,
					readAsk,
					silent,
				),
			),
		);
		const backlog = this.#engine.settings.delivery.durable
			? await this.#engine.settings.delivery.backlog(first.target, first.storeId)
			: 0;
		const crashed: Due[] = [];
		const changes: Change[] = [];
		dues.forEach((due, place) => {
			const event = this.#eventOf(due, merge(answers.map((one) => one?.[place])), backlog);
			if (event === "crashed") crashed.push(due);
			else changes.push(this.#change(due, event));
			// What its target still has goes on taking room there (R21).
			if (event !== "crashed" && event.type === "asked")
				this.#engine.flights.renew(due.message.id, first.target, event.delay);
			else this.#dispatcher.landed(due.message.id);
		});
		await apply(this.#engine, changes);
		for (const due of crashed) await this.#crashed(due, due.message.vanished + 1);
	}

	#eventOf({ message }: Due, answer: AskAnswer, backlog: number | undefined): Event | "crashed" {
		const { settings, view, flights, store } = this.#engine;
		const askAgain = (said: "running" | "none"): Event => ({
			type: "asked",
			answer: said,
			delay: doubling(settings.ackTimeout, message.asks, settings.askMaxDelay),
		});
		switch (answer.result) {
			case "consumed":
				return { type: "consumed", revision: answer.revision, who: "ask" };
			case "failed": {
				const report = answer.report;
				// A failure of an earlier attempt says nothing of this one.
				if (!report || report.attempt <= message.attempts)
					return this.#unseen(message, backlog) ?? askAgain("running");
				return {
					type: "failed",
					attempt: report.attempt,
					revision: report.revision,
					error: report.error,
					policy: report.policy ?? settings.retry,
					fraction: settings.random.fraction(),
					who: "ask",
				};
			}
			case "unseen": {
				const unseen = this.#unseen(message, backlog);
				if (!unseen) return askAgain("running");
				const instance = flights.instanceOf(message.id) ?? message.instance;
				const vanished = instance !== null && !view.isLiving(instance);
				if (vanished && message.vanished + 1 >= settings.maxVanished) return "crashed";
				return { type: "unseen", vanished };
			}
			case "none":
				return askAgain("none");
			default:
				this.#engine.logger.debug(
					`Message ${message.id} still runs, asked at ${store.now()}`,
				);
				return askAgain("running");
		}
	}

	/**
	 * Whether the message may be sent again (R24). A target that has just come back after hours gets
	 * the time to take what waits for it at the broker.
	 */
	#unseen(message: MessageRecord, backlog: number | undefined): Event | undefined {
		const { settings, store, view } = this.#engine;
		const { stateAt: lastSend, target, storeId } = message;
		const waited = Math.min(store.now() - lastSend, view.livesFor(target, storeId ?? ""));
		const lost = backlog === 0 || waited >= settings.resendAfter;
		return lost ? { type: "unseen", vanished: false } : undefined;
	}

	/** Its instances died over it too often (R23): no copy may run any more before it fails for good. */
	async #crashed(due: Due, vanished: number): Promise<void> {
		const { message } = due;
		this.#dispatcher.landed(message.id);
		const fenced = await this.#fences.below(due.claimed.group, message, message.revision + 1);
		if (fenced === "consumed") return;
		const error: Failure = {
			code: "LOTTOR_CONSUMER_CRASHED",
			message: `${vanished} instances of ${message.target} ended while they ran this message`,
			retryable: ERRORS.LOTTOR_CONSUMER_CRASHED.retryable,
		};
		const event: Event =
			fenced === "fenced"
				? { type: "crashed", error }
				: { type: "asked", answer: "running", delay: this.#engine.settings.ackTimeout };
		if (fenced === "fenced") {
			this.#engine.meters.count("failed");
			this.#engine.logger.warn(
				`Message ${message.id} failed: ${error.message}. It waits for an operator`,
			);
		}
		await apply(this.#engine, [this.#change(due, event)]);
	}

	async #unanswered(due: Due): Promise<void> {
		const { settings } = this.#engine;
		this.#dispatcher.landed(due.message.id);
		await apply(this.#engine, [
			this.#change(due, {
				type: "unanswered",
				error: {
					code: "LOTTOR_NO_REPORT",
					message: `${due.message.target} did not answer, and it can't be asked`,
					retryable: ERRORS.LOTTOR_NO_REPORT.retryable,
				},
				policy: settings.retry,
				fraction: settings.random.fraction(),
			}),
		]);
	}

	async #fenceDiscarded(due: Due): Promise<void> {
		const { message, claimed } = due;
		const fenced = await this.#fences.below(claimed.group, message, FENCED_ALL);
		if (fenced === "fenced" || fenced === "consumed") return;
		const alive = this.#engine.view.instances(message.target, message.storeId).length > 0;
		await apply(this.#engine, [
			this.#change(due, {
				type: "rescheduled",
				delay: alive ? this.#engine.settings.ackTimeout : PARK_MS,
				parked: !alive,
				why: "not fenced yet",
			}),
		]);
	}

	async #applyAll(dues: readonly Due[], event: (due: Due) => Event): Promise<void> {
		await apply(
			this.#engine,
			dues.map((due) => this.#change(due, event(due))),
		);
	}

	#change({ claimed, message }: Due, event: Event): Change {
		const { id, epoch } = claimed.group;
		return { id, epoch, index: message.index, event };
	}
}

/** consumed > failed > running > unseen; an instance that did not answer makes it running (R23). */
function merge(answers: readonly (AskAnswer | undefined)[]): AskAnswer {
	for (const wanted of ["consumed", "failed", "running"] as const) {
		const found = answers.find((answer) => answer?.result === wanted);
		if (found) return found;
	}
	if (answers.every((answer) => answer?.result === "unseen")) return { result: "unseen" };
	return answers.every((answer) => answer === undefined || answer.result === "none")
		? { result: "none" }
		: { result: "running" };
}
