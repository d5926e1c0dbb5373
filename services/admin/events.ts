import type { IncomingMessage, ServerResponse } from "node:http";

import { type Clock, LottorError, type Timer } from "../../protocol/index.ts";
import type { EventData, EventName } from "./api/index.ts";
import type { Identity } from "./identity.ts";

/** Events kept for browsers that come back. */
const KEPT = 500;
/** A stream that has so many bytes waiting is too slow and is ended; it comes back by itself. */
const MOST_WAITING = 256 * 1_024;
/** A comment keeps proxies from ending a silent stream, and finds out who is gone. */
const BEAT_MS = 15_000;
/** When a browser comes back. */
const RETRY_MS = 2_000;
/** How long events are kept after the last stream has closed, for a browser that comes back. */
const LINGER_MS = 60_000;

interface Stream {
	readonly res: ServerResponse;
	readonly identity: Identity | undefined;
	end?: Timer;
}

interface Sent {
	readonly number: number;
	readonly text: string;
}

/** The server-sent events of all who look on: bounded in streams, in memory, and in time. */
export class EventHub {
	readonly #clock: Clock;
	readonly #most: number;
	/** Tells this process start's numbers from those of another. */
	readonly #boot: string;
	readonly #streams = new Set<Stream>();
	readonly #kept: Sent[] = [];
	/** The last data of events that say how things stand, as new streams get it. */
	readonly #standing = new Map<EventName, string>();
	#number = 0;
	/** The number of the newest event that is not kept any more. */
	#lost = 0;
	/** When the last stream closed. */
	#leftAt = -Infinity;
	#beat: Timer | undefined;
	#closed = false;

	constructor(options: { readonly clock: Clock; readonly most: number; readonly boot: string }) {
		this.#clock = options.clock;
		this.#most = options.most;
		this.#boot = options.boot;
	}

	get size(): number {
		return this.#streams.size;
	}

	/** Whether somebody looks on, or did until a moment ago and may come back. */
	get awaited(): boolean {
		return this.size > 0 || this.#clock.now() - this.#leftAt < LINGER_MS;
	}

	/**
	 * Turns a response into a stream. What was missed since `Last-Event-ID` is sent first, or
	 * `reset` when it isn't kept any more.
	 *
	 * @param identity who looks on: the stream ends with their login
	 * @throws LOTTOR_TOO_MANY_STREAMS
	 */
	open(req: IncomingMessage, res: ServerResponse, identity: Identity | undefined): void {
		if (this.#closed || this.#streams.size >= this.#most) {
			throw new LottorError("LOTTOR_TOO_MANY_STREAMS", `${this.#most} streams are open`);
		}
		res.writeHead(200, {
			"Content-Type": "text/event-stream; charset=utf-8",
			"Cache-Control": "no-store",
			Connection: "keep-alive",
			"X-Accel-Buffering": "no",
		});
		const stream: Stream = { res, identity };
		this.#streams.add(stream);
		const gone = () => this.#drop(stream);
		res.on("close", gone);
		res.on("error", gone);
		const expiresAt = identity?.expiresAt ?? null;
		if (expiresAt !== null) {
			stream.end = this.#clock.after(expiresAt - this.#clock.now(), () => this.#end(stream));
		}
		res.write(`retry: ${RETRY_MS}\n\n`);
		for (const text of this.#missed(req.headers["last-event-id"])) this.#write(stream, text);
		// A browser that saw no event yet has a place to go on from, too.
		this.#write(stream, `id: ${this.#boot}.${this.#number}\n\n`);
		for (const [name, data] of this.#standing) {
			this.#write(stream, `event: ${name}\ndata: ${data}\n\n`);
		}
		this.#keepBeating();
	}

	/** Sends an event to every stream. One that says how things `stand` comes first in new ones. */
	publish<Name extends EventName>(name: Name, data: EventData<Name>, stands = false): void {
		const json = JSON.stringify(data);
		if (stands) this.#standing.set(name, json);
		const number = ++this.#number;
		const text = `id: ${this.#boot}.${number}\nevent: ${name}\ndata: ${json}\n\n`;
		// How things stand is sent anew anyway.
		if (!stands) {
			this.#kept.push({ number, text });
			if (this.#kept.length > KEPT) this.#lost = this.#kept.shift()?.number ?? number;
		}
		for (const stream of this.#streams) this.#write(stream, text);
	}

	/** Something happened that is not kept: whoever comes back is told that they missed something. */
	skip(): void {
		this.#lost = ++this.#number;
		this.#kept.length = 0;
	}

	/** Ends the streams of a login that is over. */
	endOf(identity: Identity): void {
		for (const stream of this.#streams) {
			if (stream.identity === identity) this.#end(stream);
		}
	}

	/** Ends every stream and opens none any more. */
	close(): void {
		this.#closed = true;
		this.#beat?.cancel();
		for (const stream of this.#streams) this.#end(stream);
	}

	#missed(last: string | string[] | undefined): string[] {
		if (typeof last !== "string" || last === "") return [];
		const [boot, text = ""] = last.split(".");
		const number = /^\d{1,15}$/.test(text) ? Number(text) : -1;
		if (boot !== this.#boot || number < this.#lost || number > this.#number) {
			return ["event: reset\ndata: {}\n\n"];
		}
		return this.#kept.filter((one) => one.number > number).map((one) => one.text);
	}

	#write(stream: Stream, text: string): void {
		const { res } = stream;
		if (res.destroyed || res.writableEnded) return;
		if (res.writableLength > MOST_WAITING) {
			this.#drop(stream);
			res.destroy();
			return;
		}
		res.write(text);
	}

	#keepBeating(): void {
		this.#beat ??= this.#clock.after(BEAT_MS, () => {
			this.#beat = undefined;
			for (const stream of this.#streams) this.#write(stream, ": still here\n\n");
			if (this.#streams.size > 0) this.#keepBeating();
		});
	}

	#end(stream: Stream): void {
		this.#drop(stream);
		stream.res.end();
	}

	#drop(stream: Stream): void {
		stream.end?.cancel();
		if (this.#streams.delete(stream)) this.#leftAt = this.#clock.now();
	}
}
