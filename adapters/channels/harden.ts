import { randomUUID } from "node:crypto";

import type { Service, ServiceBroker } from "moleculer";

import { messageOf } from "../../protocol/index.ts";
import type { Channel, ChannelAdapter, ChannelOptions, PublishOptions } from "./contract.ts";
import type { Consumer, DeadLetterQueue, Driver, DriverHost } from "./driver.ts";
import { unavailable } from "./failures.ts";
import { Handling } from "./handling.ts";
import type { StockAdapter, StockClass } from "./stock.ts";
import { persist, within } from "./waiting.ts";

/** An adapter's class; `instanceof` the stock one too. */
export type ChannelAdapterClass = new (
	options?: string | ChannelOptions,
) => ChannelAdapter & StockAdapter;

interface Recipe {
	/** The stock adapter's options, out of a URL or of options; its own defaults apply after these. */
	options(given: string | ChannelOptions): ChannelOptions;
	/** Which broker and where, without secrets. */
	describe(options: ChannelOptions): string;
	driver(host: DriverHost): Driver;
}

interface Active {
	readonly handling: Handling;
	readonly service: Service | undefined;
	/** Undefined where the subscription ended before it could begin. */
	readonly consumer: Promise<Consumer | undefined>;
	ended: Promise<void> | undefined;
}

const DEFAULTS = {
	retryDelay: 1_000,
	publishTimeout: 10_000,
	stopTimeout: 30_000,
	trimInterval: 30_000,
};
const DEFAULT_ATTEMPTS = 3;

/**
 * Makes a hardened adapter of a stock one. What the stock one reads from its options, its loading of
 * the client library, its serializer, metrics and header parsing stay; connecting, publishing and
 * consuming are the driver's.
 */
