import type { DatabaseSync } from "node:sqlite";
import { type ServiceBroker, Serializers } from "moleculer";
import type { Channel, ChannelAdapter, PublishOptions } from "../../../adapters/channels/index.ts";
import {
	type Clock,
	contentTypeOf,
	type EnvelopeHead,
	fromHeaders,
	LottorError,
} from "../../../protocol/index.ts";

/** What a client tells the broker. `link` is the connection that it was begun on. */
export interface Post {
	/**
	 * Resolves once the message is in the broker's file.
	 * @throws LOTTOR_CHANNEL_UNCONFIRMED when the broker died first
	 */
	publish(link: number, letter: NewLetter): Promise<void>;
	/** Has the broker forget a message; nothing, on a connection that is gone. */
	ack(link: number, letter: number): Promise<void>;
}

export interface NewLetter {
	readonly channel: string;
	readonly headers: Readonly<Record<string, unknown>>;
	readonly body: Buffer;
}

interface Letter extends NewLetter {
	readonly seq: number;
	/** Whether a consumer had it before. */
	readonly repeated: boolean;
}

interface Subscription {
	readonly channel: Channel;
	/** What was handed over on this connection. */
	readonly taken: Set<number>;
}

export interface FileBrokerOptions {
	readonly file: string;
	readonly clock: Clock;
	readonly connect: (file: string) => DatabaseSync;
	/** Adds fault points. */
	readonly watch: (post: Post) => Post;
	/** Called before a message is acknowledged. @default nobody looks */
	readonly acking?: (head: EnvelopeHead) => void;
	/** How often to look for what other processes have published. @default never: there are none */
	readonly poll?: number;
}

/** How long the broker is gone when it dies. */
const OUTAGE_MS = 5_000;

const TABLE = `CREATE TABLE IF NOT EXISTS letters (
	seq INTEGER PRIMARY KEY AUTOINCREMENT,
	channel TEXT NOT NULL,
	headers TEXT NOT NULL,
	body BLOB NOT NULL,
	handed INTEGER NOT NULL DEFAULT 0
)`;

/**
 * A durable message broker for tests, as an adapter of `@moleculer/channels`: what it has confirmed
 * is in its file, and is handed over again and again until it is acknowledged. Each process has one
 * of these on the same file.
 */
export class FileBroker implements ChannelAdapter {
	readonly description = "a broker on a file";
	readonly maxBytes = 1_000_000;
	readonly connected = true;
	readonly serializer = new Serializers.JSON() as unknown as ChannelAdapter["serializer"];
	readonly #db: DatabaseSync;
	readonly #clock: Clock;
	readonly #poll: number | undefined;
	readonly #post: Post;
	readonly #acking: FileBrokerOptions["acking"];
	readonly #subscriptions = new Map<string, Subscription>();
	/** Names the connection: a new one after each death of the broker. */
	#link = 0;
	/** Resolves once the broker is there again. */
	#back: Promise<void> | undefined;

