import type { Kafka, Message, Producer, ProducerConfig } from "kafkajs";

import { messageOf } from "../../../protocol/index.ts";
import type { DriverHost } from "../driver.ts";
import { tooLarge, unavailable, unconfirmed } from "../failures.ts";
import { persist, within } from "../waiting.ts";

/** One request's share; the server's limit for a batch is a little more than 1 MiB. */
const BATCH_BYTES = 900_000;
const BATCH_RECORDS = 500;
/** Retries within one request: the same sequence numbers, so that nothing is stored twice. */
const RETRY = { retries: 4, initialRetryTime: 100, maxRetryTime: 1_000 };
const ALL_REPLICAS = -1;
const LIMITS = "max.message.bytes of the topic";
const TOO_LARGE = ["MESSAGE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"];

interface Queued {
	readonly record: Message;
	readonly size: number;
	readonly done: () => void;
	readonly failed: (error: Error) => void;
	/** Nobody waits for it any more. */
	given: boolean;
}

interface Topic {
	readonly queue: Queued[];
	busy: boolean;
}

/**
 * Sends records through one idempotent producer: while a request for a topic is under way, the next
 * ones gather. After any failure the producer is replaced: with its sequence numbers in doubt, the
 * server could take a new record for one that it has.
 */
export class KafkaSender {
	readonly #kafka: Kafka;
	readonly #host: DriverHost;
	readonly #options: ProducerConfig;
	readonly #makeTopic: (topic: string) => Promise<void>;
	readonly #topics = new Map<string, Topic>();
	readonly #closing = new AbortController();
	#producer: Producer | undefined;
	/** A replacement of the producer. */
	#opening: Promise<unknown> = Promise.resolve();

	constructor(
		kafka: Kafka,
		host: DriverHost,
		options: ProducerConfig,
		makeTopic: (topic: string) => Promise<void>,
	) {
		this.#kafka = kafka;
		this.#host = host;
		this.#options = options;
		this.#makeTopic = makeTopic;
	}

	get connected(): boolean {
		return this.#producer !== undefined;
	}

	async open(): Promise<void> {
		const producer = this.#kafka.producer({
			retry: RETRY,
			...this.#options,
			idempotent: true,
			maxInFlightRequests: 1,
			allowAutoTopicCreation: false,
		});
		try {
			await producer.connect();
		} catch (error) {
			void producer.disconnect().catch(() => undefined);
			throw error;
		}
		// The library would ask again and again over the same dead connection.
		producer.on(producer.events.REQUEST_TIMEOUT, () => this.#replace(producer));
		this.#producer = producer;
	}

	async close(): Promise<void> {
		this.#closing.abort();
		const producer = this.#producer;
		this.#producer = undefined;
		await producer?.disconnect();
	}

	/** Resolves when every replica in sync has the record. */
	async send(topic: string, record: Message, ms: number): Promise<void> {
		let queued: Queued | undefined;
		const sent = new Promise<void>((done, failed) => {
			const size = Buffer.byteLength(record.value ?? "") + 500;
			queued = { record, size, done, failed, given: false };
			const known = this.#topics.get(topic);
			const queue = known?.queue ?? [];
			queue.push(queued);
			if (!known) this.#topics.set(topic, { queue, busy: false });
		});
		setImmediate(() => void this.#flush(topic));
		await within(ms, sent, () => {
			if (queued?.given && this.#producer) this.#replace(this.#producer);
			if (queued?.given)
				return unconfirmed(`Kafka did not confirm a message for '${topic}' in time`);
			if (queued) this.#forget(topic, queued);
			return unavailable(`Kafka took no message for '${topic}' in time`);
		});
	}

	async #flush(name: string): Promise<void> {
		const topic = this.#topics.get(name);
		if (!topic || topic.busy) return;
		topic.busy = true;
		while (topic.queue.length > 0) await this.#request(name, nextBatch(topic.queue));
		this.#topics.delete(name);
	}

	async #request(topic: string, batch: readonly Queued[]): Promise<void> {
		const producer = this.#producer;
		if (!producer) {
			for (const { failed } of batch) failed(unavailable("Kafka can't be reached"));
			return;
		}
		for (const item of batch) item.given = true;
		const send = () =>
			producer.send({
				topic,
				acks: ALL_REPLICAS,
				messages: batch.map(({ record }) => record),
			});
		try {
			await send().catch(async (error: unknown) => {
				if (!isUnknownTopic(error)) throw error;
				await this.#makeTopic(topic);
				await send();
			});
			for (const { done } of batch) done();
		} catch (error) {
			const alone = batch.length === 1;
			// Nothing of a single record that was refused is in doubt.
			if (!alone || !isRefusal(error)) this.#replace(producer);
			if (!alone && isTooLarge(error)) {
				// One of them, or only all together.
				await this.#opening;
				for (const item of batch) await this.#request(topic, [item]);
				return;
			}
			const text = `for '${topic}'`;
			for (const { failed } of batch) {
				if (isTooLarge(error)) failed(tooLarge(topic, LIMITS, error));
				else if (isRefusal(error))
					failed(unavailable(`Kafka did not take a message ${text}`, error));
				else failed(unconfirmed(`Kafka did not confirm a message ${text}`, error));
			}
		}
	}

	#replace(former: Producer): void {
		if (this.#producer !== former) return;
		this.#producer = undefined;
		void former.disconnect().catch(() => undefined);
		this.#opening = persist(
			this.#closing.signal,
			() => this.open(),
			(error) => {
				this.#host.logger.debug(`Kafka: ${messageOf(error)}`);
			},
		);
	}

	#forget(topic: string, queued: Queued): void {
		const queue = this.#topics.get(topic)?.queue;
		const place = queue?.indexOf(queued) ?? -1;
		if (place >= 0) queue?.splice(place, 1);
	}
}

/** Takes as many as fit into one request. */
function nextBatch(queue: Queued[]): Queued[] {
	let bytes = 0;
	let count = 0;
	for (const { size } of queue) {
		if (count > 0 && (count >= BATCH_RECORDS || bytes + size > BATCH_BYTES)) break;
		bytes += size;
		count++;
	}
	return queue.splice(0, count);
}

function typesOf(error: unknown): string[] {
	const types: string[] = [];
	for (let at = error as { type?: unknown; cause?: unknown } | undefined; at;) {
		if (typeof at.type === "string") types.push(at.type);
		at = at.cause as typeof at;
	}
	return types;
}

export function isUnknownTopic(error: unknown): boolean {
	return typesOf(error).includes("UNKNOWN_TOPIC_OR_PARTITION");
}

function isTooLarge(error: unknown): boolean {
	return typesOf(error).some((type) => TOO_LARGE.includes(type));
}

/** Whether the server said that it stored nothing. */
function isRefusal(error: unknown): boolean {
	const refusals = [
		"UNKNOWN_TOPIC_OR_PARTITION",
		...TOO_LARGE,
		"INVALID_TOPIC_EXCEPTION",
		"TOPIC_AUTHORIZATION_FAILED",
		"NOT_ENOUGH_REPLICAS",
	];
	return typesOf(error).some((type) => refusals.includes(type));
}
