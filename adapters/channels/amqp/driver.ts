import type { ChannelModel, ConfirmChannel, Options } from "amqplib";

import { messageOf } from "../../../protocol/index.ts";
import type {
	Consumer,
	DeadLetterQueue,
	Driver,
	DriverHost,
	Outgoing,
	Subscription,
} from "../driver.ts";
import { load, unavailable, unconfirmed } from "../failures.ts";
import { Once, pause, persist, within } from "../waiting.ts";
import { AmqpConsumer } from "./consumer.ts";

/** RabbitMQ's own limit is higher; so much is never sensible in a queue. */
const MAX_BYTES = 64 * 1_024 * 1_024;
const LONGEST_NAME = 255;
const CONNECT_MS = 5_000;
/** Seconds between signs of life; after two missing ones the connection counts as lost. */
const HEARTBEAT_S = 5;

/** The adapter's options that are RabbitMQ's. */
export interface AmqpSettings {
	readonly amqp?: {
		readonly url?: string | readonly string[];
		readonly socketOptions?: object;
		readonly queueOptions?: Options.AssertQueue;
		readonly exchangeOptions?: Options.AssertExchange;
		readonly messageOptions?: Options.Publish;
		readonly consumerOptions?: Options.Consume;
	};
}

interface Unsettled {
	reject: (error: Error) => void;
	/** Whether the exchange knew no queue for the message. */
	returned: boolean;
}

/** One confirm channel, and what was sent over it and is not confirmed. */
interface Sender {
	readonly channel: ConfirmChannel;
	readonly unsettled: Map<string, Unsettled[]>;
	/** Resolves when the socket takes more; undefined while it does. */
	drained: Promise<void> | undefined;
}

/** RabbitMQ: a fanout exchange for each channel, a durable queue bound to it for each group. */
export class AmqpDriver implements Driver {
	readonly maxBytes = MAX_BYTES;
	readonly #host: DriverHost;
	readonly #settings: NonNullable<AmqpSettings["amqp"]>;
	readonly #declared = new Once();
	readonly #consumers = new Set<AmqpConsumer>();
	#closing = new AbortController();
	#connection: ChannelModel | undefined;
	#sender: Promise<Sender> | undefined;
	#attempts = 0;

	constructor(host: DriverHost) {
		this.#host = host;
		this.#settings = (host.options as AmqpSettings).amqp ?? {};
	}

	get connected(): boolean {
		return this.#connection !== undefined;
	}

	get connection(): ChannelModel {
		if (!this.#connection) throw unavailable("RabbitMQ can't be reached");
		return this.#connection;
	}

	get settings(): NonNullable<AmqpSettings["amqp"]> {
		return this.#settings;
	}

	nameProblem(channel: string, group: string): string | undefined {
		return Buffer.byteLength(queueOf(channel, group)) > LONGEST_NAME
			? `and the name of its queue would have more than the ${LONGEST_NAME} bytes that RabbitMQ takes`
			: undefined;
	}

	async open(): Promise<void> {
		this.#closing = new AbortController();
		await this.#connect();
	}

	async close(): Promise<void> {
		this.#closing.abort();
		const connection = this.#connection;
		this.#lost();
		if (!connection) return;
		const late = () => new Error("RabbitMQ does not answer the end");
		await within(CONNECT_MS, connection.close(), late).catch((error: unknown) => {
			this.#host.logger.debug(`RabbitMQ: ${messageOf(error)}`);
		});
	}

	declare(channel: string, group: string): Promise<void> {
		return this.#declared.run(`${channel}\n${group}`, () =>
			this.assert(channel, group, undefined),
		);
	}