export function harden(Stock: StockClass, recipe: Recipe): ChannelAdapterClass {
	return class extends Stock implements ChannelAdapter {
		readonly description: string;
		readonly #active = new Map<string, Active>();
		/** Subscriptions that ended with the broker, to be taken up again if it starts once more. */
		readonly #former = new Map<string, { channel: Channel; service: Service }>();
		#driver: Driver | undefined;
		#host: DriverHost | undefined;
		#running = new AbortController();
		#open = false;

		constructor(given: string | ChannelOptions = {}) {
			const options = recipe.options(given);
			super({
				...DEFAULTS,
				...options,
				deadLettering: { enabled: true, ...options.deadLettering },
			});
			this.description = recipe.describe(options);
		}

		/** The stock check reads a file that newer clients do not export, and ends the process. */
		checkClientLibVersion(): boolean {
			return true;
		}

		override init(broker: ServiceBroker, logger: ServiceBroker["logger"]): void {
			super.init(broker, logger);
			const options = this.#options;
			this.#host = {
				options,
				consumerName: String(options["consumerName"]),
				logger,
				serialize: (value) => this.serializer.serialize(value),
				deserialize: (body) => this.serializer.deserialize(body),
			};
			this.#driver = recipe.driver(this.#host);
		}

		get connected(): boolean {
			return this.#open && this.#ready.connected;
		}

		/** The stock adapter's own mark, which says less. */
		set connected(_value: boolean) {}

		get maxBytes(): number {
			return this.#ready.maxBytes;
		}

		async connect(): Promise<void> {
			if (this.#open) return;
			this.#running = new AbortController();
			const { signal } = this.#running;
			const opened = await persist(
				signal,
				async () => {
					await this.#ready.open();
					return true;
				},
				(error) => {
					this.logger.warn(`${this.description} can't be reached: ${messageOf(error)}`);
				},
			);
			if (signal.aborted) {
				if (opened) await this.#ready.close();
				throw unavailable(`${this.description}: stopped before it was connected`);
			}
			this.#open = true;
			this.logger.info(`Channels are connected to ${this.description}`);
			for (const { channel, service } of this.#former.values()) {
				if (this.broker.services.includes(service)) await this.subscribe(channel, service);
			}
			this.#former.clear();
		}

		async disconnect(): Promise<void> {
			this.#running.abort();
			await Promise.all([...this.#active.values()].map((active) => this.#end(active)));
			if (!this.#open) return;
			this.#open = false;
			await this.#ready.close();
		}

		async subscribe(channel: Channel, service?: Service): Promise<void> {
			if (this.#active.has(channel.id)) return;
			channel.unsubscribing = false;
			const handling = new Handling(channel, this.broker, this.#hosting, this.#ready, {
				limit: Math.max(1, Number(channel.maxInFlight ?? this.#options.maxInFlight ?? 1)),
				attempts: attemptsOf(channel.maxRetries ?? this.#options.maxRetries),
				retryDelay: Number(this.#options.retryDelay),
				deadLetters: this.#deadLettersOf(channel),
			});
			const consumer = persist(
				handling.ending,
				() => this.#ready.consume(handling),
				(error) => {
					this.logger.warn(`Can't subscribe to '${channel.name}': ${messageOf(error)}`);
				},
			);
			this.#active.set(channel.id, { handling, service, consumer, ended: undefined });
			await consumer;
		}

		async unsubscribe(channel: Channel): Promise<void> {
			const active = this.#active.get(channel.id);
			if (active) await this.#end(active);
		}

		async publish(
			channel: string,
			payload: unknown,
			options: PublishOptions = {},
		): Promise<void> {
			const driver = this.#sending();
			const body = options.raw
				? Buffer.from(payload as Buffer)
				: this.serializer.serialize(payload);
			const headers = present(options.headers ?? {});
			const { messageId = randomUUID(), groups = [] } = options;
			for (const group of groups) await this.#declared(driver, channel, group);
			await driver.send({ channel, body, headers, messageId, options });
		}

		async declare(channel: string, group: string): Promise<void> {
			await this.#declared(this.#sending(), channel, group);
		}

		nameProblem(channel: string, group: string): string | undefined {
			return this.#ready.nameProblem?.(channel, group);
		}

		async backlog(channel: string, group: string): Promise<number | undefined> {
			if (!this.connected) return undefined;
			const asked = this.#ready.backlog(channel, group);
			const ms = Number(this.#options.publishTimeout);
			return within(ms, asked, () => unavailable("No answer")).catch(() => undefined);
		}

		#sending(): Driver {
			if (!this.#open) {
				throw unavailable(
					`${this.description}: the adapter is not started, or is stopping`,
				);
			}
			if (!this.#ready.connected) throw unavailable(`${this.description} can't be reached`);
			return this.#ready;
		}

		async #declared(driver: Driver, channel: string, group: string): Promise<void> {
			const ms = Number(this.#options.publishTimeout);
			try {
				await within(ms, driver.declare(channel, group), () => new Error("No answer"));
			} catch (error) {
				throw unavailable(`'${channel}' can't be declared for '${group}'`, error);
			}
		}

		#end(active: Active): Promise<void> {
			return (active.ended ??= this.#ending(active));
		}

		async #ending({ handling, service, ...active }: Active): Promise<void> {
			const { channel, flow } = handling;
			channel.unsubscribing = true;
			handling.end();
			const rough = (error: unknown) => {
				this.logger.warn(`The end of '${channel.name}' was rough: ${messageOf(error)}`);
			};
			const consumer = await active.consumer;
			await consumer?.pause().catch(rough);
			if (!(await flow.idle(Number(this.#options.stopTimeout)))) {
				this.logger.warn(
					`${flow.active} messages of '${channel.name}' are still being handled; they will be handled again`,
				);
			}
			await consumer?.close().catch(rough);
			this.#active.delete(channel.id);
			if (service) this.#former.set(channel.id, { channel, service });
		}

		#deadLettersOf(channel: Channel): DeadLetterQueue | undefined {
			const { enabled, queueName, exchangeName, exchangeOptions, queueOptions } = {
				...this.#options.deadLettering,
				...channel.deadLettering,
			};
			if (!enabled) return undefined;
			return {
				queue: this.addPrefixTopic(queueName ?? "FAILED_MESSAGES"),
				exchange: this.addPrefixTopic(exchangeName ?? "DEAD_LETTER"),
				exchangeOptions: exchangeOptions ?? {},
				queueOptions: queueOptions ?? {},
			};
		}

		get #options(): ChannelOptions {
			return this.opts;
		}

		get #ready(): Driver {
			if (!this.#driver) throw unavailable("The adapter was used before init()");
			return this.#driver;
		}

		get #hosting(): DriverHost {
			if (!this.#host) throw unavailable("The adapter was used before init()");
			return this.#host;
		}
	};
}

function attemptsOf(maxRetries: number | null | undefined): number {
	const wanted = maxRetries ?? DEFAULT_ATTEMPTS;
	return wanted < 0 ? 0 : Math.max(1, wanted);
}

function present(headers: Readonly<Record<string, unknown>>): Record<string, unknown> {
	return Object.fromEntries(
		Object.entries(headers).filter(([, value]) => value !== undefined && value !== null),
	);
}
