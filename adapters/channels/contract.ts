import type { Service, ServiceBroker } from "moleculer";

/** Options of a publish. Those of the broker at hand (`persistent`, `ttl`, `priority`, `partition`, …) pass through. */
export interface PublishOptions {
	/** Headers of the message; text only on NATS and Kafka. */
	readonly headers?: Readonly<Record<string, unknown>> | undefined;
	/** Whether the payload is a Buffer already, to be sent as it is. @default false */
	readonly raw?: boolean | undefined;
	/**
	 * Consumer groups that must get the message even if none of their consumers has been up yet:
	 * what they need on the server is declared before the first message is sent.
	 */
	readonly groups?: readonly string[] | undefined;
	/** Kafka: the key that chooses the partition. RabbitMQ: the routing key, unless `routingKey` is given. */
	readonly key?: string | undefined;
	/** Id of this one send, never used for another message. NATS drops a second copy of it. @default a new one */
	readonly messageId?: string | undefined;
	readonly [option: string]: unknown;
}

/** How a message came. */
export interface Delivered {
	/** What the payload was read from. */
	readonly body: Buffer;
	/** Whether the broker may have handed it to a consumer before. */
	readonly repeated: boolean;
}

/** A consumer's channel, as `@moleculer/channels` makes it from a service's schema. */
export interface Channel {
	/** Unique for the node, the service and the channel. */
	readonly id: string;
	readonly name: string;
	readonly group: string;
	unsubscribing: boolean;
	readonly maxInFlight?: number | null;
	readonly maxRetries?: number | null;
	readonly deadLettering?: Partial<DeadLettering> | null;
	/** Whether a message can never be handled: it goes to the dead-letter queue at once. */
	readonly isPoison?: (error: unknown) => boolean;
	/** `raw` is the client's message. */
	readonly handler: (payload: unknown, raw: unknown, delivered: Delivered) => Promise<unknown>;
	/** What the schema says for one broker: `redis`, `amqp`, `nats`, `kafka`. */
	readonly [broker: string]: unknown;
}

/** Where messages go that nobody can handle. */
export interface DeadLettering {
	readonly enabled: boolean;
	/** @default "FAILED_MESSAGES" */
	readonly queueName: string;
	/** RabbitMQ only. @default "DEAD_LETTER" */
	readonly exchangeName?: string;
	readonly exchangeOptions?: object;
	readonly queueOptions?: object;
}

/** Options of every adapter, beside those of its broker. */
export interface ChannelOptions {
	/** Prefix of channel names. @default the broker's namespace */
	readonly prefix?: string | null;
	/** Moleculer's serializer for bodies. @default "JSON" */
	readonly serializer?: string | object;
	/** Messages of one channel that are handled at a time. @default 1 */
	readonly maxInFlight?: number;
	/** How often a handler is called for one message; -1: without end, 0 or 1: once. @default 3 */
	readonly maxRetries?: number;
	/** Milliseconds before a failed handler is called again, doubled each time up to 30 s. @default 1000 */
	readonly retryDelay?: number;
	/** Milliseconds that a publish may wait for the broker's confirmation. @default 10000 */
	readonly publishTimeout?: number;
	/** Milliseconds that a stop waits for handlers; what runs longer is handled again elsewhere. @default 30000 */
	readonly stopTimeout?: number;
	/**
	 * Milliseconds between two removals of what every group has handled, on Redis and NATS; 0: never.
	 * @default 30000
	 */
	readonly trimInterval?: number;
	readonly deadLettering?: Partial<DeadLettering>;
	readonly [option: string]: unknown;
}

/** An adapter of `@moleculer/channels`, hardened. */
export interface ChannelAdapter {
	/** Which broker, and where, without secrets. */
	readonly description: string;
	/** Largest body in bytes that the broker takes. */
	readonly maxBytes: number;
	/** Whether the broker can be reached now. */
	readonly connected: boolean;
	/** Moleculer's serializer for bodies, once the adapter is initialized. */
	readonly serializer: { serialize(value: unknown): Buffer; deserialize(body: Buffer): unknown };
	init(broker: ServiceBroker, logger: ServiceBroker["logger"]): void;
	/** Connects; waits for a server that is down. Subscribes again what a stop of the same broker ended. */
	connect(): Promise<void>;
	/** Ends all subscriptions, waiting for their handlers, and then the connection. */
	disconnect(): Promise<void>;
	subscribe(channel: Channel, service?: Service): Promise<void>;
	/** Ends a subscription: takes nothing new and waits for what is being handled. */
	unsubscribe(channel: Channel): Promise<void>;
	/**
	 * Sends a message and resolves when the broker has it.
	 *
	 * @param channel the channel's full name, prefix included (see {@link ChannelAdapter.addPrefixTopic})
	 * @throws LOTTOR_CHANNEL_UNAVAILABLE when it is certain that the message was not sent,
	 *   LOTTOR_CHANNEL_UNCONFIRMED when it may have been, LOTTOR_PAYLOAD_TOO_LARGE when the broker
	 *   refuses its size
	 */
	publish(channel: string, payload: unknown, options?: PublishOptions): Promise<void>;
	/** Declares what a channel and its group need, so that nothing is lost before the first consumer. */
	declare(channel: string, group: string): Promise<void>;
	/**
	 * @returns messages that the broker still holds for the group, those included that consumers have
	 *   and have not acknowledged; undefined where it can't tell
	 */
	backlog(channel: string, group: string): Promise<number | undefined>;
	/** @returns why the broker can't have the channel, or the group in it, where that is so */
	nameProblem(channel: string, group: string): string | undefined;
	addPrefixTopic(name: string): string;
	parseMessageHeaders(raw: unknown): Record<string, unknown> | null;
}
