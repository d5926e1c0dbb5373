import type { JetStreamPullSubscription, JsMsg, NatsError } from "nats";

import { messageOf } from "../../../protocol/index.ts";
import type { Consumer, DriverHost, Incoming, Subscription } from "../driver.ts";
import { every, persist } from "../waiting.ts";

/** How long the server may keep a request open before it is made again. */
const PULL_MS = 10_000;
/** After so long nothing comes for a request any more. */
const PULL_OVER_MS = PULL_MS + 2_000;
const LOOK_MS = 1_000;
const STUCK_MS = 5_000;

interface Means {
	/** Makes stream and consumer. @returns after how many milliseconds an unacknowledged message comes again */
	prepare(): Promise<{ readonly ackWait: number }>;
	subscribe(
		callback: (error: NatsError | null, message: JsMsg | null) => void,
	): Promise<JetStreamPullSubscription>;
	trim: (() => Promise<void>) | undefined;
	/** Makes the consumer anew where the server has messages for it and does not hand them over. */
	unstick(): Promise<void>;
	readonly trimInterval: number;
	ended(): void;
}

/** A request that the server may still answer. */
interface Pull {
	left: number;
	readonly until: number;
}

/** Pulls as many messages as may be handled. */
export class NatsConsumer implements Consumer {
	readonly #subscription: Subscription;
	readonly #host: DriverHost;
	readonly #means: Means;
	readonly #held = new Set<JsMsg>();
	readonly #closing = new AbortController();
	#pulls: Pull[] = [];
	#source: JetStreamPullSubscription | undefined;
	#mending: Promise<unknown> | undefined;
	#loops: Promise<unknown> = Promise.resolve();

	constructor(subscription: Subscription, host: DriverHost, means: Means) {
		this.#subscription = subscription;
		this.#host = host;
		this.#means = means;
	}

	async start(): Promise<void> {
		const { ackWait } = await this.#means.prepare();
		this.#source = await this.#means.subscribe((error, message) => this.#heard(error, message));
		const { ending } = this.#subscription;
		const complain = (error: unknown) => {
			this.#host.logger.debug(`${this.#name}: ${messageOf(error)}`);
		};
		const { trim, trimInterval } = this.#means;
		this.#loops = Promise.all([
			every(
				Math.max(1, ackWait / 3),
				this.#closing.signal,
				async () => this.#work(),
				complain,
			),
			every(LOOK_MS, ending, async () => this.#pull(), complain),
			every(STUCK_MS, ending, () => this.#unstick(), complain),
			trim && every(trimInterval, ending, trim, complain),
		]);
		this.#pull();
	}

	async pause(): Promise<void> {
		// What the server has sent already still comes, and is given back.
		await this.#source?.drain();
	}

	async close(): Promise<void> {
		this.#closing.abort();
		this.#means.ended();
		await this.#loops;
	}

	/** The server has forgotten what was asked of it over the former connection. */
	reconnected(): void {
		this.#pulls = [];
		this.#pull();
	}

	get #name(): string {
		return this.#subscription.channel.name;
	}

	/** Asks for as many messages as there is room for, beyond those asked for already. */
	#pull(): void {
		const { flow, ending } = this.#subscription;
		if (ending.aborted || this.#mending || !this.#source) return;
		const now = performance.now();
		this.#pulls = this.#pulls.filter(({ left, until }) => left > 0 && until > now);
		const asked = this.#pulls.reduce((sum, { left }) => sum + left, 0);
		const more = flow.room - asked;
		// Few at a time would cost a request for each message.
		if (more <= 0 || (asked > 0 && more < flow.limit / 4)) return;
		this.#pulls.push({ left: more, until: now + PULL_OVER_MS });
		try {
			this.#source.pull({ batch: more, expires: PULL_MS });
		} catch (error) {
			this.#pulls.pop();
			this.#host.logger.debug(`${this.#name}: ${messageOf(error)}`);
		}
	}

	#heard(error: NatsError | null, message: JsMsg | null): void {
		if (error) {
			// The oldest request is over; every other error may say that the consumer is gone.
			if (error.code !== "408") return this.#mend(error);
			this.#pulls.shift();
			return this.#pull();
		}
		if (!message) return;
		const pull = this.#pulls.find(({ left }) => left > 0);
		if (pull) pull.left--;
		if (this.#subscription.ending.aborted) {
			message.nak();
			return;
		}
		this.#held.add(message);
		this.#subscription.take(this.#incoming(message));
	}

	async #unstick(): Promise<void> {
		const idle = this.#held.size === 0 && this.#subscription.flow.room > 0;
		if (idle && !this.#mending) await this.#means.unstick();
	}

	#mend(reason: unknown): void {
		const { ending } = this.#subscription;
		if (this.#mending || ending.aborted) return;
		this.#host.logger.debug(`${this.#name}: ${messageOf(reason)}`);
		this.#mending = persist(
			ending,
			() => this.#means.prepare(),
			(error) => {
				this.#host.logger.debug(`${this.#name}: ${messageOf(error)}`);
			},
		).finally(() => {
			this.#mending = undefined;
			this.#pulls = [];
			this.#pull();
		});
	}

	/** Tells the server that these are still being handled. */
	#work(): void {
		for (const message of this.#held) message.working();
	}

	#incoming(message: JsMsg): Incoming {
		const headers: Record<string, string> = {};
		for (const [name, [value = ""]] of message.headers ?? []) headers[name] = value;
		const done = (act: () => void) => {
			this.#held.delete(message);
			act();
			setImmediate(() => this.#pull());
		};
		return {
			id: String(message.seq),
			again: message.redelivered,
			repeated: message.redelivered,
			body: Buffer.from(message.data),
			headers,
			raw: message,
			ack: () => done(() => message.ack()),
			release: () => done(() => message.nak()),
		};
	}
}
