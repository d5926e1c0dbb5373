import type { Channel, ConsumeMessage } from "amqplib";

import { messageOf } from "../../../protocol/index.ts";
import type { Consumer, DriverHost, Incoming, Subscription } from "../driver.ts";
import { persist } from "../waiting.ts";
import { type AmqpDriver, type AmqpSettings, queueOf } from "./driver.ts";

/** Consumes one queue over a channel of its own, whose prefetch is the subscription's limit. */
export class AmqpConsumer implements Consumer {
	readonly queue: string;
	readonly #subscription: Subscription;
	readonly #driver: AmqpDriver;
	readonly #host: DriverHost;
	readonly #ended: () => void;
	#channel: Channel | undefined;
	#tag = "";
	#unsettled = 0;
	/** A start after a loss; an end must not overtake it. */
	#beginning: Promise<unknown> = Promise.resolve();

	constructor(
		subscription: Subscription,
		driver: AmqpDriver,
		host: DriverHost,
		ended: () => void,
	) {
		this.#subscription = subscription;
		this.#driver = driver;
		this.#host = host;
		this.#ended = ended;
		this.queue = queueOf(subscription.channel.name, subscription.channel.group);
	}

	/** Messages that this consumer has and has not acknowledged. */
	get unsettled(): number {
		return this.#unsettled;
	}

	async start(): Promise<void> {
		const { name, group, ...own } = this.#subscription.channel;
		const options = (own as AmqpSettings).amqp;
		await this.#driver.assert(name, group, options);
		const channel = await this.#driver.connection.createChannel();
		channel.on("error", (error: unknown) => {
			this.#host.logger.debug(`${name}: ${messageOf(error)}`);
		});
		channel.on("close", () => this.#lost(channel));
		this.#unsettled = 0;
		this.#channel = channel;
		try {
			await channel.prefetch(this.#subscription.flow.limit);
			const { consumerTag } = await channel.consume(
				this.queue,
				(message) => this.#take(channel, message),
				{
					...this.#driver.settings.consumerOptions,
					...options?.consumerOptions,
					noAck: false,
				},
			);
			this.#tag = consumerTag;
		} catch (error) {
			this.#channel = undefined;
			shut(channel);
			throw error;
		}
	}

	async pause(): Promise<void> {
		await this.#beginning;
		await this.#channel?.cancel(this.#tag);
	}

	async close(): Promise<void> {
		const channel = this.#channel;
		this.#channel = undefined;
		this.#ended();
		await channel?.close();
	}

	/** The queue or the connection is gone: begins anew as soon as that is possible. */
	#lost(channel: Channel): void {
		if (this.#channel !== channel) return;
		this.#channel = undefined;
		const { ending, channel: subscribed } = this.#subscription;
		if (ending.aborted) return;
		this.#beginning = persist(
			ending,
			async () => {
				await this.#driver.whenConnected(ending);
				await this.start();
			},
			(error) => {
				this.#host.logger.warn(
					`Can't subscribe to '${subscribed.name}': ${messageOf(error)}`,
				);
			},
		);
	}

	/** @param message null: the server says that the queue is gone */
	#take(channel: Channel, message: ConsumeMessage | null): void {
		if (!message) {
			shut(channel);
			return;
		}
		if (this.#subscription.ending.aborted) {
			settle(() => channel.nack(message, false, true));
			return;
		}
		this.#unsettled++;
		this.#subscription.take(this.#incoming(channel, message));
	}

	#incoming(channel: Channel, message: ConsumeMessage): Incoming {
		const { fields, properties } = message;
		const done = (act: () => void) => {
			if (this.#channel === channel) this.#unsettled--;
			settle(act);
		};
		return {
			id: String(properties.messageId ?? `${fields.consumerTag}:${fields.deliveryTag}`),
			again: fields.redelivered,
			repeated: fields.redelivered,
			body: message.content,
			headers: properties.headers ?? {},
			raw: message,
			ack: () => done(() => channel.ack(message)),
			release: () => done(() => channel.nack(message, false, true)),
		};
	}
}

function shut(channel: Channel): void {
	settle(() => void channel.close().catch(() => undefined));
}

/** On a channel that is closed meanwhile: the server hands the message over again. */
function settle(act: () => void): void {
	try {
		act();
	} catch (error) {
		if ((error as Error).name !== "IllegalOperationError") throw error;
	}
}
