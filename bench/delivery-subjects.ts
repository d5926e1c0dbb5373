import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import channels from "@moleculer/channels";
import kafkajs from "kafkajs";
import knex from "knex";
import { ServiceBroker, type ServiceSchema } from "moleculer";

import type { KnexTx } from "../adapters/participant-store/knex/transaction.ts";
import { LoopbackTcp } from "../adapters/transporter/loopback-tcp.ts";
import { defineMessages, ReliableMessage, reliableOf } from "../mixins/reliable-message/index.ts";
import { Coordinator } from "../services/coordinator/index.ts";

interface Sends {
	auth: { "grant-role": { user: string; role: string } };
}

/** One way from a producer's transaction to a consumer's row. */
export interface Subject {
	/** One transaction and its message; resolves when the caller may go on. */
	produce(): Promise<void>;
	/** @returns how many rows the consumer has written */
	consumed(): number;
	close(): Promise<void>;
}

const POOL = { min: 0, max: 24 };
const PAYLOAD = { user: "u".repeat(100), role: "admin" };
const LOOK_MS = 2;
/** As many as the hardened adapter makes. */
const PARTITIONS = 8;

let schemas = 0;

/** Produces `count` messages and waits until the consumer has written as many rows. */
export async function work(subject: Subject, count: number, concurrent: number): Promise<void> {
	const goal = subject.consumed() + count;
	let left = count;
	const producer = async () => {
		while (left-- > 0) await subject.produce();
	};
	await Promise.all(Array.from({ length: concurrent }, producer));
	while (subject.consumed() < goal) await new Promise((next) => setTimeout(next, LOOK_MS));
}

/** Two databases, as two services have them: a schema each, with one table. */
async function databases(postgres: string) {
	const make = async (table: string) => {
		const schema = `bench_${process.pid}_${++schemas}`;
		const database = knex({
			client: "pg",
			connection: postgres,
			pool: POOL,
			searchPath: [schema],
		});
		await database.raw("CREATE SCHEMA ??", [schema]);
		await database.schema.createTable(table, (columns) => {
			columns.text("user");
			columns.text("role");
		});
		const drop = async () => {
			await database.raw("DROP SCHEMA ?? CASCADE", [schema]);
			await database.destroy();
		};
		return { database, drop };
	};
	const [users, roles] = await Promise.all([make("users"), make("roles")]);
	return {
		users: users.database,
		roles: roles.database,
		drop: async () => {
			await users.drop();
			await roles.drop();
		},
	};
}

/** The stock adapter, with the settings that it needs to keep a burst at all. */
export async function plainOver(url: string, postgres: string): Promise<Subject> {
	const { users, roles, drop } = await databases(postgres);
	let rows = 0;
	const namespace = `bench-${process.pid}-${Date.now()}`;
	if (url.startsWith("kafka:")) await makeTopic(url, `${namespace}.grant-role`);
	const broker = new ServiceBroker({
		nodeID: "plain",
		namespace,
		logger: false,
		middlewares: [channels.Middleware({ adapter: stock(url) } as never)],
	}) as ServiceBroker & { sendToChannel(channel: string, payload: unknown): Promise<void> };
	broker.createService({
		name: "auth",
		channels: {
			"grant-role": {
				maxInFlight: 16,
				kafka: { fromBeginning: true, partitionsConsumedConcurrently: PARTITIONS },
				async handler({ user, role }: Sends["auth"]["grant-role"]) {
					await roles("roles").insert({ user, role });
					rows++;
				},
			},
		},
	} as ServiceSchema);
	await broker.start();
	return {
		async produce() {
			await users.transaction((trx) => trx("users").insert(PAYLOAD));
			await broker.sendToChannel("grant-role", PAYLOAD);
		},
		consumed: () => rows,
		async close() {
			await broker.stop();
			await drop();
		},
	};
}

