import type { Channel, ChannelOptions, Delivered, PublishOptions } from "./contract.ts";
import type { Flow } from "./flow.ts";

/** A message on its way to the broker. */
export interface Outgoing {
	readonly channel: string;
	readonly body: Buffer;
	readonly headers: Readonly<Record<string, unknown>>;
	readonly messageId: string;
	readonly options: PublishOptions;
}

/** A message that the broker has handed over. */
export interface Incoming extends Delivered {
	/** The same for every copy of one message, never for two messages. */
	readonly id: string;
	/** Whether it was handed over before, and may still be handled here. */
	readonly again: boolean;
	readonly headers: Readonly<Record<string, unknown>>;
	/** What the handler gets beside the payload. */
	readonly raw: unknown;
	/** Tells the broker that the message is done. Rejects only when it will be handed over again. */
	ack(): void | Promise<void>;
	/** Gives it back, for whichever consumer comes first. */
	release(): void | Promise<void>;
}

/** What a driver needs to know of a subscription. */
export interface Subscription {
	readonly channel: Channel;
	readonly deadLetters: DeadLetterQueue | undefined;
	readonly flow: Flow;
	/** Aborted as soon as nothing new may be taken. */
	readonly ending: AbortSignal;
	/** Handles a message; the flow must have room. */
	take(message: Incoming): void;
}

export interface DeadLetterQueue {
	readonly queue: string;
	readonly exchange: string;
	readonly exchangeOptions: object;
	readonly queueOptions: object;
}

/** A running consumer. */
export interface Consumer {
	/** Takes nothing new; what came and was not begun is given back. */
	pause(): Promise<void>;
	/** Ends it, after the last acknowledgement. */
	close(): Promise<void>;
}

/** What the adapter lends to its driver. */
export interface DriverHost {
	readonly options: ChannelOptions;
	readonly consumerName: string;
	readonly logger: {
		debug(...args: unknown[]): void;
		info(...args: unknown[]): void;
		warn(...args: unknown[]): void;
		error(...args: unknown[]): void;
	};
	serialize(value: unknown): Buffer;
	deserialize(body: Buffer): unknown;
}

/** One broker's protocol. Once opened, it finds its own way back after a loss of connection. */
export interface Driver {
	readonly connected: boolean;
	readonly maxBytes: number;
	/** @returns why the broker can't have such a channel or group, where that is so */
	nameProblem?(channel: string, group: string): string | undefined;
	/** Connects, at the first try. */
	open(): Promise<void>;
	close(): Promise<void>;
	declare(channel: string, group: string): Promise<void>;
	/** Resolves when the broker has the message; rejects with one of the two channel errors. */
	send(message: Outgoing): Promise<void>;
	deadLetter(message: Outgoing, to: DeadLetterQueue): Promise<void>;
	consume(subscription: Subscription): Promise<Consumer>;
	backlog(channel: string, group: string): Promise<number | undefined>;
}
