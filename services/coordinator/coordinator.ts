import type { ServiceBroker } from "moleculer";
import {
	type CoordinatorStore,
	type OpenedCoordinatorStore,
	slotOf,
} from "../../adapters/coordinator-store/index.ts";
import {
	type Clock,
	Complaints,
	hasCode,
	LottorError,
	messageOf,
	newStoreId,
	type Timer,
} from "../../protocol/index.ts";
import { Asker } from "./asker.ts";
import { Changes, noticed } from "./changes.ts";
import { CheckBack } from "./check-back.ts";
import { Dispatcher } from "./dispatcher.ts";
import type { Engine } from "./engine.ts";
import { Fences } from "./fences.ts";
import { Flights } from "./flights.ts";
import { Intake } from "./intake.ts";
import { Landings } from "./landings.ts";
import { Lane } from "./lane.ts";
import { meters } from "./meters.ts";
import { Operator } from "./operator.ts";
import type { Settings } from "./options.ts";
import { type Arrivals, type Participant, RegistryView } from "./registry-view.ts";

const PURGE_EVERY_MS = 60_000;
const PURGE_LIMIT = 500;
const REOPEN_EVERY_MS = 1_000;
const WAKE_LIMIT = 500;
/** Calls that one node may have under way; the mixin has some for each of its services. */
const MOST_CALLS = 2_000;

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
	/** Slots of the groups that become due then: the first and the last of these times of each. */
	readonly #promises = new Map<number, { readonly first: number; readonly last: number }>();
	readonly #lanes: readonly Lane[];
	/** Calls of others under way. */
	readonly #calls = new Set<Promise<void>>();
	/** How many of them each node has. */
	readonly #callsBy = new Map<string, number>();
	/** Milliseconds since 1970. */
	readonly startedAt: number;
	#purgedAt = 0;
	#reopenAt = 0;
	#stopped = false;
	#failing = false;
	/** Passes that failed: one that saw none since its beginning proves that the store works again. */
	#failures = 0;

	/** Use {@link CoordinatorCore.start}. */
	private constructor(
		engine: Omit<Engine, "wakeAt" | "promised" | "stopping" | "lags" | "claimSizes">,
	) {
		this.engine = {
			...engine,
			lags: new Map(),
			claimSizes: new Map(),
			wakeAt: (at, group) => this.#arm(at, group),
			promised: () => this.#promised(),
			stopping: () => this.#stopped,
		};
		this.startedAt = engine.settings.clock.now();
		const fences = new Fences(this.engine);
		const landings: Landings = new Landings(
			this.engine,
			(id) => this.#dispatcher.landed(id),
			() => void looks.go(),
		);
		const looks = new Lane(() => this.#guard(() => landings.pass()));
		this.#dispatcher = new Dispatcher(
			this.engine,
			fences,
			async (report, nodeID) => {
				const [answer] = await this.intake.report([report], nodeID);
				return answer?.result === "ok" || answer?.result === "already";
			},
			(target) => landings.took(target),
		);
		this.intake = new Intake(this.engine, this.#dispatcher);
		this.#asker = new Asker(this.engine, this.#dispatcher, fences);
		this.#checkBack = new CheckBack(this.engine, this.intake, this.#dispatcher);
		const passes = [
			() => this.#checkBack.pass(),
			() => this.#asker.pass(),
			async () => {
				await this.#dispatcher.wakeHungry();
				await this.#dispatcher.pass();
			},
			() => this.#purge(),
		];
		this.#lanes = [looks, ...passes.map((pass) => new Lane(() => this.#guard(pass)))];
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
		const made: { core?: CoordinatorCore } = {};
		await delivery.start({
			broker,
			logger,
			callTimeout,
			instances: (target, boundTo) => view.instances(target, boundTo),
			availabilityChanged: () => made.core?.availabilityChanged(),
		});
		const core = new CoordinatorCore({
			settings,
			broker,
			logger,
			store: noticed(store, new Changes(broker, clock)),
			storeId,
			key,
			owner: `${broker.nodeID}|${broker.instanceID}|${newStoreId(settings.random).slice(0, 8)}`,
			view,
			flights: new Flights(
				clock,
				settings.maxInFlight,
				settings.ackTimeout + settings.askTimeout,
			),
			meters: meters(broker),
			complaints: new Complaints(clock, logger),
		});
		made.core = core;
		// Who lives by now may be waited for: by what a coordinator left that ended before it saw them.
		core.#arrived(arrivals);
		core.#arm(store.now());
		return core;
	}

	/** Every living producer and consumer. */
	get participants(): readonly Participant[] {
		return this.engine.view.participants;
	}

	/** Looks at the registry: somebody may be waited for. */
	registryChanged(): void {
		if (!this.#stopped && this.#look()) this.#arm(this.engine.store.now());
	}

	/** The broker can be reached, or no longer. */
	availabilityChanged(): void {
		if (!this.#stopped) this.#dispatcher.availabilityChanged();
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
	#arm(at: number, group?: string): void {
		if (this.#stopped) return;
		const now = this.engine.store.now();
		const poll = now + this.engine.settings.pollInterval;
		if (at > now && at < poll) {
			this.#soon.add(at);
			// Whose slot it is may only look after another poll interval.
			if (group !== undefined) this.#promise(slotOf(group), at);
		}
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

	#promise(slot: number, at: number): void {
		const { first, last } = this.#promises.get(slot) ?? { first: at, last: at };
		this.#promises.set(slot, { first: Math.min(first, at), last: Math.max(last, at) });
	}

	/** What came due longer than a poll interval ago has been looked at by whoever it belongs to. */
	#promised(): number[] {
		const now = this.engine.store.now();
		const over = now - this.engine.settings.pollInterval;
		for (const [slot, { last }] of this.#promises) if (last < over) this.#promises.delete(slot);
		return [...this.#promises].flatMap(([slot, { first }]) => (first <= now ? [slot] : []));
	}

	/**
	 * Does all that is due by now; what comes up meanwhile is done too.
	 * Never rejects: what failed stays in the store and comes up again.
	 */
	async runDue(): Promise<void> {
		if (this.#stopped) return;
		const now = this.engine.store.now();
		for (const at of this.#soon) if (at <= now) this.#soon.delete(at);
		this.#look();
		const done = this.#lanes.map((lane) => lane.go());
		this.#arm(Math.min(...this.#soon));
		await Promise.all(done);
	}

	async #guard(pass: () => Promise<void>): Promise<void> {
		if (this.#stopped) return;
		const before = this.#failures;
		try {
			await pass();
			if (this.#failing && this.#failures === before) {
				this.#failing = false;
				this.engine.logger.info("The coordinator store works again");
			}
		} catch (error) {
			await this.#failed(error);
		}
	}

	async #failed(error: unknown): Promise<void> {
		const { logger, store, settings } = this.engine;
		this.#failures++;
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

	/**
	 * Runs a call of somebody else, which a stop waits for.
	 *
	 * @param caller the node that called
	 * @throws LOTTOR_STOPPING when this coordinator takes no more work, LOTTOR_OVERLOADED when the node
	 *   has too many calls under way: what the mixin tells is told again
	 */
	serve<T>(call: () => Promise<T>, caller: string): Promise<T> {
		this.assertRunning();
		const own = this.#callsBy.get(caller) ?? 0;
		if (own >= MOST_CALLS) {
			throw new LottorError(
				"LOTTOR_OVERLOADED",
				`Node ${caller} has ${own} calls under way at this coordinator`,
			);
		}
		const answer = call();
		const ended: Promise<void> = answer
			.then(
				() => undefined,
				() => undefined,
			)
			.finally(() => {
				this.#calls.delete(ended);
				const left = (this.#callsBy.get(caller) ?? 1) - 1;
				if (left > 0) this.#callsBy.set(caller, left);
				else this.#callsBy.delete(caller);
			});
		this.#calls.add(ended);
		this.#callsBy.set(caller, own + 1);
		return answer;
	}

	/**
	 * Takes no new work, hands back what it has claimed, and waits a while for calls under way and
	 * for the reports of what it is sending: others then need neither to wait for leases nor to ask.
	 */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#timer?.cancel();
		this.#dispatcher.stop();
		await Promise.all(this.#lanes.map((lane) => lane.idle()));
		const { clock, stopTimeout } = this.engine.settings;
		await new Promise<void>((resolve) => {
			const timer = clock.after(stopTimeout, resolve);
			// A commit whose write is under way is sent by nobody else.
			void Promise.all(this.#calls)
				.then(() => this.#dispatcher.sendsEnded())
				.then(() => {
					timer.cancel();
					resolve();
				});
		});
		await this.engine.settings.delivery.stop();
		await this.engine.store.close();
	}
}
