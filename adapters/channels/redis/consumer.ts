import { randomUUID } from "node:crypto";

import { messageOf } from "../../../protocol/index.ts";
import type { Consumer, DriverHost, Incoming, Subscription } from "../driver.ts";
import { every, pause, persist, within } from "../waiting.ts";
import type { Client, ConsumerOptions } from "./client.ts";
import { makeGroup } from "./driver.ts";
import { LEAVE, RENEW, TIDY } from "./scripts.ts";

const BLOCK_MS = 2_000;
/** Answers that take longer than the server may block come over a dead connection. */
const DEAF_MS = BLOCK_MS + 5_000;
const AGAIN_MS = 200;
/** A living consumer reads every two seconds. */
const SILENT_MS = 600_000;
/** Counts as idle for everybody. */
const LONG_IDLE_MS = 86_400_000;

type Entry = [id: Buffer, fields: Buffer[] | null];

/** One consumer in a stream's group; its name is new at each start, so that a former one's are seen as such. */
export class RedisConsumer implements Consumer {
	readonly #subscription: Subscription;
	readonly #host: DriverHost;
	/** For everything but reading, which blocks its connection. */
	readonly #client: Client;
	readonly #options: ConsumerOptions;
	readonly #name: string;
	readonly #held = new Set<string>();
	readonly #closing = new AbortController();
	#acks: { id: string; done: () => void; failed: (error: unknown) => void }[] = [];
	#reader: Client | undefined;
	#loops: Promise<unknown> = Promise.resolve();
	#beats: Promise<unknown> = Promise.resolve();

	constructor(
		subscription: Subscription,
		host: DriverHost,
		client: Client,
		options: Partial<ConsumerOptions>,
	) {
		this.#subscription = subscription;
		this.#host = host;
		this.#client = client;
		this.#options = { startID: "0", minIdleTime: 10_000, claimInterval: 1_000, ...options };
		this.#name = `${subscription.channel.id}:${randomUUID().slice(0, 8)}`;
	}

	async start(reader: Client): Promise<void> {
		this.#reader = reader;
		try {
			await this.#makeGroup();
		} catch (error) {
			reader.disconnect();
			throw error;
		}
		const { ending } = this.#subscription;
		const { claimInterval, minIdleTime } = this.#options;
		const trimInterval = Number(this.#host.options.trimInterval);
		const complain = (what: string) => (error: unknown) => {
			if (!ending.aborted)
				this.#host.logger.warn(`${this.#channel}: ${what}: ${messageOf(error)}`);
		};
		this.#loops = Promise.all([
			this.#read(reader),
			every(claimInterval, ending, () => this.#claim(), complain("can't claim")),
			trimInterval > 0 &&
				every(trimInterval, ending, () => this.#tidy(), complain("can't be trimmed")),
		]);
		const beat = Math.ceil(minIdleTime / 4);
		this.#beats = every(
			beat,
			this.#closing.signal,
			() => this.#renew(),
			complain("can't renew"),
		);
	}

	async pause(): Promise<void> {
		this.#reader?.disconnect();
		await this.#loops;
	}

	async close(): Promise<void> {
		this.#closing.abort();
		await this.#beats;
		await this.#client
			.eval(LEAVE, 1, this.#channel, this.#group, this.#name, LONG_IDLE_MS)
			.catch((error: unknown) => {
				this.#host.logger.debug(`${this.#channel}: ${messageOf(error)}`);
			});
	}

	get #channel(): string {
		return this.#subscription.channel.name;
	}

