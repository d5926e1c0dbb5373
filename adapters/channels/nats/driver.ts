import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import type * as Nats from "nats";
import type {
	ConnectionOptions,
	ConsumerConfig,
	JetStreamClient,
	JetStreamManager,
	NatsConnection,
	StreamConfig,
	StreamInfo,
} from "nats";

import { messageOf } from "../../../protocol/index.ts";
import type {
	Consumer,
	DeadLetterQueue,
	Driver,
	DriverHost,
	Outgoing,
	Subscription,
} from "../driver.ts";
import { load, tooLarge, unavailable, unconfirmed } from "../failures.ts";
import { Once, within } from "../waiting.ts";
import { NatsConsumer } from "./consumer.ts";

const LONGEST_NAME = 255;
const PING_MS = 5_000;
const MISSING_PINGS = 2;
const RECONNECT_MS = 500;
const FLUSH_MS = 2_000;
/**
 * Server 2.9 removes a deleted stream's files a little later, and with them what a stream of the same
 * name has taken and confirmed meanwhile.
 */
const REMAKE_MS = 1_000;
/** What the server takes where it does not say. */
const MAX_BYTES = 1_024 * 1_024;
/** Stands in the description of streams that this adapter made and may trim. */
const MARK = "trimmed to what its consumers have not acknowledged";

const MESSAGE_TOO_LARGE = 10_054;
const LIMITS = "max_payload of the server or max_msg_size of the stream";

type Library = typeof Nats;

/** The adapter's options that are NATS'. */
export interface NatsSettings {
	readonly nats?: {
		readonly url?: string;
		readonly connectionOptions?: ConnectionOptions;
		readonly streamConfig?: Partial<StreamConfig>;
		readonly consumerOptions?: { readonly config?: Partial<ConsumerConfig> };
	};
}

/** NATS JetStream: a stream for each channel, a durable pull consumer for each group. */
export class NatsDriver implements Driver {
	readonly #host: DriverHost;
	readonly #settings: NonNullable<NatsSettings["nats"]>;
	readonly #declared = new Once();
	/** Streams that there were: one that is gone was deleted. */
	readonly #seen = new Set<string>();
	/** Streams by channel, as far as they are known to be there. */
	readonly #streams = new Map<string, string>();
	readonly #consumers = new Set<NatsConsumer>();
	#library: Library | undefined;
	#connection: NatsConnection | undefined;
	#client: JetStreamClient | undefined;
	#manager: JetStreamManager | undefined;
	#up = false;

	constructor(host: DriverHost) {
		this.#host = host;
		this.#settings = (host.options as NatsSettings).nats ?? {};
	}

	get connected(): boolean {
		return this.#up;
	}

	get maxBytes(): number {
		return this.#connection?.info?.max_payload ?? MAX_BYTES;
	}