	/** Makes the exchange, the queue and what binds them. */
	async assert(
		name: string,
		group: string,
		own: AmqpSettings["amqp"] | undefined,
	): Promise<void> {
		const channel = await this.connection.createChannel();
		// A refusal closes the channel; it rejects the call too.
		channel.on("error", () => undefined);
		const { exchangeOptions, queueOptions } = this.#settings;
		await channel.assertExchange(name, "fanout", {
			...exchangeOptions,
			...own?.exchangeOptions,
		});
		const queue = queueOf(name, group);
		await channel.assertQueue(queue, { ...queueOptions, ...own?.queueOptions });
		await channel.bindQueue(queue, name, "");
		await channel.close();
	}

	async send(message: Outgoing): Promise<void> {
		const { channel, options } = message;
		const { routingKey = options.key ?? "" } = options;
		for (let again = false; ; again = true) {
			const routed = await this.#publish(channel, String(routingKey), message);
			if (routed) return;
			const groups = options.groups ?? [];
			if (groups.length === 0 || again) {
				throw unavailable(
					`No queue is bound to '${channel}': nobody has ever subscribed to it`,
				);
			}
			this.#declared.forget(`${channel}\n`);
			for (const group of groups) await this.#redeclare(channel, group);
		}
	}

	async deadLetter(message: Outgoing, to: DeadLetterQueue): Promise<void> {
		const { exchangeOptions, queueOptions } = this.#settings;
		await this.#declared.run(`${to.exchange}\n${to.queue}`, async () => {
			const channel = await this.connection.createChannel();
			channel.on("error", () => undefined);
			await channel.assertExchange(to.exchange, "fanout", {
				...exchangeOptions,
				...to.exchangeOptions,
			});
			await channel.assertQueue(to.queue, { ...queueOptions, ...to.queueOptions });
			await channel.bindQueue(to.queue, to.exchange, "");
			await channel.close();
		});
		if (await this.#publish(to.exchange, to.queue, message)) return;
		this.#declared.forget(`${to.exchange}\n`);
		throw unavailable(`The queue '${to.queue}' is gone`);
	}

	async consume(subscription: Subscription): Promise<Consumer> {
		const consumer = new AmqpConsumer(subscription, this, this.#host, () =>
			this.#consumers.delete(consumer),
		);
		await consumer.start();
		this.#consumers.add(consumer);
		return consumer;
	}

	async backlog(name: string, group: string): Promise<number | undefined> {
		const queue = queueOf(name, group);
		const channel = await this.connection.createChannel();
		channel.on("error", () => undefined);
		let waiting = 0;
		try {
			({ messageCount: waiting } = await channel.checkQueue(queue));
			await channel.close();
		} catch (error) {
			if ((error as { code?: unknown }).code !== 404) throw error;
		}
		const here = [...this.#consumers].filter((consumer) => consumer.queue === queue);
		return here.reduce((sum, { unsettled }) => sum + unsettled, waiting);
	}

	async #redeclare(channel: string, group: string): Promise<void> {
		try {
			await this.declare(channel, group);
		} catch (error) {
			throw unavailable(`'${channel}' can't be declared for '${group}'`, error);
		}
	}

	/** @returns whether a queue has it; false: certainly none has */
	async #publish(exchange: string, key: string, message: Outgoing): Promise<boolean> {
		const sender = await this.#sending();
		await sender.drained;
		const { options, messageId, headers, body } = message;
		const { persistent = true, ttl, priority, correlationId } = options;
		const properties = {
			persistent,
			...(ttl !== undefined && { expiration: ttl }),
			...(priority !== undefined && { priority }),
			...(correlationId !== undefined && { correlationId }),
			...this.#settings.messageOptions,
			headers,
			messageId,
			mandatory: true,
		} as Options.Publish;
		const entry: Unsettled = { reject: () => undefined, returned: false };
		const known = sender.unsettled.get(messageId);
		if (known) known.push(entry);
		else sender.unsettled.set(messageId, [entry]);

		const confirmed = new Promise<void>((resolve, reject) => {
			entry.reject = reject;
			const written = sender.channel.publish(
				exchange,
				key,
				body,
				properties,
				(error: unknown) => {
					if (error)
						reject(unconfirmed(`RabbitMQ refused a message for '${exchange}'`, error));
					else resolve();
				},
			);
			if (!written) sender.drained ??= untilDrained(sender);
		});
		try {
			await within(Number(this.#host.options.publishTimeout), confirmed, () =>
				unconfirmed(`RabbitMQ did not confirm a message for '${exchange}' in time`),
			);
			return !entry.returned;
		} finally {
			const rest = (sender.unsettled.get(messageId) ?? []).filter((one) => one !== entry);
			if (rest.length > 0) sender.unsettled.set(messageId, rest);
			else sender.unsettled.delete(messageId);
		}
	}

	async #sending(): Promise<Sender> {
		const { connection } = this;
		this.#sender ??= this.#makeSender(connection);
		try {
			return await this.#sender;
		} catch (error) {
			this.#sender = undefined;
			throw unavailable("RabbitMQ opens no channel", error);
		}
	}

	async #makeSender(connection: ChannelModel): Promise<Sender> {
		const channel = await connection.createConfirmChannel();
		const sender: Sender = { channel, unsettled: new Map(), drained: undefined };
		let reason: unknown;
		channel.on("error", (error: unknown) => (reason = error));
		channel.on("return", ({ properties }: { properties: { messageId?: string } }) => {
			const entry = sender.unsettled
				.get(properties.messageId ?? "")
				?.find(({ returned }) => !returned);
			if (entry) entry.returned = true;
		});
		channel.on("close", () => {
			this.#sender = undefined;
			// An exchange that is gone closes the channel; whoever comes next declares it again.
			this.#declared.forget();
			const error = unconfirmed("RabbitMQ closed the channel of a message", reason);
			for (const { reject } of [...sender.unsettled.values()].flat()) reject(error);
		});
		return sender;
	}

	async #connect(): Promise<void> {
		const amqplib = await load("amqplib", () => import("amqplib"));
		const { url = "amqp://localhost", socketOptions } = this.#settings;
		const urls = typeof url === "string" ? [url] : url;
		const chosen = urls[this.#attempts++ % urls.length] ?? "amqp://localhost";
		const address = new URL(chosen);
		if (!address.searchParams.has("heartbeat")) {
			address.searchParams.set("heartbeat", String(HEARTBEAT_S));
		}
		const connection = await amqplib.connect(address.href, {
			noDelay: true,
			timeout: CONNECT_MS,
			...socketOptions,
		});
		connection.on("error", (error: unknown) => {
			this.#host.logger.debug(`RabbitMQ: ${messageOf(error)}`);
		});
		connection.on("blocked", (reason: unknown) => {
			this.#host.logger.warn(`RabbitMQ takes no messages now: ${String(reason)}`);
		});
		connection.on("close", () => {
			if (this.#connection !== connection) return;
			this.#lost();
			if (!this.#closing.signal.aborted) void this.#reconnect();
		});
		this.#connection = connection;
	}

	#lost(): void {
		this.#connection = undefined;
		this.#sender = undefined;
		this.#declared.forget();
	}

	async #reconnect(): Promise<void> {
		const { signal } = this.#closing;
		this.#host.logger.warn("RabbitMQ is lost; connecting again");
		await persist(
			signal,
			() => this.#connect(),
			(error) => {
				this.#host.logger.debug(`RabbitMQ: ${messageOf(error)}`);
			},
		);
		if (signal.aborted) await this.#connection?.close().catch(() => undefined);
		else this.#host.logger.info("RabbitMQ is connected again");
	}

	/** Resolves when there is a connection, or the signal is aborted. */
	async whenConnected(signal: AbortSignal): Promise<void> {
		while (!this.connected && (await pause(50, signal)));
	}
}

export function queueOf(channel: string, group: string): string {
	return `${group}.${channel}`;
}

function untilDrained(sender: Sender): Promise<void> {
	return new Promise((resolve) => {
		const done = () => {
			sender.drained = undefined;
			resolve();
		};
		sender.channel.once("drain", done);
		sender.channel.once("close", done);
	});
}
