import type { Admin, ConsumerConfig, Kafka, KafkaConfig, Message, ProducerConfig } from "kafkajs";

import { messageOf } from "../../../protocol/index.ts";
import type {
	Consumer,
	DeadLetterQueue,
	Driver,
	DriverHost,
	Outgoing,
	Subscription,
} from "../driver.ts";
import { load, unavailable } from "../failures.ts";
import { Once, within } from "../waiting.ts";
import { KafkaConsumer } from "./consumer.ts";
import { isUnknownTopic, KafkaSender } from "./sender.ts";

/** The server takes 1 MiB and a little, headers included. */
const MAX_BYTES = 1_000_000;
const TOPIC = /^[A-Za-z0-9._-]{1,249}$/;
const CONNECT_MS = 3_000;
const REQUEST_MS = 10_000;
const END_MS = 5_000;
const PARTITIONS = 8;
const SERVERS_CHOICE = -1;
const RETRY = { retries: 5, initialRetryTime: 100, maxRetryTime: 1_000 };

/** The adapter's options that are Kafka's. */
export interface KafkaSettings {
	readonly kafka?: Partial<KafkaConfig> & {
		readonly url?: string;
		readonly producerOptions?: ProducerConfig;
		readonly consumerOptions?: Partial<ConsumerConfig>;
		readonly topicOptions?: {
			readonly numPartitions?: number;
			readonly replicationFactor?: number;
		};
	};
}

/** Kafka: a topic for each channel, a consumer group for each group and channel. */
export class KafkaDriver implements Driver {
	readonly maxBytes = MAX_BYTES;
	readonly #host: DriverHost;
	readonly #settings: NonNullable<KafkaSettings["kafka"]>;
	readonly #topics = new Once();
	#kafka: Kafka | undefined;
	#sender: KafkaSender | undefined;
	#admin: Promise<Admin> | undefined;

	constructor(host: DriverHost) {
		this.#host = host;
		this.#settings = (host.options as KafkaSettings).kafka ?? {};
	}

	get connected(): boolean {
		return this.#sender?.connected ?? false;
	}

	nameProblem(channel: string): string | undefined {
		return TOPIC.test(channel)
			? undefined
			: `and Kafka takes as a topic's name up to 249 letters, digits, dots, underscores and hyphens only`;
	}

	async open(): Promise<void> {
		const { Kafka, Partitioners, logLevel } = await load("kafkajs", () => import("kafkajs"));
		const { producerOptions } = this.#settings;
		const { logger, consumerName } = this.#host;
		const kafka = new Kafka({
			brokers: ["localhost:9092"],
			clientId: consumerName,
			connectionTimeout: CONNECT_MS,
			requestTimeout: REQUEST_MS,
			retry: RETRY,
			...this.#settings,
			// Its own levels are too loud: it calls an error what it then mends.
			logLevel: logLevel.WARN,
			logCreator:
				() =>
				({ namespace, log }) => {
					logger.debug(`kafkajs ${namespace}: ${log.message}`);
				},
		});
		const sender = new KafkaSender(
			kafka,
			this.#host,
			{ createPartitioner: Partitioners.DefaultPartitioner, ...producerOptions },
			(topic) => {
				this.#topics.forget(topic);
				return this.makeTopic(topic);
			},
		);
		await sender.open();
		this.#kafka = kafka;
		this.#sender = sender;
	}

	async close(): Promise<void> {
		const sender = this.#sender;
		const admin = this.#admin;
		this.#kafka = this.#sender = this.#admin = undefined;
		this.#topics.forget();
		const ended = Promise.all([sender?.close(), admin?.then((client) => client.disconnect())]);
		const late = () => new Error("Kafka does not answer the end");
		await within(END_MS, ended, late).catch((error: unknown) => {
			this.#host.logger.debug(`Kafka: ${messageOf(error)}`);
		});
	}

	declare(channel: string, _group: string): Promise<void> {
		return this.makeTopic(channel);
	}