/** The stock adapter can't subscribe to a topic that is not there. */
async function makeTopic(url: string, topic: string): Promise<void> {
	const admin = new kafkajs.Kafka({
		brokers: [new URL(url).host],
		logCreator: () => () => undefined,
	}).admin();
	await admin.connect();
	await admin.createTopics({
		topics: [{ topic, numPartitions: PARTITIONS }],
		waitForLeaders: true,
	});
	await admin.disconnect();
}

function stock(url: string): object {
	const scheme = /^\w+/.exec(url)?.[0];
	const common = { maxInFlight: 16 };
	switch (scheme) {
		case "amqp":
			return {
				type: "AMQP",
				options: { ...common, amqp: { url, messageOptions: { persistent: true } } },
			};
		case "kafka":
			return {
				type: "Kafka",
				options: {
					...common,
					kafka: {
						brokers: [new URL(url).host],
						logCreator: () => () => undefined,
					},
				},
			};
		case "nats":
			return {
				type: "NATS",
				options: { ...common, nats: { connectionOptions: { servers: new URL(url).host } } },
			};
		default:
			return { type: "Redis", options: { ...common, redis: { url } } };
	}
}

/**
 * Lottor over the broker: both services with their inbox and outcomes in their own database.
 *
 * @param apart whether the coordinator has a process of its own, as a broker has
 */
export async function lottorOver(
	url: string,
	postgres: string,
	folder: string,
	apart = false,
): Promise<Subject> {
	const { users, roles, drop } = await databases(postgres);
	let rows = 0;
	const namespace = `bench-${process.pid}-${Date.now()}-l`;
	const place = { store: `sqlite:${join(folder, `lottor-${Date.now()}.db`)}`, delivery: url };
	const coordinator = apart ? await coordinatorApart(namespace, place) : undefined;
	const broker = new ServiceBroker({
		nodeID: "lottor",
		namespace,
		logger: false,
		...(coordinator && { transporter: coordinator.transporter }),
	});
	if (!coordinator) broker.createService(coordinatorOf(place));
	const user = broker.createService({
		name: "user",
		mixins: [ReliableMessage({ store: users, delivery: url })],
	});
	broker.createService({
		name: "auth",
		mixins: [ReliableMessage({ store: roles, delivery: url, concurrency: 16 })],
		messages: defineMessages<Sends["auth"], KnexTx>({
			async "grant-role"(ctx, { trx }) {
				await trx("roles").insert(ctx.params);
				rows++;
			},
		}),
	} as ServiceSchema);
	await broker.start();
	await broker.waitForServices("lottor");
	const reliable = reliableOf<Sends, KnexTx>(user);
	const messages = [{ target: "auth", type: "grant-role", payload: PAYLOAD }] as const;
	return {
		async produce() {
			await reliable.transaction(null, messages, ({ trx }) => trx("users").insert(PAYLOAD));
		},
		consumed: () => rows,
		async close() {
			await broker.stop();
			await coordinator?.stop();
			await drop();
		},
	};
}

/** Where a coordinator keeps its groups, and what it delivers over. */
export interface CoordinatorPlace {
	readonly store: string;
	readonly delivery: string;
}

export function coordinatorOf(place: CoordinatorPlace): ServiceSchema {
	return Coordinator({ ...place, maxInFlight: 10_000 });
}

/** Starts `bench/delivery-coordinator.ts`, which finds this process by Moleculer's TCP transporter. */
async function coordinatorApart(namespace: string, place: CoordinatorPlace) {
	const program = fileURLToPath(new URL("./delivery-coordinator.ts", import.meta.url));
	const child = fork(program, [namespace, JSON.stringify(place)]);
	const [port] = (await once(child, "message")) as [number];
	return {
		transporter: new LoopbackTcp({ urls: `tcp://127.0.0.1:${port}/coordinator` }),
		async stop() {
			const ended = once(child, "exit");
			child.send("stop");
			await ended;
		},
	};
}