	get #group(): string {
		return this.#subscription.channel.group;
	}

	#makeGroup(): Promise<void> {
		return makeGroup(this.#client, this.#channel, this.#group, this.#options.startID);
	}

	async #read(reader: Client): Promise<void> {
		const { flow, ending } = this.#subscription;
		while (!ending.aborted) {
			await flow.hasRoom(ending);
			if (ending.aborted) return;
			try {
				const reply = (await within(
					DEAF_MS,
					reader.callBuffer(
						...(["XREADGROUP", "GROUP", this.#group, this.#name] as const),
						...["COUNT", flow.room, "BLOCK", BLOCK_MS],
						...["STREAMS", this.#channel, ">"],
					),
					() => {
						reader.disconnect(true);
						return new Error("Redis does not answer");
					},
				)) as [Buffer, Entry[]][] | null;
				this.#take(reply?.[0]?.[1] ?? [], false);
			} catch (error) {
				if (ending.aborted) return;
				await this.#mend(error);
			}
		}
	}

	/** A stream or a group that is gone is made again, from the start: everything in it is unread. */
	async #mend(error: unknown): Promise<void> {
		const text = messageOf(error);
		if (/NOGROUP|UNBLOCKED|no longer exists/.test(text)) {
			this.#host.logger.warn(`'${this.#channel}' or its group is gone and is made again`);
			await makeGroup(this.#client, this.#channel, this.#group, "0").catch(() => undefined);
		} else {
			this.#host.logger.debug(`${this.#channel}: ${text}`);
		}
		await pause(AGAIN_MS, this.#subscription.ending);
	}

	/** Takes over what consumers hold that have given no sign of life, and what was lost on its way here. */
	async #claim(): Promise<void> {
		const { flow } = this.#subscription;
		let cursor = "0-0";
		do {
			if (flow.room === 0) return;
			const [next, entries] = (await this.#client.callBuffer(
				...(["XAUTOCLAIM", this.#channel, this.#group, this.#name] as const),
				...[this.#options.minIdleTime, cursor, "COUNT", flow.room],
			)) as [Buffer, (Entry | null)[]];
			cursor = next.toString();
			this.#take(
				entries.filter((entry) => entry !== null),
				true,
			);
		} while (cursor !== "0-0");
	}

	async #renew(): Promise<void> {
		if (this.#held.size === 0) return;
		await this.#client.eval(RENEW, 1, this.#channel, this.#group, this.#name, ...this.#held);
	}

	async #tidy(): Promise<void> {
		await this.#client.eval(TIDY, 1, this.#channel, SILENT_MS);
	}

	/** @param repeated whether somebody else has had them */
	#take(entries: readonly Entry[], repeated: boolean): void {
		for (const [rawId, fields] of entries) {
			const id = rawId.toString();
			if (this.#held.has(id)) continue;
			if (this.#subscription.ending.aborted) return;
			this.#held.add(id);
			this.#subscription.take(this.#incoming(id, fields ?? [], repeated));
		}
	}

	#incoming(id: string, fields: readonly Buffer[], repeated: boolean): Incoming {
		const field = (name: string) => {
			const place = fields.findIndex(
				(item, index) => index % 2 === 0 && item.equals(Buffer.from(name)),
			);
			return place < 0 ? undefined : fields[place + 1];
		};
		const headers = this.#headers(field("headers"));
		const body = field("payload") ?? Buffer.alloc(0);
		const raw = headers ? { id, headers } : { id };
		Object.defineProperty(raw, "payload", {
			enumerable: true,
			get: () => this.#host.deserialize(body),
		});
		return {
			id,
			again: false,
			repeated,
			body,
			headers: headers ?? {},
			raw,
			ack: () => this.#ack(id),
			release: () => {
				this.#held.delete(id);
			},
		};
	}

	#headers(field: Buffer | undefined): Record<string, unknown> | undefined {
		if (!field) return undefined;
		try {
			return this.#host.deserialize(field) as Record<string, unknown>;
		} catch {
			return undefined;
		}
	}

	/** Acknowledges together what is done in one turn of the loop, and again until Redis has it. */
	#ack(id: string): Promise<void> {
		return new Promise((done, failed) => {
			this.#acks.push({ id, done, failed });
			if (this.#acks.length === 1) setImmediate(() => void this.#flush());
		});
	}

	async #flush(): Promise<void> {
		const acks = this.#acks;
		this.#acks = [];
		const ids = acks.map(({ id }) => id);
		const sent = await persist(
			this.#closing.signal,
			async () => {
				await this.#client.xack(this.#channel, this.#group, ...ids);
				return true;
			},
			(error) => {
				this.#host.logger.debug(`${this.#channel}: can't acknowledge: ${messageOf(error)}`);
			},
		);
		for (const { id, done, failed } of acks) {
			this.#held.delete(id);
			if (sent) done();
			else failed(new Error("The end came before Redis had the acknowledgement"));
		}
	}
}