	async send({ channel, body, headers, options }: Outgoing): Promise<void> {
		const sender = this.#sender;
		if (!sender) throw unavailable("Kafka is not connected");
		try {
			await this.makeTopic(channel);
		} catch (error) {
			throw unavailable(`The topic '${channel}' can't be made`, error);
		}
		const { key, partition } = options;
		const record: Message = {
			value: body,
			headers: textual(headers),
			...(key !== undefined && { key }),
			...(typeof partition === "number" && { partition }),
		};
		await sender.send(channel, record, Number(this.#host.options.publishTimeout));
	}

	async deadLetter(message: Outgoing, _to: DeadLetterQueue): Promise<void> {
		await this.send(message);
	}

	async consume(subscription: Subscription): Promise<Consumer> {
		const kafka = this.#kafka;
		if (!kafka) throw unavailable("Kafka is not connected");
		const { channel } = subscription;
		const consumer = new KafkaConsumer(subscription, this.#host, {
			kafka,
			options: {
				...this.#settings.consumerOptions,
				...(channel["kafka"] as Partial<ConsumerConfig> | undefined),
			},
			makeTopic: (topic) => {
				this.#topics.forget(topic);
				return this.makeTopic(topic);
			},
		});
		await consumer.start();
		return consumer;
	}

	async backlog(channel: string, group: string): Promise<number | undefined> {
		try {
			return await this.#administer(async (admin) => {
				const [ends, [committed]] = await Promise.all([
					admin.fetchTopicOffsets(channel),
					admin.fetchOffsets({ groupId: groupOf(channel, group), topics: [channel] }),
				]);
				return ends.reduce((sum, { partition, high, low }) => {
					const at = committed?.partitions.find((one) => one.partition === partition);
					const offset = Number(at?.offset ?? -1);
					// A position that is not in the topic is one before it, or was left by a former one.
					const known = offset >= Number(low) && offset <= Number(high);
					return sum + Number(high) - (known ? offset : Number(low));
				}, 0);
			});
		} catch (error) {
			if (isUnknownTopic(error)) return 0;
			throw error;
		}
	}

	/** Makes a topic, unless it is there. */
	makeTopic(topic: string): Promise<void> {
		return this.#topics.run(topic, async () => {
			const { numPartitions = PARTITIONS, replicationFactor = SERVERS_CHOICE } =
				this.#settings.topicOptions ?? {};
			await this.#administer((admin) =>
				admin.createTopics({
					topics: [{ topic, numPartitions, replicationFactor }],
					waitForLeaders: true,
				}),
			);
		});
	}

	/**
	 * Asks over the connection that is kept for it. It is given up after a failure: it remembers each
	 * topic that it was asked about, and fails for all of them once one of them is gone.
	 */
	async #administer<T>(act: (admin: Admin) => Promise<T>): Promise<T> {
		for (;;) {
			const kept = this.#admin;
			const asked = (this.#admin ??= this.#connectAdmin());
			try {
				return await act(await asked);
			} catch (error) {
				if (this.#admin === asked) this.#admin = undefined;
				void asked.then((admin) => admin.disconnect()).catch(() => undefined);
				if (!kept) throw error;
			}
		}
	}

	async #connectAdmin(): Promise<Admin> {
		if (!this.#kafka) throw unavailable("Kafka is not connected");
		const admin = this.#kafka.admin({ retry: RETRY });
		// The library would ask again and again over the same dead connection.
		admin.on(admin.events.REQUEST_TIMEOUT, () => {
			this.#admin = undefined;
			void admin.disconnect().catch(() => undefined);
		});
		await admin.connect();
		return admin;
	}
}

/** The stock adapter's name for it. */
export function groupOf(channel: string, group: string): string {
	return `${group}:${channel}`;
}

function textual(headers: Readonly<Record<string, unknown>>): Record<string, Buffer | string> {
	return Object.fromEntries(
		Object.entries(headers).map(([name, value]) => [
			name,
			Buffer.isBuffer(value) ? value : String(value),
		]),
	);
}