	constructor({ file, clock, connect, watch, acking, poll }: FileBrokerOptions) {
		this.#db = connect(file);
		this.#db.exec("PRAGMA journal_mode = WAL");
		this.#db.exec(TABLE);
		this.#clock = clock;
		this.#poll = poll;
		this.#acking = acking;
		this.#post = watch({
			publish: (link, letter) => this.#store(link, letter),
			ack: (link, letter) => this.#forget(link, letter),
		});
	}

	init(broker: ServiceBroker): void {
		(this.serializer as unknown as Serializers.JSON).init(broker);
	}

	async connect(): Promise<void> {
		this.#look();
	}

	nameProblem(): undefined {
		return undefined;
	}

	async disconnect(): Promise<void> {
		this.#subscriptions.clear();
	}

	async subscribe(channel: Channel): Promise<void> {
		this.#subscriptions.set(channel.name, { channel, taken: new Set() });
		this.#handOver();
	}

	async unsubscribe({ name }: Channel): Promise<void> {
		this.#subscriptions.delete(name);
	}

	/** Waits for a broker that is gone, as a client does that keeps what it is to send. */
	async publish(channel: string, payload: unknown, options: PublishOptions = {}): Promise<void> {
		while (this.#back) await this.#back;
		const link = this.#link;
		const { headers = {} } = options;
		await this.#post.publish(link, { channel, headers, body: payload as Buffer });
		if (link !== this.#link) throw unconfirmed();
	}

	async declare(): Promise<void> {
		// A channel is there once something is published to it.
	}

	async backlog(channel: string): Promise<number | undefined> {
		return this.#back ? undefined : this.held(channel);
	}

	addPrefixTopic(name: string): string {
		return name;
	}

	parseMessageHeaders(raw: unknown): Record<string, unknown> | null {
		return (raw as Letter).headers;
	}

	/** @returns how many messages nobody has acknowledged */
	held(channel?: string): number {
		const where = channel === undefined ? "" : "WHERE channel = ?";
		const values = channel === undefined ? [] : [channel];
		const sql = `SELECT count(*) AS n FROM letters ${where}`;
		return Number(this.#db.prepare(sql).get(...values)?.["n"]);
	}

	/**
	 * The broker dies, with its connections: what was being published is not confirmed, what was being
	 * acknowledged may not be. It comes back with all that it had confirmed.
	 */
	die(): void {
		this.#link++;
		this.#back ??= new Promise((resolve) => {
			this.#clock.after(OUTAGE_MS, () => {
				this.#back = undefined;
				for (const { taken } of this.#subscriptions.values()) taken.clear();
				this.#handOver();
				resolve();
			});
		});
	}

	async #store(link: number, { channel, headers, body }: NewLetter): Promise<void> {
		if (link !== this.#link) throw unconfirmed();
		this.#db
			.prepare("INSERT INTO letters (channel, headers, body) VALUES (?, ?, ?)")
			.run(channel, JSON.stringify(headers), body);
		this.#handOver();
	}

	async #forget(link: number, letter: number): Promise<void> {
		if (link !== this.#link) return;
		this.#db.prepare("DELETE FROM letters WHERE seq = ?").run(letter);
	}

	#look(): void {
		if (this.#poll === undefined) return;
		this.#handOver();
		this.#clock.after(this.#poll, () => this.#look());
	}

	#handOver(): void {
		if (this.#back) return;
		for (const { channel, taken } of this.#subscriptions.values()) {
			for (const letter of this.#letters(channel.name)) {
				if (taken.has(letter.seq)) continue;
				taken.add(letter.seq);
				this.#db.prepare("UPDATE letters SET handed = 1 WHERE seq = ?").run(letter.seq);
				void this.#handle(channel, letter);
			}
		}
	}

	/** A message that its consumer refuses stays: whoever looks at the end finds it. */
	async #handle(channel: Channel, letter: Letter): Promise<void> {
		const link = this.#link;
		try {
			const payload = this.serializer.deserialize(letter.body);
			await channel.handler(payload, letter, letter);
		} catch {
			return;
		}
		this.#acking?.(fromHeaders(letter.headers, contentTypeOf(this.serializer)));
		await this.#post.ack(link, letter.seq);
	}

	#letters(channel: string): Letter[] {
		const rows = this.#db
			.prepare("SELECT * FROM letters WHERE channel = ? ORDER BY seq")
			.all(channel);
		return rows.map((row) => ({
			seq: Number(row["seq"]),
			channel,
			headers: JSON.parse(String(row["headers"])) as Record<string, unknown>,
			body: Buffer.from(row["body"] as Uint8Array),
			repeated: row["handed"] === 1,
		}));
	}
}

function unconfirmed(): LottorError {
	return new LottorError("LOTTOR_CHANNEL_UNCONFIRMED", "The broker died before it confirmed");
}
