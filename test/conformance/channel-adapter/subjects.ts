import { connect as connectSocket } from "node:net";

import channels from "@moleculer/channels";
import amqplib from "amqplib";
import { Redis } from "ioredis";
import kafkajs from "kafkajs";
import { connect as connectNats } from "nats";

import type { ChannelAdapter, ChannelOptions } from "../../../adapters/channels/index.ts";
import { kafka } from "../../../scripts/servers/kafka.ts";
import type { ServerKind } from "../../../scripts/servers/kind.ts";
import { nats } from "../../../scripts/servers/nats.ts";
import { rabbitmq } from "../../../scripts/servers/rabbitmq.ts";
import { redis } from "../../../scripts/servers/redis.ts";

/** An adapter under test, and what the suite has to know of its broker. */
export interface Subject {
	readonly name: string;
	readonly kind: ServerKind;
	/** Options that make it notice soon that a consumer is gone. */
	readonly hasty: ChannelOptions;
	/** Whether it removes what is handled. */
	readonly trims: boolean;
	/** Whether its backlog tells what consumers of other connections hold. */
	readonly tellsOthers: boolean;
	/** Options that lead over a proxy's port, where the URL alone can't. */
	over?(port: number): ChannelOptions;
	/** The adapter of `@moleculer/channels` itself. */
	stock(url: string): ChannelAdapter;
	/** Makes what the stock adapter's consumer does not make itself. */
	ready?(url: string, channel: string): Promise<void>;
	/** Removes a channel's stream, or queue and exchange, or topic, or what was put in its place. */
	remove(url: string, channel: string, group: string): Promise<void>;
	/** Puts something in the channel's place, so that the server refuses it until that is removed. */
	spoil(url: string, channel: string, group: string): Promise<void>;
	/** Makes the channel with a limit of its own for messages, where the broker has such. */
	limit?(url: string, channel: string, bytes: number): Promise<void>;
	/** Reads the oldest message of a channel with the broker's own client. */
	first(
		url: string,
		channel: string,
	): Promise<{ body: Buffer; headers: Record<string, unknown> }>;
	/** @returns how many messages the broker stores for a channel */
	stored(url: string, channel: string): Promise<number>;
}

type Stock = Record<"Redis" | "AMQP" | "Kafka" | "NATS", new (options: object) => ChannelAdapter>;
const { Redis: StockRedis, AMQP, Kafka, NATS } = channels.Adapters as unknown as Stock;

async function withRedis<T>(url: string, act: (client: Redis) => Promise<T>): Promise<T> {
	const client = new Redis(url);
	try {
		return await act(client);
	} finally {
		client.disconnect();
	}
}

const redisSubject: Subject = {
	name: "Redis",
	kind: redis,
	hasty: { redis: { consumerOptions: { minIdleTime: 1_000, claimInterval: 200 } } },
	tellsOthers: true,
	trims: true,
	stock: (url) => new StockRedis({ redis: { url } }),
	remove: (url, channel) => withRedis(url, async (client) => void (await client.del(channel))),
	spoil: (url, channel) =>
		withRedis(url, async (client) => void (await client.set(channel, "no stream"))),
	first: (url, channel) =>
		withRedis(url, async (client) => {
			const [entry] = await client.xrangeBuffer(channel, "-", "+", "COUNT", 1);
			const [, fields = []] = entry ?? [];
			const [, body = Buffer.alloc(0), , headers = Buffer.from("{}")] = fields;
			return { body, headers: JSON.parse(headers.toString()) as Record<string, unknown> };
		}),
	stored: (url, channel) => withRedis(url, (client) => client.xlen(channel)),
};

async function withAmqp<T>(
	url: string,
	act: (channel: Awaited<ReturnType<amqplib.ChannelModel["createChannel"]>>) => Promise<T>,
): Promise<T> {
	const connection = await amqplib.connect(url);
	try {
		return await act(await connection.createChannel());
	} finally {
		await connection.close();
	}
}

const amqpSubject: Subject = {
	name: "RabbitMQ",
	kind: rabbitmq,
	hasty: {},
	tellsOthers: false,
	trims: false,
	stock: (url) => new AMQP({ amqp: { url } }),
	remove: (url, channel, group) =>
		withAmqp(url, async (client) => {
			await client.deleteExchange(channel);
			await client.deleteQueue(`${group}.${channel}`);
		}),
	spoil: (url, channel, group) =>
		withAmqp(url, async (client) => {
			await client.assertQueue(`${group}.${channel}`, { maxLength: 5 });
		}),
	first: (url, channel) =>
		withAmqp(url, async (client) => {
			const message = await client.get(channel, { noAck: true });
			if (!message) throw new Error(`${channel} is empty`);
			return { body: message.content, headers: message.properties.headers ?? {} };
		}),
	stored: (url, channel) =>
		withAmqp(url, async (client) => (await client.checkQueue(channel)).messageCount),
};

