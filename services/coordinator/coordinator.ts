import type { ServiceBroker } from "moleculer";
import type {
	CoordinatorStore,
	OpenedCoordinatorStore,
} from "../../adapters/coordinator-store/index.ts";
import {
	type Clock,
	hasCode,
	LottorError,
	messageOf,
	newStoreId,
	type Timer,
} from "../../protocol/index.ts";
import { Asker } from "./asker.ts";
import { CheckBack } from "./check-back.ts";
import { Dispatcher } from "./dispatcher.ts";
import type { Engine } from "./engine.ts";
import { Fences } from "./fences.ts";
import { Flights } from "./flights.ts";
import { Intake } from "./intake.ts";
import { meters } from "./meters.ts";
import { Operator } from "./operator.ts";
import type { Settings } from "./options.ts";
import { type Arrivals, type Participant, RegistryView } from "./registry-view.ts";

const PURGE_EVERY_MS = 60_000;
const PURGE_LIMIT = 500;
const REOPEN_EVERY_MS = 1_000;
const WAKE_LIMIT = 500;

/** Opens the store; while it can't be reached, says so and tries again. */
async function openPatiently(
	store: CoordinatorStore,
	logger: ServiceBroker["logger"],
	clock: Clock,
): Promise<OpenedCoordinatorStore> {
	for (;;) {
		try {
			return await store.open();
		} catch (error) {
			if (!hasCode(error, "LOTTOR_STORE_UNAVAILABLE")) throw error;
			logger.warn(
				`Waiting for the coordinator store ${store.description}: ${messageOf(error)}`,
			);
			await new Promise<void>((resolve) => void clock.after(REOPEN_EVERY_MS, resolve));
		}
	}
}

/** One running coordinator: its parts, its timers. */
export class CoordinatorCore {
	readonly engine: Engine;
	readonly intake: Intake;
	readonly operator: Operator;
	readonly #dispatcher: Dispatcher;
	readonly #asker: Asker;
	readonly #checkBack: CheckBack;
	#timer: Timer | undefined;
	/** When the timer fires, by the store's clock. */
	#wakeAt = Number.POSITIVE_INFINITY;
	/**
	 * Times within one poll interval at which something becomes due. A timer that fires before one
	 * of them must not forget it; what lies further off is found by polling.
	 */
	readonly #soon = new Set<number>();
	#passing: Promise<void> | undefined;
	#passAgain = false;
	#purgedAt = 0;
	#reopenAt = 0;
	#stopped = false;
	#failing = false;

	/** Use {@link CoordinatorCore.start}. */
	private constructor(engine: Omit<Engine, "wakeAt">) {
		this.engine = { ...engine, wakeAt: (at) => this.#arm(at) };
		const fences = new Fences(this.engine);
		this.#dispatcher = new Dispatcher(this.engine, fences, async (report) => {
			const [answer] = await this.intake.report([report]);
			return answer?.result === "ok" || answer?.result === "already";
		});
		this.intake = new Intake(this.engine, this.#dispatcher);
		this.#asker = new Asker(this.engine, this.#dispatcher, fences);
		this.#checkBack = new CheckBack(this.engine, this.intake, this.#dispatcher);
		this.operator = new Operator(this.engine, {
			fences,
			checkBack: this.#checkBack,
			intake: this.intake,
			dispatcher: this.#dispatcher,
		});
	}

	/**
	 * Opens the store, waiting for one that can't be reached, then starts to work.
	 * @throws LOTTOR_STORE_UNUSABLE
	 */
	static async start(
		broker: ServiceBroker,
		logger: ServiceBroker["logger"],
		settings: Settings,
	): Promise<CoordinatorCore> {
		const { store, delivery, clock, callTimeout } = settings;
		const { storeId, key } = await openPatiently(store, logger, clock);
		const view = new RegistryView(broker, clock);
		const arrivals = view.refresh();
		await delivery.start({
			broker,
			logger,
			callTimeout,
			instances: (target, boundTo) => view.instances(target, boundTo),
		});
		const core = new CoordinatorCore({
			settings,
			broker,
			logger,
			store,
			storeId,
			key,
			owner: `${broker.nodeID}|${broker.instanceID}|${newStoreId(settings.random).slice(0, 8)}`,
			view,
			flights: new Flights(clock, settings.maxInFlight, settings.ackTimeout),
			meters: meters(broker),
		});
		// Who lives by now may be waited for: by what a coordinator left that ended before it saw them.
		core.#arrived(arrivals);
		core.#arm(store.now());
		return core;
	}

	/** Every living producer and consumer. */
	get participants(): readonly Participant[] {
		return this.engine.view.participants;
	}

