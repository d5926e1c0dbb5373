import { type Service, ServiceBroker } from "moleculer";
import type { Delivery, Reception } from "../../adapters/delivery/index.ts";
import type {
	OpenedParticipantStore,
	ParticipantStore,
} from "../../adapters/participant-store/contract.ts";
import {
	hasCode,
	LOTTOR_VERSION,
	LottorError,
	messageOf,
	type ParticipantMetadata,
	type ParticipantStatus,
	type Timer,
	WIRE_VERSION,
} from "../../protocol/index.ts";
import { Answers } from "./answers.ts";
import { CoordinatorClient } from "./client.ts";
import { Confirms } from "./confirms.ts";
import { Consumer } from "./consumer.ts";
import { logCoordinators } from "./coordinator-log.ts";
import { activeGroupsOf, type Core } from "./core.ts";
import { type MessageType, readMessageTypes } from "./messages.ts";
import { makeMetrics } from "./metrics.ts";
import { makeDelivery, makeStore, type Settings } from "./options.ts";
import { Producer, stopping } from "./producer.ts";
import { Reports } from "./reports.ts";
import { closeShared, openShared } from "./shared-store.ts";
import { specialsOf } from "./specials.ts";
import { endedWithin } from "./timing.ts";
import type { Reliable } from "./types.ts";

/** How often the store is searched for what was never acknowledged, and purged. */
const SWEEP_MS = 60_000;
/** Younger rows are still being told by whoever wrote them. */
const SWEEP_AGE_MS = 30_000;
/** The same, while a sweep finds more than it takes at once. */
const SWEEP_MORE_MS = 1_000;
/** Small steps, so that nobody waits long for the store; enough of them for a busy service. */
const PURGE_ROWS = 500;
const PURGE_ROUNDS = 400;
/** How often a store that can't be reached at start is tried. */
const REOPEN_MS = 1_000;
/** How long closing the store may take where the time to stop is over already. */
const CLOSE_WITHIN_MS = 1_000;

/** The parts of a participant that exist while it is started. */
interface Parts {
	readonly core: Core;
	readonly confirms: Confirms;
	readonly reports: Reports;
	readonly producer: Producer;
	readonly consumer: Consumer;
	readonly answers: Answers;
}

