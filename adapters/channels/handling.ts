import type { ServiceBroker } from "moleculer";

import { messageOf } from "../../protocol/index.ts";
import type { Channel } from "./contract.ts";
import type { DeadLetterQueue, Driver, DriverHost, Incoming, Subscription } from "./driver.ts";
import { errorHeaders } from "./failures.ts";
import { Flow } from "./flow.ts";
import { pause, persist } from "./waiting.ts";

const POISON = "moleculer.lottor.channels.poison.total";
const ERRORS = "moleculer.channels.messages.errors.total";
const RETRIES = "moleculer.channels.messages.retries.total";
const DEAD_LETTERS = "moleculer.channels.messages.deadLettering.total";

const LONGEST_RETRY_MS = 30_000;

interface Settings {
	readonly limit: number;
	/** How often the handler is called; 0: without end. */
	readonly attempts: number;
	readonly retryDelay: number;
	readonly deadLetters: DeadLetterQueue | undefined;
}

/** One subscription: calls the handler for what the driver hands over, and sees each message to its end. */
export class Handling implements Subscription {
	readonly channel: Channel;
	readonly flow: Flow;
	readonly #broker: ServiceBroker;
	readonly #host: DriverHost;
	readonly #driver: Driver;
	readonly #settings: Settings;
	readonly #ending = new AbortController();
	/** What is being handled, by id, and whether it was handled well. */
	readonly #running = new Map<string, Promise<boolean>>();

	constructor(
		channel: Channel,
		broker: ServiceBroker,
		host: DriverHost,
		driver: Driver,
		settings: Settings,
	) {
		this.channel = channel;
		this.#broker = broker;
		this.#host = host;
		this.#driver = driver;
		this.#settings = settings;
		this.flow = new Flow(settings.limit);
		if (broker.isMetricsEnabled() && !broker.metrics.hasMetric(POISON)) {
			broker.metrics.register({
				type: "counter",
				name: POISON,
				labelNames: ["channel", "group"],
				description: "Messages that could not be read, or that nobody can handle",
			});
		}
	}

	get deadLetters(): DeadLetterQueue | undefined {
		return this.#settings.deadLetters;
	}

	get ending(): AbortSignal {
		return this.#ending.signal;
	}

	end(): void {
		this.#ending.abort();
	}

	take(message: Incoming): void {
		this.flow.run(async () => {
			try {
				await this.#handle(message);
			} catch (error) {
				// Not acknowledged: the broker hands it over again.
				this.#host.logger.warn(
					`A message of '${this.channel.name}' could not be settled: ${messageOf(error)}`,
				);
			}
		});
	}

	async #handle(message: Incoming): Promise<void> {
		// After a lost connection the broker hands over again what is still being handled here.
		for (let running; message.again && (running = this.#running.get(message.id));) {
			if (await running) return message.ack();
		}
		let handled = false;
		let settle: (handled: boolean) => void = () => undefined;
		const end = new Promise<boolean>((resolve) => (settle = resolve));
		this.#running.set(message.id, end);
		try {
			handled = await this.#toTheEnd(message);
			await (handled ? message.ack() : message.release());
		} finally {
			if (this.#running.get(message.id) === end) this.#running.delete(message.id);
			settle(handled);
		}
	}

	/** @returns whether the message is done; else it is to be handed over again */
	async #toTheEnd(message: Incoming): Promise<boolean> {
		let payload: unknown;
		try {
			payload = this.#host.deserialize(message.body);
		} catch (error) {
			this.#count(POISON);
			return this.#bury(message, error, "can't be read");
		}
		const { attempts, retryDelay } = this.#settings;
		for (let attempt = 1; ; attempt++) {
			try {
				await this.channel.handler(payload, message.raw, message);
				return true;
			} catch (error) {
				this.#count(ERRORS);
				const { name } = this.channel;
				this.#host.logger.warn(`A handler of '${name}' failed: ${messageOf(error)}`);
				// At an end another consumer may have it; that is no failure of the message's own.
				if (this.ending.aborted) return false;
				if (this.channel.isPoison?.(error)) {
					this.#count(POISON);
					return this.#bury(message, error, "can't be handled");
				}
				if (attempts > 0 && attempt >= attempts) {
					return this.#bury(message, error, "failed too often");
				}
			}
			const ms = Math.min(retryDelay * 2 ** Math.min(attempt - 1, 20), LONGEST_RETRY_MS);
			if (!(await pause(ms, this.ending))) return false;
			this.#count(RETRIES);
		}
	}

	async #bury(message: Incoming, error: unknown, why: string): Promise<boolean> {
		const { name, group } = this.channel;
		const { deadLetters } = this;
		if (!deadLetters) {
			this.#host.logger.error(`Dropped a message of '${name}' that ${why}`, message.id);
			return true;
		}
		const letter = {
			channel: deadLetters.queue,
			body: message.body,
			headers: {
				...message.headers,
				"x-original-id": message.id,
				"x-original-channel": name,
				"x-original-group": group,
				...errorHeaders(error, Date.now()),
			},
			messageId: `${group}:${name}:${message.id}:dead`,
			options: {},
		};
		const moved = await persist(
			this.ending,
			async () => {
				await this.#driver.deadLetter(letter, deadLetters);
				return true;
			},
			(failure) => {
				this.#host.logger.warn(
					`A message of '${name}' can't be moved to '${deadLetters.queue}' yet: ${messageOf(failure)}`,
				);
			},
		);
		if (!moved) return false;
		this.#count(DEAD_LETTERS);
		this.#host.logger.warn(
			`Moved a message of '${name}' that ${why} to '${deadLetters.queue}': ${messageOf(error)}`,
			message.id,
		);
		return true;
	}

	#count(metric: string): void {
		if (!this.#broker.isMetricsEnabled()) return;
		const { name, group } = this.channel;
		this.#broker.metrics.increment(metric, { channel: name, group });
	}
}
