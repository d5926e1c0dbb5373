import { messageOf } from "../../../protocol/index.ts";
import type {
	Consumer,
	DeadLetterQueue,
	Driver,
	DriverHost,
	Outgoing,
	Subscription,
} from "../driver.ts";
import { unavailable, unconfirmed } from "../failures.ts";
import { Once, within } from "../waiting.ts";
import { type Client, connectRedis, type RedisConnection } from "./client.ts";
import { RedisConsumer } from "./consumer.ts";
import { BACKLOG } from "./scripts.ts";

/** Redis takes 512 MiB; so much is never sensible in a stream. */
const MAX_BYTES = 64 * 1_024 * 1_024;

/** Redis Streams: one stream for each channel, one consumer group in it for each group. */
export class RedisDriver implements Driver {
	readonly maxBytes = MAX_BYTES;
	readonly #host: DriverHost;
	readonly #settings: RedisConnection;
	readonly #declared = new Once();
	#client: Client | undefined;

	constructor(host: DriverHost) {
		this.#host = host;
		this.#settings = host.options["redis"] as RedisConnection;
	}

	get connected(): boolean {
		return this.#client?.status === "ready";
	}

	async open(): Promise<void> {
		this.#client = await this.#connect("commands");
		await this.#warnOfLoss(this.#client);
	}

	async close(): Promise<void> {
		this.#declared.forget();
		this.#client?.disconnect();
		this.#client = undefined;
	}

	declare(channel: string, group: string): Promise<void> {
		return this.#declared.run(`${channel}\n${group}`, () =>
			makeGroup(this.#ready, channel, group, "0"),
		);
	}

	async send({ channel, body, headers, options }: Outgoing): Promise<void> {
		const client = this.#ready;
		const args: (string | Buffer)[] = [...limitOf(options["xaddMaxLen"]), "*", "payload", body];
		if (Object.keys(headers).length > 0) args.push("headers", this.#host.serialize(headers));
		const added = client.call("XADD", channel, ...args).catch((error: unknown) => {
			throw surelyNotDone(error)
				? unavailable(`Redis did not take a message for '${channel}'`, error)
				: unconfirmed(`Redis did not confirm a message for '${channel}'`, error);
		});
		await within(Number(this.#host.options.publishTimeout), added, () => {
			// Nothing else tells that the way to the server is half open.
			client.disconnect(true);
			return unconfirmed(`Redis did not confirm a message for '${channel}' in time`);
		});
	}

	deadLetter(message: Outgoing, _to: DeadLetterQueue): Promise<void> {
		return this.send(message);
	}

	async consume(subscription: Subscription): Promise<Consumer> {
		const { channel } = subscription;
		const consumer = new RedisConsumer(subscription, this.#host, this.#ready, {
			...this.#settings.consumerOptions,
			...(channel["redis"] as object | undefined),
		});
		await consumer.start(await this.#connect(channel.id));
		return consumer;
	}

	async backlog(channel: string, group: string): Promise<number | undefined> {
		return Number(await this.#ready.eval(BACKLOG, 1, channel, group));
	}

	get #ready(): Client {
		if (!this.#client) throw unavailable("Redis is not connected");
		return this.#client;
	}

	#connect(name: string): Promise<Client> {
		return connectRedis(this.#settings, (error) => {
			this.#host.logger.debug(`Redis connection '${name}': ${messageOf(error)}`);
		});
	}

	/** What the server does with data is the operator's choice; channels depend on it. */
	async #warnOfLoss(client: Client): Promise<void> {
		try {
			const answer = (await client.call("CONFIG", "GET", "appendonly")) as string[];
			if (answer[1] === "no") {
				this.#host.logger.warn(
					"Redis keeps no append-only file: a crash of the server loses messages",
				);
			}
		} catch (error) {
			this.#host.logger.debug(`Redis does not show its settings: ${messageOf(error)}`);
		}
	}
}

/** Makes a stream and a group in it, unless they are there. */
export async function makeGroup(
	client: Client,
	channel: string,
	group: string,
	from: string,
): Promise<void> {
	try {
		await client.xgroup("CREATE", channel, group, from, "MKSTREAM");
	} catch (error) {
		if (!messageOf(error).includes("BUSYGROUP")) throw error;
	}
}

function limitOf(wanted: unknown): string[] {
	if (typeof wanted !== "number" && typeof wanted !== "string") return [];
	const limit = String(wanted);
	return limit.startsWith("~") ? ["MAXLEN", "~", limit.slice(1)] : ["MAXLEN", limit];
}

/** Whether the server answered with a refusal, or was never asked. */
function surelyNotDone(error: unknown): boolean {
	const { name, message } = error as Error;
	return name === "ReplyError" || message.includes("enableOfflineQueue");
}