	get client(): JetStreamClient {
		if (!this.#client) throw unavailable("NATS is not connected");
		return this.#client;
	}

	nameProblem(channel: string): string | undefined {
		return /[\s*>/\\]|^\.|\.\.|\.$/.test(channel) || channel.length > LONGEST_NAME
			? `and NATS takes no spaces, slashes, "*", ">" or empty parts in a subject, nor more than ${LONGEST_NAME} characters`
			: undefined;
	}

	async open(): Promise<void> {
		const nats = await load("nats", () => import("nats"));
		this.#library = nats;
		const connection = await nats.connect({
			pingInterval: PING_MS,
			maxPingOut: MISSING_PINGS,
			reconnectTimeWait: RECONNECT_MS,
			// They would cost a stack trace for each message that is published.
			noAsyncTraces: true,
			...this.#settings.connectionOptions,
			maxReconnectAttempts: -1,
		});
		try {
			this.#manager = await connection.jetstreamManager();
		} catch (error) {
			await connection.close();
			throw error;
		}
		this.#connection = connection;
		this.#client = connection.jetstream();
		this.#up = true;
		void this.#watch(connection);
	}

	async close(): Promise<void> {
		this.#up = false;
		this.#declared.forget();
		const connection = this.#connection;
		this.#connection = this.#client = this.#manager = undefined;
		// Acknowledgements still on their way reach the server; without a connection there is none.
		if (!connection) return;
		const late = () => new Error("NATS does not answer the end");
		await within(FLUSH_MS, connection.flush(), late).catch(() => undefined);
		await connection.close();
	}

	async declare(channel: string, group: string): Promise<void> {
		await this.#declared.run(`${channel}\n${group}`, async () => {
			await this.makeStream(channel, undefined);
			await this.makeConsumer(channel, group, undefined);
		});
	}

	async send(message: Outgoing): Promise<void> {
		const { channel, options } = message;
		if (await this.#publish(message)) return;
		// There is no stream: it was never made, or it is gone.
		this.#declared.forget(`${channel}\n`);
		try {
			await this.makeStream(channel, undefined);
			for (const group of options.groups ?? []) await this.declare(channel, group);
		} catch (error) {
			throw unavailable(`The stream of '${channel}' can't be made`, error);
		}
		if (!(await this.#publish(message))) throw unavailable(`'${channel}' has no stream`);
	}

	async deadLetter(message: Outgoing, _to: DeadLetterQueue): Promise<void> {
		await this.send(message);
	}

	async consume(subscription: Subscription): Promise<Consumer> {
		const { name, group, ...own } = subscription.channel;
		const options = (own as NatsSettings).nats;
		const trimInterval = Number(this.#host.options.trimInterval);
		let stuckAt: number | undefined;
		let remade = false;
		const consumer = new NatsConsumer(subscription, this.#host, {
			prepare: async () => {
				await this.makeStream(name, options);
				const { ack_wait } = await this.makeConsumer(name, group, options);
				return { ackWait: Number(ack_wait) / 1e6 };
			},
			subscribe: (callback) =>
				this.client.pullSubscribe(name, {
					stream: this.#streamOf(name),
					mack: true,
					config: { durable_name: durableOf(group) },
					callbackFn: callback,
				}),
			unstick: async () => {
				const info = await this.#managing.consumers.info(
					this.#streamOf(name),
					durableOf(group),
				);
				const { num_pending, num_waiting, num_ack_pending, delivered, ack_floor } = info;
				const stuck = num_pending > 0 && num_waiting > 0;
				const before = stuckAt;
				stuckAt = stuck ? delivered.consumer_seq : undefined;
				if (!stuck) remade = false;
				if (!stuck || before !== stuckAt) return;
				const held = num_ack_pending > 0;
				if ((remade || held) && (await this.#hasLost(name))) {
					this.#host.logger.error(
						`NATS has lost what it confirmed for '${name}': its stream is made anew`,
					);
					await this.#managing.streams.delete(this.#streamOf(name));
					await this.makeStream(name, options);
					await this.makeConsumer(name, group, options);
					return;
				}
				// Made anew, it would hand over again what others hold.
				if (held) return;
				remade = true;
				// Seen with server 2.9, where a stream was deleted and made again at once.
				this.#host.logger.warn(
					`NATS hands over nothing of '${name}': its consumer is made anew`,
				);
				await this.#managing.consumers.delete(this.#streamOf(name), durableOf(group));
				await this.makeConsumer(name, group, options, ack_floor.stream_seq + 1);
			},
			trim: trimInterval > 0 ? () => this.#trim(name) : undefined,
			trimInterval,
			ended: () => this.#consumers.delete(consumer),
		});
		await consumer.start();
		this.#consumers.add(consumer);
		return consumer;
	}

	async backlog(channel: string, group: string): Promise<number | undefined> {
		const stream = this.#streams.get(channel) ?? (await this.#find(channel)).name;
		try {
			const info = await this.#managing.consumers.info(stream, durableOf(group));
			return info.num_pending + info.num_ack_pending;
		} catch (error) {
			if (!isMissing(error)) throw error;
		}
		return (await this.#info(stream))?.state.messages ?? 0;
	}

	/** Makes the channel's stream, unless it is there. */
	async makeStream(channel: string, own: NatsSettings["nats"]): Promise<void> {
		let { name, info } = await this.#find(channel);
		if (!info) {
			const config: Partial<StreamConfig> = {
				description: MARK,
				subjects: [channel],
				...this.#settings.streamConfig,
				...own?.streamConfig,
			};
			if (this.#seen.has(name)) await sleep(REMAKE_MS);
			try {
				await this.#managing.streams.add({ ...config, name });
			} catch (error) {
				// Another channel may have been faster with the name.
				({ name, info } = await this.#find(channel));
				if (name === streamOf(channel)) throw error;
				if (!info) await this.#managing.streams.add({ ...config, name });
			}
		}
		this.#seen.add(name);
		this.#streams.set(channel, name);
	}

	/** The channel's stream: its usual one, or that beside it where another channel has the name. */
	async #find(channel: string): Promise<{ name: string; info: StreamInfo | undefined }> {
		const usual = streamOf(channel);
		const info = await this.#info(usual);
		const { subjects = [] } = info?.config ?? {};
		if (!subjects.some((one) => one !== channel && streamOf(one) === usual))
			return { name: usual, info };
		const hash = createHash("sha256").update(channel).digest("hex").slice(0, 8);
		const name = `${usual}-${hash}`;
		return { name, info: await this.#info(name) };
	}

	async #info(stream: string): Promise<StreamInfo | undefined> {
		try {
			return await this.#managing.streams.info(stream);
		} catch (error) {
			if (isMissing(error)) return undefined;
			throw error;
		}
	}

	#streamOf(channel: string): string {
		return this.#streams.get(channel) ?? streamOf(channel);
	}

	/** Whether the stream counts messages that it can't give out any more. */
	async #hasLost(channel: string): Promise<boolean> {
		const { streams } = this.#managing;
		const name = this.#streamOf(channel);
		const { state } = await streams.info(name);
		if (state.messages === 0) return false;
		try {
			await streams.getMessage(name, { seq: state.first_seq });
			return false;
		} catch (error) {
			if (!/no message found/i.test(messageOf(error))) throw error;
			// It may have been trimmed since.
			return (await streams.info(name)).state.first_seq === state.first_seq;
		}
	}

	/** Makes the group's durable consumer, unless it is there. */
	async makeConsumer(
		channel: string,
		group: string,
		own: NatsSettings["nats"],
		from?: number,
	): Promise<ConsumerConfig> {
		const stream = this.#streamOf(channel);
		const { consumers } = this.#managing;
		const durable_name = durableOf(group);
		try {
			return (await consumers.info(stream, durable_name)).config;
		} catch (error) {
			if (!isMissing(error)) throw error;
		}
		const { AckPolicy, DeliverPolicy } = this.#nats;
		const start = from ?? (await this.#afterStock(stream, group));
		const config: Partial<ConsumerConfig> = {
			deliver_policy: DeliverPolicy.All,
			...this.#settings.consumerOptions?.config,
			...own?.consumerOptions?.config,
			...(start !== undefined && {
				deliver_policy: DeliverPolicy.StartSequence,
				opt_start_seq: start,
			}),
			ack_policy: AckPolicy.Explicit,
			durable_name,
			// The limit is each consumer's own, by what it asks for.
			max_ack_pending: -1,
		};
		// These would make it a push consumer.
		delete config.deliver_subject;
		delete config.deliver_group;
		const info = await consumers.add(stream, config);
		return info.config;
	}

	/** @returns where the stock adapter's push consumer of the group has got to, if there is one */
	async #afterStock(stream: string, group: string): Promise<number | undefined> {
		try {
			const name = group.replaceAll(".", "_");
			const info = await this.#managing.consumers.info(stream, name);
			return info.ack_floor.stream_seq + 1;
		} catch (error) {
			if (isMissing(error)) return undefined;
			throw error;
		}
	}

	/** @returns false when the channel has no stream */
	async #publish({ channel, body, headers, messageId, options }: Outgoing): Promise<boolean> {
		const { client } = this;
		const all = this.#nats.headers();
		for (const [name, value] of Object.entries(headers)) all.set(name, String(value));
		try {
			await client.publish(channel, body, {
				headers: all,
				msgID: typeof options["msgID"] === "string" ? options["msgID"] : messageId,
				timeout: Number(this.#host.options.publishTimeout),
				...(options["expect"] !== undefined && { expect: options["expect"] as object }),
			});
			return true;
		} catch (error) {
			const { code, api_error } = error as { code?: string; api_error?: unknown };
			if (code === "503" && api_error === undefined) return false;
			const { err_code } = (api_error ?? {}) as { err_code?: number };
			if (code === "MAX_PAYLOAD_EXCEEDED" || err_code === MESSAGE_TOO_LARGE)
				throw tooLarge(channel, LIMITS, error);
			if (api_error !== undefined) {
				throw unavailable(`NATS did not take a message for '${channel}'`, error);
			}
			throw unconfirmed(`NATS did not confirm a message for '${channel}'`, error);
		}
	}

	/** Removes what every consumer has acknowledged, in streams that this adapter made. */
	async #trim(channel: string): Promise<void> {
		const stream = this.#streamOf(channel);
		const { config } = await this.#managing.streams.info(stream);
		if (config.description !== MARK) return;
		let oldest = Infinity;
		for await (const { ack_floor } of this.#managing.consumers.list(stream)) {
			oldest = Math.min(oldest, ack_floor.stream_seq + 1);
		}
		if (oldest > 1 && oldest < Infinity) {
			await this.#managing.streams.purge(stream, { seq: oldest, filter: channel });
		}
	}

	async #watch(connection: NatsConnection): Promise<void> {
		const { Events } = this.#nats;
		for await (const { type } of connection.status()) {
			if (connection !== this.#connection) return;
			if (type === Events.Disconnect) {
				this.#up = false;
				this.#host.logger.warn("NATS is lost; connecting again");
			} else if (type === Events.Reconnect) {
				this.#up = true;
				this.#declared.forget();
				this.#host.logger.info("NATS is connected again");
				for (const consumer of this.#consumers) consumer.reconnected();
			} else {
				this.#host.logger.debug(`NATS: ${String(type)}`);
			}
		}
	}

	get #nats(): Library {
		if (!this.#library) throw unavailable("NATS is not connected");
		return this.#library;
	}

	get #managing(): JetStreamManager {
		if (!this.#manager) throw unavailable("NATS is not connected");
		return this.#manager;
	}
}

/** Names of streams and consumers have no dots: two channels may have the same. */
function streamOf(channel: string): string {
	return channel.replaceAll(".", "_");
}

/** The stock adapter's push consumer has the name without the ending. */
function durableOf(group: string): string {
	return `${group.replaceAll(".", "_")}-pull`;
}

export function isMissing(error: unknown): boolean {
	return (error as { code?: unknown }).code === "404" || /not found/i.test(messageOf(error));
}