	/** The registry changed: somebody may be waited for. */
	registryChanged(): void {
		if (!this.#stopped && this.#look()) this.#arm(this.engine.store.now());
	}

	/** @returns whether somebody arrived that may be waited for */
	#look(): boolean {
		const arrivals = this.engine.view.refresh();
		this.#arrived(arrivals);
		return arrivals.targets.size + arrivals.storeIds.size > 0;
	}

	#arrived(arrivals: Arrivals): void {
		this.#dispatcher.refresh();
		for (const target of arrivals.targets) this.engine.flights.starve(target);
		this.#wakeSources(arrivals.storeIds).catch((error: unknown) => this.#failed(error));
	}

	async #wakeSources(storeIds: ReadonlySet<string>): Promise<void> {
		for (const storeId of storeIds) {
			let woken: number;
			do {
				woken = await this.engine.store.wake({ storeId }, WAKE_LIMIT);
				if (woken > 0) this.#arm(this.engine.store.now());
			} while (woken === WAKE_LIMIT && !this.#stopped);
		}
	}

	/** Sets the timer, unless it fires before that anyway. */
	#arm(at: number): void {
		if (this.#stopped) return;
		const now = this.engine.store.now();
		const poll = now + this.engine.settings.pollInterval;
		if (at > now && at < poll) this.#soon.add(at);
		const wanted = Math.min(at, poll);
		if (this.#timer && this.#wakeAt <= wanted) return;
		this.#timer?.cancel();
		this.#wakeAt = wanted;
		this.#timer = this.engine.settings.clock.after(Math.max(wanted - now, 0), () => {
			this.#timer = undefined;
			this.#wakeAt = Number.POSITIVE_INFINITY;
			void this.runDue();
		});
	}

	/**
	 * Does all that is due by now; what comes up meanwhile is done too.
	 * Never rejects: what failed stays in the store and comes up again.
	 */
	runDue(): Promise<void> {
		this.#passAgain = true;
		this.#passing ??= this.#passes().finally(() => {
			this.#passing = undefined;
		});
		return this.#passing;
	}

	#forgetPassed(): void {
		const now = this.engine.store.now();
		for (const at of this.#soon) if (at <= now) this.#soon.delete(at);
	}

	async #passes(): Promise<void> {
		while (this.#passAgain && !this.#stopped) {
			this.#passAgain = false;
			this.#forgetPassed();
			this.#look();
			try {
				await this.#checkBack.pass();
				await this.#dispatcher.wakeHungry();
				await this.#asker.pass();
				await this.#dispatcher.pass();
				await this.#purge();
				if (this.#failing) this.engine.logger.info("The coordinator store works again");
				this.#failing = false;
			} catch (error) {
				await this.#failed(error);
			}
		}
		this.#arm(Math.min(...this.#soon));
	}

	async #failed(error: unknown): Promise<void> {
		const { logger, store, settings } = this.engine;
		if (this.#stopped) return;
		if (!hasCode(error, "LOTTOR_STORE_UNAVAILABLE")) {
			logger.error("A pass over due work failed; it is tried again", error);
			return;
		}
		if (!this.#failing) logger.error(`${messageOf(error)}. Lottor tries again until it works`);
		this.#failing = true;
		const now = settings.clock.now();
		if (now < this.#reopenAt) return;
		this.#reopenAt = now + REOPEN_EVERY_MS;
		// Opening an open store only says what it is; a closed one comes back when its fault is gone.
		await store
			.open()
			.catch((reason: unknown) => logger.debug(`Not open yet: ${messageOf(reason)}`));
	}

	async #purge(): Promise<void> {
		const { store, settings, logger } = this.engine;
		const now = settings.clock.now();
		if (now - this.#purgedAt < PURGE_EVERY_MS) return;
		this.#purgedAt = now;
		for (const [state, age] of [
			["completed", settings.keepCompleted],
			["rolledBack", settings.keepRolledBack],
		] as const) {
			let purged: number;
			let total = 0;
			do {
				purged = await store.purge({ state, age, limit: PURGE_LIMIT });
				total += purged;
			} while (purged === PURGE_LIMIT && !this.#stopped);
			if (total > 0)
				logger.info(`${total} ${state} groups were past their retention and are gone`);
		}
	}

	/** Whether the store works. */
	get ready(): boolean {
		return !this.#stopped && !this.#failing;
	}

	/** @throws LOTTOR_STOPPING when this coordinator takes no more work */
	assertRunning(): void {
		if (this.#stopped) throw new LottorError("LOTTOR_STOPPING", "This coordinator is stopping");
	}

	/** Ends the work under way, stores it, closes. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#timer?.cancel();
		this.#dispatcher.stop();
		await this.#passing;
		await this.engine.settings.delivery.stop();
		await this.engine.store.close();
	}
}
