import { AsyncLocalStorage } from "node:async_hooks";
import type { ConsumeResult } from "../../adapters/participant-store/contract.ts";
import {
	type ConsumeAnswer,
	type Envelope,
	type Failure,
	type ItemAnswer,
	type ItemError,
	LottorError,
	messageOf,
	type Report,
	type RetryTimes,
	sameOwner,
} from "../../protocol/index.ts";
import type { Core } from "./core.ts";
import { itemError, readEnvelope, refusal } from "./envelope.ts";
import { toFailure } from "./failure.ts";
import { runHandler } from "./handlers.ts";
import { Lanes } from "./lanes.ts";
import type { MessageType } from "./messages.ts";
import { isOwnerLiving } from "./registry.ts";
import type { Reports } from "./reports.ts";
import { endedWithin } from "./timing.ts";

/** How long a call of consume waits for its handlers before it answers "accepted". */
const ANSWER_WITHIN_MS = 50;

/** How long a message that can't be handled now is held before it is tried again. */
const HOLD_MS = 200;
const LONGEST_HOLD_MS = 10_000;

/** The lane of what a broker has handed over before; no type has such a name. */
const REPEATED = "\0repeated";

/** A dead instance is missed within 10 s (R13); one that lives for longer has only lost the broker. */
const ANNOUNCE_AGAIN_MS = 500;
const ANNOUNCE_TRIES = 30;

/** Why a copy below a fence can't run (R27). */
const FENCED: Failure = {
	code: "LOTTOR_FENCED",
	message:
		"The inbox refuses this copy: a discard or an edit of the message was begun. Discard it, or edit and retry it",
	retryable: false,
};

/** A message that is in this process. */
interface Entry {
	readonly envelope: Envelope;
	/** A broker has handed it over before: whoever had it may have died of it. */
	readonly repeated: boolean;
	/** `lasting`: failed by its time limit on a recorded store, and the handler still runs (R35). */
	state: "queued" | "running" | "lasting";
	/** The call that brought it has been answered: the report goes its own way. */
	answered: boolean;
	/** Its row stands, or it was rightly dropped: a broker may forget it (R33). */
	settled: boolean;
	report: Report | undefined;
	/** Resolves when it has ended or was dropped; never rejects. */
	readonly ended: Promise<void>;
	readonly end: () => void;
}

/** The consumer's side: takes messages, runs their handlers once, reports. */
export class Consumer {
	readonly #core: Core;
	readonly #types: ReadonlyMap<string, MessageType>;
	readonly #reports: Reports;
	readonly #names: ReadonlySet<string>;
	readonly #entries = new Map<string, Entry>();
	readonly #lanes: Lanes<Entry>;
	/** Ends of the waits of {@link Consumer.deliver}. */
	readonly #pauses = new Set<() => void>();
	/** A handler belongs to its message, not to the call or handler that happened to start it. */
	readonly #outside = AsyncLocalStorage.snapshot();
	#stopping = false;
	/** No coordinator answered for as long as it is waited for. */
	#unheard = false;

