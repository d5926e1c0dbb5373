import type {
	Consumer as KafkaClient,
	ConsumerConfig,
	EachBatchPayload,
	Kafka,
	KafkaMessage,
} from "kafkajs";

import { messageOf } from "../../../protocol/index.ts";
import type { Consumer, DriverHost, Incoming, Subscription } from "../driver.ts";
import { pause, persist, within } from "../waiting.ts";
import { groupOf } from "./driver.ts";
import { PartitionLog, type RecordId } from "./partition-log.ts";

/** After so long without a sign of life the server gives a consumer's partitions to others. */
const SESSION_MS = 10_000;
const HEARTBEAT_MS = 1_000;
/** How long the server may keep a fetch open; an end waits for it. */
const FETCH_MS = 1_000;
const COMMIT_AGAIN_MS = 200;
const LAST_COMMIT_MS = 5_000;
const RETRY = { retries: 3, initialRetryTime: 100, maxRetryTime: 1_000 };
/** The stock adapter addresses a retry so to one group. */
const GROUP_HEADER = "x-group";

interface Means {
	readonly kafka: Kafka;
	readonly options: Partial<ConsumerConfig>;
	makeTopic(topic: string): Promise<void>;
}

/** Handles records of a partition side by side, and commits the finished beginning of each (R33). */
export class KafkaConsumer implements Consumer {
	readonly #subscription: Subscription;
	readonly #host: DriverHost;
	readonly #means: Means;
	readonly #logs = new Map<number, PartitionLog>();
	readonly #committed = new Map<number, bigint>();
	readonly #closing = new AbortController();
	#client: KafkaClient | undefined;
	#dirty = false;
	#committing: Promise<void> | undefined;
	/** A start after a crash; an end must not overtake it. */
	#beginning: Promise<unknown> = Promise.resolve();

	constructor(subscription: Subscription, host: DriverHost, means: Means) {
		this.#subscription = subscription;
		this.#host = host;
		this.#means = means;
	}

	async start(): Promise<void> {
		const { name, group } = this.#subscription.channel;
		await this.#means.makeTopic(name);
		const { kafka, options } = this.#means;
		const { fromBeginning = true, ...config } = options as { fromBeginning?: boolean };
		const client = kafka.consumer({
			sessionTimeout: SESSION_MS,
			heartbeatInterval: HEARTBEAT_MS,
			maxWaitTimeInMs: FETCH_MS,
			...config,
			groupId: groupOf(name, group),
			allowAutoTopicCreation: false,
			// It would restart itself only after some errors, and without the topic.
			retry: { ...RETRY, restartOnFailure: () => Promise.resolve(false) },
		});
		try {
			await client.connect();
			await client.subscribe({ topic: name, fromBeginning });
			client.on(client.events.GROUP_JOIN, () => {
				for (const log of this.#logs.values()) log.reassigned();
				this.#committed.clear();
			});
			client.on(client.events.CRASH, ({ payload }) => this.#crashed(client, payload.error));
			// The library would ask again and again over the same dead connection.
			client.on(client.events.REQUEST_TIMEOUT, () =>
				this.#crashed(client, new Error("No answer")),
			);
			this.#client = client;
			await client.run({
				autoCommit: false,
				eachBatchAutoResolve: false,
				eachBatch: (payload) => this.#batch(client, payload),
			});
		} catch (error) {
			this.#client = undefined;
			void client.disconnect().catch(() => undefined);
			throw error;
		}
	}

	async pause(): Promise<void> {
		this.#client?.pause([{ topic: this.#name }]);
	}

	async close(): Promise<void> {
		await this.#beginning;
		const late = () => new Error("Kafka takes no last commit");
		await within(LAST_COMMIT_MS, this.#commit(), late).catch(() => undefined);
		this.#closing.abort();
		const client = this.#client;
		this.#client = undefined;
		await client?.disconnect();
	}

	get #name(): string {
		return this.#subscription.channel.name;
	}

	#crashed(client: KafkaClient, error: Error): void {
		if (this.#client !== client) return;
		this.#client = undefined;
		void client.disconnect().catch(() => undefined);
		const { ending } = this.#subscription;
		if (ending.aborted) return;
		this.#host.logger.warn(`The consumer of '${this.#name}' begins anew: ${messageOf(error)}`);
		this.#beginning = persist(
			ending,
			() => this.start(),
			(again) => {
				this.#host.logger.debug(`${this.#name}: ${messageOf(again)}`);
			},
		);
	}

	async #batch(client: KafkaClient, payload: EachBatchPayload): Promise<void> {
		const { batch } = payload;
		const { flow, ending } = this.#subscription;
		const log = this.#logs.get(batch.partition) ?? new PartitionLog();
		this.#logs.set(batch.partition, log);
		const over = () =>
			ending.aborted || this.#client !== client || !payload.isRunning() || payload.isStale();
		for (const message of batch.messages) {
			while (flow.room === 0 && !over()) {
				await flow.hasRoom(AbortSignal.any([ending, AbortSignal.timeout(HEARTBEAT_MS)]));
				await payload.heartbeat();
			}
			if (over()) return;
			const record = { offset: BigInt(message.offset), timestamp: message.timestamp };
			if (log.take(record, BigInt(batch.highWatermark)))
				this.#take(log, record, batch.partition, message);
			payload.resolveOffset(message.offset);
		}
		await payload.heartbeat();
	}

	#take(log: PartitionLog, record: RecordId, partition: number, message: KafkaMessage): void {
		const done = () => {
			log.finish(record);
			void this.#commit();
		};
		const headers = message.headers ?? {};
		const addressed = headers[GROUP_HEADER]?.toString();
		if (addressed !== undefined && addressed !== this.#subscription.channel.group)
			return done();
		const incoming: Incoming = {
			id: `${partition}:${message.offset}`,
			again: false,
			repeated: log.mayRepeat(record.offset, this.#subscription.flow.limit),
			body: message.value ?? Buffer.alloc(0),
			headers: headers,
			raw: message,
			ack: done,
			// What is not committed is fetched again, by whoever has the partition then.
			release: () => undefined,
		};
		this.#subscription.take(incoming);
	}

	/** Commits until nothing is left to commit, one request at a time. */
	#commit(): Promise<void> {
		this.#dirty = true;
		return (this.#committing ??= this.#commitAll().finally(
			() => (this.#committing = undefined),
		));
	}

	async #commitAll(): Promise<void> {
		while (this.#dirty && !this.#closing.signal.aborted) {
			this.#dirty = false;
			const offsets = [...this.#logs].flatMap(([partition, log]) => {
				const offset = log.committable();
				if (offset === undefined || offset === this.#committed.get(partition)) return [];
				return [{ partition, log, offset }];
			});
			if (offsets.length === 0) return;
			try {
				if (!this.#client) throw new Error("The consumer is beginning anew");
				await this.#client.commitOffsets(
					offsets.map(({ partition, offset }) => ({
						topic: this.#name,
						partition,
						offset: String(offset),
					})),
				);
				for (const { partition, log, offset } of offsets) {
					log.committed(offset);
					this.#committed.set(partition, offset);
				}
			} catch (error) {
				this.#host.logger.debug(`${this.#name}: can't commit: ${messageOf(error)}`);
				this.#dirty = true;
				await pause(COMMIT_AGAIN_MS, this.#closing.signal);
			}
		}
	}
}