/** One service that uses the mixin: its parts, from start to stop. */
export class Participant {
	readonly #service: Service;
	readonly #settings: Settings;
	readonly #types: ReadonlyMap<string, MessageType>;
	readonly #store: ParticipantStore;
	readonly #delivery: Delivery;
	#parts: Parts | undefined;
	#reception: Reception | undefined;
	#stopping = false;
	#sweepTimer: Timer | undefined;
	/** Ends the wait for a store that can't be reached. */
	#endWait: (() => void) | undefined;
	#endLog: (() => void) | undefined;
	readonly #wake = () => {
		this.#parts?.confirms.wake();
		this.#parts?.reports.wake();
	};

	/** @throws LOTTOR_INVALID_OPTIONS when the schema's `messages` are wrong */
	constructor(service: Service, settings: Settings) {
		this.#service = service;
		this.#settings = settings;
		this.#types = readMessageTypes(service, settings);
		this.#store = makeStore(settings, service);
		this.#delivery = makeDelivery(settings);
	}

	/** What the service gets as `this.reliable`. */
	get reliable(): Reliable {
		return {
			transaction: async (ctx, messages, work, options) =>
				this.#running().producer.transaction(ctx, messages, work, options),
			flushed: async () => {
				const { confirms, reports } = this.#running();
				await Promise.all([confirms.flushed(), reports.flushed()]);
			},
			store: this.#store,
		};
	}

	/**
	 * Opens the store, waiting for one that can't be reached. Must end before the service is
	 * published: its metadata belong to it.
	 *
	 * @returns what the service says of itself
	 * @throws LOTTOR_STORE_UNUSABLE; LOTTOR_STOPPING when it was stopped while it waited
	 */
	async start(): Promise<ParticipantMetadata> {
		const { broker, logger } = this.#service;
		this.#stopping = false;
		const { storeId, guarantee, notice } = await this.#openPatiently();
		const core: Core = {
			service: this.#service,
			broker,
			logger,
			settings: this.#settings,
			store: this.#store,
			storeId,
			guarantee,
			owner: { nodeID: broker.nodeID, instanceID: broker.instanceID },
			metrics: makeMetrics(broker),
			specials: specialsOf(broker.serializer),
			active: activeGroupsOf(broker),
			scopes: new WeakMap(),
		};
		this.#parts = this.#makeParts(core);
		broker.localBus.on("$services.changed", this.#wake);
		void this.#sweep(0);
		if (notice !== undefined) logger.warn(`Lottor: ${notice}`);
		logger.info(`Lottor: participant store ${this.#store.description} is open (${guarantee})`);
		this.#endLog = logCoordinators(broker, logger);
		return this.#metadata(core);
	}

	/** Takes messages from the broker. Must begin after the service's own `started`: handlers use what that made. */
	async receive(): Promise<void> {
		const parts = this.#parts;
		if (!parts || this.#isStopping() || this.#types.size === 0 || !this.#delivery.receive)
			return;
		const { consumer, core } = parts;
		const { service, settings } = core;
		this.#reception = await this.#delivery.receive({
			service,
			targets: [service.fullName, ...settings.aliases],
			storeId: settings.partitioned ? core.storeId : null,
			maxInFlight: settings.maxInFlight,
			handle: (envelope, repeated) => consumer.deliver(envelope, repeated),
		});
	}

	/** Waits for what runs, tells what it can, closes the store. What is left is found later. */
	async stop(): Promise<void> {
		const parts = this.#parts;
		if (this.#stopping) return;
		this.#stopping = true;
		this.#endWait?.();
		if (!parts) return;
		const { producer, consumer, confirms, reports } = parts;
		const { clock, stopTimeout } = this.#settings;
		const deadline = clock.now() + stopTimeout;
		const left = () => Math.max(deadline - clock.now(), 0);
		this.#sweepTimer?.cancel();
		this.#endLog?.();
		producer.stop();
		const received = this.#reception?.stop();
		consumer.stop();
		await endedWithin(clock, left(), Promise.all([producer.idle(), consumer.idle()]));
		await endedWithin(clock, left(), Promise.resolve(received));
		await endedWithin(clock, left(), Promise.all([confirms.drained(), reports.drained()]));
		this.#service.broker.localBus.off("$services.changed", this.#wake);
		producer.close();
		confirms.close();
		reports.close();
		this.#parts = undefined;
		// A work that outlived the wait is aborted, or noted as unknown, by its own time limit.
		await endedWithin(clock, Math.max(left(), CLOSE_WITHIN_MS), closeShared(this.#store));
	}

	/** The parts that answer the coordinator. @throws LOTTOR_STOPPING when it is not started */
	answering(): Pick<Parts, "answers" | "consumer" | "reports"> {
		return this.#running();
	}

	status(): ParticipantStatus {
		const { consumer, confirms, reports } = this.#running();
		const { broker, fullName } = this.#service;
		return {
			service: fullName,
			roles: this.#roles(),
			serializer: nameOf(broker.serializer) ?? "JSON",
			transporter: nameOf(broker.transit?.tx) ?? null,
			version: LOTTOR_VERSION,
			moleculer: ServiceBroker.MOLECULER_VERSION,
			running: consumer.running,
			queued: consumer.queued,
			unconfirmed: confirms.size,
			unreported: reports.size,
			confirmsUnknown: confirms.unknown,
		};
	}

	async #openPatiently(): Promise<OpenedParticipantStore> {
		const { logger } = this.#service;
		let said = "";
		while (!this.#isStopping()) {
			try {
				return await openShared(this.#store);
			} catch (error) {
				if (!hasCode(error, "LOTTOR_STORE_UNAVAILABLE")) throw error;
				const text = `Lottor: waiting for the participant store ${this.#store.description}: ${messageOf(error)}`;
				if (text !== said) logger.warn(text);
				said = text;
			}
			await this.#pause(REOPEN_MS);
		}
		await this.#store.close();
		throw stopping();
	}

	#pause(ms: number): Promise<void> {
		return new Promise((resolve) => {
			const timer = this.#settings.clock.after(ms, resolve);
			this.#endWait = () => {
				timer.cancel();
				resolve();
			};
		});
	}

	#makeParts(core: Core): Parts {
		const { clock, random } = this.#settings;
		const client = new CoordinatorClient(core.broker, clock, random);
		const confirms = new Confirms(core, client);
		const reports = new Reports(core, client);
		const producer = new Producer(core, client, confirms);
		const consumer = new Consumer(core, this.#types, reports);
		const answers = new Answers({ core, confirms, consumer, reports });
		return { core, confirms, reports, producer, consumer, answers };
	}

	#metadata({ storeId, guarantee, owner }: Core): ParticipantMetadata {
		return {
			wire: WIRE_VERSION,
			roles: this.#roles(),
			storeId,
			guarantee,
			instanceID: owner.instanceID,
			aliases: this.#settings.aliases,
			types: [...this.#types.keys()],
			partitioned: this.#settings.partitioned,
			receives: this.#types.size > 0 && this.#delivery.receive !== undefined,
		};
	}

	#roles(): ParticipantMetadata["roles"] {
		return this.#types.size > 0 ? ["producer", "consumer"] : ["producer"];
	}

	#running(): Parts {
		if (this.#parts) return this.#parts;
		if (this.#stopping) throw stopping();
		throw new LottorError("LOTTOR_STORE_UNAVAILABLE", "The service has not started yet");
	}

	/** Looks in the store for what was never acknowledged, purges, and comes back later. */
	async #sweep(age: number): Promise<void> {
		const parts = this.#parts;
		if (!parts || this.#isStopping()) return;
		const { confirms, reports, core } = parts;
		let more = false;
		try {
			const found = [await confirms.sweep(age), await reports.sweep(age)];
			more = found.includes(true);
			await this.#purge();
		} catch (error) {
			if (!this.#isStopping()) core.logger.warn(`Lottor: sweep failed: ${messageOf(error)}`);
		}
		if (this.#isStopping()) return;
		const { clock, random } = this.#settings;
		const delay = (more ? SWEEP_MORE_MS : SWEEP_MS) * (0.75 + random.fraction() / 2);
		this.#sweepTimer = clock.after(delay, () => void this.#sweep(SWEEP_AGE_MS));
	}

	async #purge(): Promise<void> {
		for (let round = 0; round < PURGE_ROUNDS && !this.#isStopping(); round++) {
			const purged = await this.#store.purge(this.#settings.keep, PURGE_ROWS);
			if (purged < PURGE_ROWS) return;
		}
	}

	/** A method, so that it is read anew after each wait. */
	#isStopping(): boolean {
		return this.#stopping;
	}
}

function nameOf(part: unknown): string | undefined {
	return typeof part === "object" && part !== null ? part.constructor.name : undefined;
}