	constructor(core: Core, types: ReadonlyMap<string, MessageType>, reports: Reports) {
		this.#core = core;
		this.#types = types;
		this.#reports = reports;
		this.#names = new Set([core.service.fullName, ...core.settings.aliases]);
		this.#lanes = new Lanes((entry) => {
			entry.state = "running";
			return this.#process(entry);
		});
	}

	/** Handlers that run. */
	get running(): number {
		return this.#lanes.running;
	}

	/** Messages that wait for a handler. */
	get queued(): number {
		return this.#lanes.queued;
	}

	/** What this process has of a message. */
	stateOf(id: string): "queued" | "running" | "lasting" | undefined {
		return this.#entries.get(id)?.state;
	}

	/** The retry policy of a message type, where it has one of its own. */
	policyOf(type: string): RetryTimes | undefined {
		return this.#types.get(type)?.policy;
	}

	/**
	 * Takes envelopes, answering each. Waits a moment for handlers, so that most reports travel
	 * with the answer; later ones go through `lottor.report`. Never rejects.
	 */
	async consume(items: readonly unknown[]): Promise<ConsumeAnswer[]> {
		const taken = items.map((item) => this.#outside(() => this.#take(item)));
		const entries = taken.filter((one) => "envelope" in one);
		const all = Promise.all(entries.map(({ ended }) => ended));
		if (entries.length > 0) {
			await endedWithin(this.#core.settings.clock, ANSWER_WITHIN_MS, all);
		}
		return taken.map((one): ConsumeAnswer => {
			if (!("envelope" in one)) return one;
			one.answered = true;
			return one.report ? { result: "reported", report: one.report } : { result: "accepted" };
		});
	}

	/**
	 * Takes one envelope from a broker, and holds it until it may be acknowledged (R33): its row is
	 * written, or it is dropped. While the store can't be used, it is tried again and again.
	 *
	 * @param repeated whether the broker may have handed it to somebody before
	 * @returns `keep`: not handled, since the service stops; the broker gives it to somebody else
	 * @throws LOTTOR_ENVELOPE_INVALID when it can't be meant for this service
	 */
	async deliver(envelope: Envelope, repeated = false): Promise<"done" | "keep"> {
		for (let tries = 0; !this.#stopping; tries++) {
			const known = this.#entries.get(envelope.id);
			const taken =
				known && known.state !== "lasting"
					? known
					: this.#outside(() => this.#take(envelope, repeated));
			if ("envelope" in taken) {
				taken.answered = true;
				await taken.ended;
				if (taken.settled) return "done";
			} else if (taken.result === "reported") {
				this.#reports.add(envelope.coordinator, taken.report);
				return "done";
			} else if (taken.result === "accepted" || this.#refusedForGood(envelope, taken.error)) {
				return "done";
			}
			await this.#pause(Math.min(HOLD_MS * 2 ** tries, LONGEST_HOLD_MS));
		}
		return "keep";
	}

	/** @returns whether it can be dropped: sending it again is the coordinator's to decide */
	#refusedForGood({ id }: Envelope, { code, message }: ItemError): boolean {
		if (code === "LOTTOR_INVALID_REQUEST") {
			throw new LottorError("LOTTOR_ENVELOPE_INVALID", message, { message: id });
		}
		if (code !== "LOTTOR_STORE_MISMATCH") return false;
		this.#core.logger.warn(`Lottor: a copy of message ${id} is dropped: ${message}`);
		return true;
	}

	#pause(ms: number): Promise<void> {
		return new Promise((resolve) => {
			const end = () => {
				this.#pauses.delete(end);
				timer.cancel();
				resolve();
			};
			const timer = this.#core.settings.clock.after(ms, end);
			this.#pauses.add(end);
			if (this.#stopping) end();
		});
	}

	/** Drops a queued copy of a revision below `minRevision` (R27). @returns whether one runs */
	drop(id: string, minRevision: number): boolean {
		const entry = this.#entries.get(id);
		if (!entry || entry.envelope.revision >= minRevision) return false;
		if (entry.state !== "queued") return true;
		this.#remove(entry);
		return false;
	}

	/** Takes no new messages, and drops the queued ones: the coordinator sends them elsewhere. */
	stop(): void {
		this.#stopping = true;
		for (const end of this.#pauses) end();
		for (const entry of this.#entries.values()) {
			if (entry.state === "queued") this.#remove(entry);
		}
	}

	/** Resolves once no handler runs. Never rejects. */
	async idle(): Promise<void> {
		await Promise.all(
			[...this.#entries.values()]
				.filter(({ state }) => state === "running")
				.map(({ ended }) => ended),
		);
	}

	#take(item: unknown, repeated = false): ConsumeAnswer | Entry {
		if (this.#stopping) {
			const message = "The service is stopping and takes no new messages";
			return { result: "refused", error: refusal("LOTTOR_STOPPING", message) };
		}
		let envelope: Envelope;
		try {
			envelope = readEnvelope(item, this.#names, this.#core.storeId);
		} catch (error) {
			if (!(error instanceof LottorError)) throw error;
			return { result: "refused", error: itemError(error) };
		}
		const { settings } = this.#core;
		if (settings.clock.now() - envelope.sentAt > settings.keep / 2) {
			return { result: "reported", report: { ...this.#base(envelope), result: "expired" } };
		}
		const known = this.#entries.get(envelope.id);
		if (known?.state === "lasting" && envelope.attempt > known.envelope.attempt) {
			const message = `An earlier attempt of message ${envelope.id} still runs here`;
			return { result: "refused", error: refusal("LOTTOR_FENCE_BUSY", message) };
		}
		if (known) return { result: "accepted" };
		if (this.queued >= settings.maxQueued) {
			const message = `${this.queued} messages wait already`;
			return { result: "refused", error: refusal("LOTTOR_CONSUMER_BUSY", message) };
		}
		return this.#enqueue(envelope, repeated);
	}

	#enqueue(envelope: Envelope, repeated: boolean): Entry {
		let end: () => void = () => undefined;
		const ended = new Promise<void>((resolve) => (end = resolve));
		const entry: Entry = {
			envelope,
			repeated,
			state: "queued",
			answered: false,
			settled: false,
			report: undefined,
			ended,
			end,
		};
		this.#entries.set(envelope.id, entry);
		const own = this.#types.get(envelope.type)?.concurrency;
		// Whoever had a repeated one may have died of it: they run one by one, so that it is known of which.
		if (repeated) this.#lanes.add(REPEATED, 1, entry);
		// Types with a limit of their own have a lane of their own; the others share one.
		else if (own === undefined) this.#lanes.add("", this.#core.settings.concurrency, entry);
		else this.#lanes.add(envelope.type, own, entry);
		return entry;
	}

	#remove(entry: Entry): void {
		this.#lanes.remove(entry);
		this.#entries.delete(entry.envelope.id);
		entry.end();
	}

	async #process(entry: Entry): Promise<void> {
		const { envelope } = entry;
		try {
			const may = entry.repeated ? await this.#mayRun(envelope) : "run";
			if (may === "run") entry.report = await this.#run(entry);
			entry.settled = may !== "keep";
			if (entry.report && entry.answered) {
				this.#reports.add(envelope.coordinator, entry.report);
			}
		} catch (error) {
			// The store could not be used: no report, and the coordinator asks (R28).
			this.#core.logger.warn(
				`Lottor: message ${envelope.id} (${envelope.type}) has no result: ${messageOf(error)}`,
			);
		} finally {
			if (entry.state !== "lasting") this.#entries.delete(envelope.id);
			entry.end();
		}
	}

	/**
	 * Has the coordinator count whom a message has killed, before it runs again (R23): a broker hands
	 * it over for ever. A former instance may live, or be dead without having been missed yet.
	 *
	 * @returns `drop`: it killed too many, and fails; `keep`: the service stops
	 */
	async #mayRun(envelope: Envelope): Promise<"run" | "drop" | "keep"> {
		const { owner } = this.#core;
		const report = { ...this.#base(envelope), result: "running", owner } as const;
		let answer: ItemAnswer | undefined;
		for (let tries = 0; tries < ANNOUNCE_TRIES && !this.#stopping; tries++) {
			answer = await this.#reports.announce(envelope.coordinator, report);
			if (answer?.result === "stale") return "drop";
			if (answer) this.#unheard = false;
			if (answer && answer.result !== "conflict") return "run";
			// A process that has just started may not know any coordinator yet; one wait is for all.
			if (!answer && this.#unheard) return "run";
			await this.#pause(ANNOUNCE_AGAIN_MS);
		}
		this.#unheard = !answer;
		return this.#stopping ? "keep" : "run";
	}

	async #run(entry: Entry): Promise<Report | undefined> {
		const { store, settings, owner, broker } = this.#core;
		const { envelope } = entry;
		const { id, group, attempt, revision, receipt, coordinator } = envelope;
		const type = this.#types.get(envelope.type);
		const timeout = type?.timeout ?? settings.handlerTimeout;
		const result = await store.consume(
			{
				id,
				group,
				attempt,
				revision,
				receipt,
				coordinator,
				owner,
				timeout,
				// What runs here is in `#entries`, and this message was not.
				isAlive: (other) => !sameOwner(other, owner) && isOwnerLiving(broker, other),
			},
			(tx) => runHandler(this.#core, type, envelope, tx),
		);
		return this.#reportOf(entry, result, type);
	}

	async #reportOf(
		entry: Entry,
		result: ConsumeResult,
		type: MessageType | undefined,
	): Promise<Report | undefined> {
		const { logger, metrics, service } = this.#core;
		const { envelope } = entry;
		const base = this.#base(envelope);
		metrics.message(service.fullName, envelope.type, result.result);
		switch (result.result) {
			case "consumed":
				logger.info(`Lottor: message ${envelope.id} (${envelope.type}) consumed`);
				return { ...base, result: "consumed" };
			case "duplicate":
				logger.debug(`Lottor: message ${envelope.id} was consumed before`);
				return { ...base, revision: result.revision, result: "consumed" };
			case "busy":
				return undefined;
			case "stale":
				return this.#reportStale(envelope, type);
			case "failed":
				return this.#reportFailure(entry, result, type);
			case "unknown":
				throw result.error;
		}
	}

	async #reportFailure(
		entry: Entry,
		{ error, lasting }: Extract<ConsumeResult, { result: "failed" }>,
		type: MessageType | undefined,
	): Promise<Report> {
		const { envelope } = entry;
		const { id, attempt, revision, receipt, coordinator } = envelope;
		if (lasting) {
			entry.state = "lasting";
			const settled = () => this.#entries.delete(id);
			lasting.then(settled, settled);
		}
		const failure = toFailure(error, type?.check);
		this.#core.logger.warn(
			`Lottor: message ${id} (${envelope.type}) failed at attempt ${attempt}: ${failure.message}`,
		);
		await this.#core.store.fail({
			id,
			attempt,
			revision,
			receipt,
			coordinator,
			error: failure,
		});
		return {
			...this.#base(envelope),
			result: "failed",
			error: failure,
			...(type?.policy && { policy: type.policy }),
		};
	}

	/**
	 * The inbox refused this copy: its failure is reported again. A copy below a fence can never run,
	 * and says so: whoever fenced it may have crashed before it could store that, and would send for
	 * ever. Of a copy that was rightly overtaken the coordinator drops the report as outdated.
	 */
	async #reportStale(
		envelope: Envelope,
		type: MessageType | undefined,
	): Promise<Report | undefined> {
		const [stands] = await this.#core.store.look([envelope.id]);
		if (stands?.result === "failed" && stands.attempt === envelope.attempt) {
			return {
				...this.#base(envelope),
				revision: stands.revision,
				result: "failed",
				error: stands.error,
				...(type?.policy && { policy: type.policy }),
			};
		}
		// An earlier failure refuses nothing: it is the fence in its row that does.
		const earlier = stands?.result === "failed" && stands.attempt < envelope.attempt;
		if (stands?.result !== "unseen" && !earlier) return undefined;
		return { ...this.#base(envelope), result: "failed", error: FENCED };
	}

	#base({ id, receipt, attempt, revision }: Envelope) {
		return { id, receipt, storeId: this.#core.storeId, attempt, revision };
	}
}
