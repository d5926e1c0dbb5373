import type { IncomingMessage, ServerResponse } from "node:http";

import { type Clock, LottorError, type Timer } from "../../protocol/index.ts";
import type { EventData, EventName } from "./api/index.ts";

/** Events kept for browsers that come back. */
const KEPT = 500;
/** A stream that has so many bytes waiting is too slow and is ended; it comes back by itself. */
const MOST_WAITING = 256 * 1_024;
/** A comment keeps proxies from ending a silent stream, and finds out who is gone. */
const BEAT_MS = 15_000;
/** When a browser comes back. */
const RETRY_MS = 2_000;

interface Stream {
	readonly res: ServerResponse;
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

	/**
	 * Turns a response into a stream. What was missed since `Last-Event-ID` is sent first, or
	 * `reset` when it isn't kept any more.
	 *
	 * @param expiresAt when the caller's login ends, and the stream with it
	 * @throws LOTTOR_TOO_MANY_STREAMS
	 */
	open(req: IncomingMessage, res: ServerResponse, expiresAt: number | null): void {
		if (this.#closed || this.#streams.size >= this.#most) {
			throw new LottorError("LOTTOR_TOO_MANY_STREAMS", `${this.#most} streams are open`);
		}
		res.writeHead(200, {
			"Content-Type": "text/event-stream; charset=utf-8",
			"Cache-Control": "no-store",
			Connection: "keep-alive",
			"X-Accel-Buffering": "no",
		});
		const stream: Stream = { res };
		this.#streams.add(stream);
		const gone = () => this.#drop(stream);
		res.on("close", gone);
		res.on("error", gone);
		if (expiresAt !== null) {
			stream.end = this.#clock.after(expiresAt - this.#clock.now(), () => this.#end(stream));
		}
		res.write(`retry: ${RETRY_MS}\n\n`);
		for (const text of this.#missed(req.headers["last-event-id"])) this.#write(stream, text);
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
			if (this.#kept.length > KEPT) this.#kept.shift();
		}
		for (const stream of this.#streams) this.#write(stream, text);
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
		const oldest = this.#kept[0]?.number ?? this.#number + 1;
		const dropped = this.#kept.length === KEPT && number < oldest - 1;
		if (boot !== this.#boot || number < 0 || number > this.#number || dropped) {
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
		this.#streams.delete(stream);
	}
}