function kafkaOf(url: string): kafkajs.Kafka {
	return new kafkajs.Kafka({
		brokers: [new URL(url).host],
		logLevel: kafkajs.logLevel.NOTHING,
		retry: { retries: 3 },
	});
}

async function withAdmin<T>(url: string, act: (admin: kafkajs.Admin) => Promise<T>): Promise<T> {
	const admin = kafkaOf(url).admin();
	await admin.connect();
	try {
		return await act(admin);
	} finally {
		await admin.disconnect();
	}
}

/** Kafka takes only one of two topics that differ in dots and underscores. */
const colliding = (channel: string) => channel.replaceAll(".", "_");

const kafkaSubject: Subject = {
	name: "Kafka",
	kind: kafka,
	hasty: { kafka: { consumerOptions: { sessionTimeout: 2_000, heartbeatInterval: 300 } } },
	tellsOthers: true,
	trims: false,
	stock: (url) =>
		new Kafka({ kafka: { brokers: [new URL(url).host], logCreator: () => () => undefined } }),
	ready: (url, channel) =>
		withAdmin(url, async (admin) => {
			await admin.createTopics({ topics: [{ topic: channel }], waitForLeaders: true });
		}),
	over: (port) => ({
		kafka: {
			// The server tells its own address; every connection is led over the proxy all the same.
			socketFactory: ({ onConnect }: { onConnect: () => void }) =>
				connectSocket({ host: "127.0.0.1", port }, onConnect),
		},
	}),
	remove: (url, channel) =>
		withAdmin(url, async (admin) => {
			const there = await admin.listTopics();
			const topics = [channel, colliding(channel)].filter((one) => there.includes(one));
			await admin.deleteTopics({ topics, timeout: 5_000 });
		}),
	spoil: (url, channel) =>
		withAdmin(url, async (admin) => {
			await admin.createTopics({ topics: [{ topic: colliding(channel) }] });
		}),
	limit: (url, channel, bytes) =>
		withAdmin(url, async (admin) => {
			const configEntries = [{ name: "max.message.bytes", value: String(bytes) }];
			await admin.createTopics({ topics: [{ topic: channel, configEntries }] });
		}),
	async first(url, channel) {
		const groupId = `look-${process.pid}-${Date.now()}`;
		const client = kafkaOf(url).consumer({ groupId, maxWaitTimeInMs: 100 });
		await client.connect();
		await client.subscribe({ topic: channel, fromBeginning: true });
		const message = await new Promise<kafkajs.KafkaMessage>((resolve, reject) => {
			client.run({ eachMessage: async (payload) => resolve(payload.message) }).catch(reject);
		});
		await client.disconnect();
		return { body: message.value ?? Buffer.alloc(0), headers: message.headers ?? {} };
	},
	stored: (url, channel) =>
		withAdmin(url, async (admin) => {
			const offsets = await admin.fetchTopicOffsets(channel);
			return offsets.reduce((sum, { high, low }) => sum + Number(high) - Number(low), 0);
		}),
};

async function withNats<T>(
	url: string,
	act: (manager: Awaited<ReturnType<NatsClient["jetstreamManager"]>>) => Promise<T>,
): Promise<T> {
	const connection = await connectNats({ servers: new URL(url).host });
	try {
		return await act(await connection.jetstreamManager());
	} finally {
		await connection.close();
	}
}
type NatsClient = Awaited<ReturnType<typeof connectNats>>;
const streamOf = (channel: string) => channel.replaceAll(".", "_");

const natsSubject: Subject = {
	name: "NATS",
	kind: nats,
	hasty: { nats: { consumerOptions: { config: { ack_wait: 1e9 } } } },
	tellsOthers: true,
	trims: true,
	stock: (url) => new NATS({ nats: { connectionOptions: { servers: new URL(url).host } } }),
	remove: (url, channel) =>
		withNats(url, async (manager) => void (await manager.streams.delete(streamOf(channel)))),
	spoil: (url, channel) =>
		withNats(url, async (manager) => {
			const name = streamOf(channel);
			await manager.streams.add({ name, subjects: [`other.${channel}`] });
		}),
	limit: (url, channel, bytes) =>
		withNats(url, async (manager) => {
			const name = streamOf(channel);
			await manager.streams.add({ name, subjects: [channel], max_msg_size: bytes });
		}),
	first: (url, channel) =>
		withNats(url, async (manager) => {
			const message = await manager.streams.getMessage(streamOf(channel), { seq: 1 });
			const headers = Object.fromEntries(
				[...message.header].map(([name, [value]]) => [name, value]),
			);
			return { body: Buffer.from(message.data), headers };
		}),
	stored: (url, channel) =>
		withNats(
			url,
			async (manager) => (await manager.streams.info(streamOf(channel))).state.messages,
		),
};

export const SUBJECTS: readonly Subject[] = [redisSubject, amqpSubject, kafkaSubject, natsSubject];
