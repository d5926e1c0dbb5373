import { describe, expect, test } from "@jest/globals";

import {
	type Channel,
	joinStream,
	type SharedParts,
	type Source,
	type StreamEvent,
	type StreamState,
	type TabMessage,
} from "../../admin-ui/src/lib/live/shared.ts";

/** A browser with one host to stream from: locks and channels that work at once. */
class Browser {
	readonly sources: (Source & { open: boolean })[] = [];
	readonly #channels = new Set<Channel>();
	readonly #waiting: { lead: () => Promise<void>; signal: AbortSignal }[] = [];
	#led = false;

	get opened(): number {
		return this.sources.filter(({ open }) => open).length;
	}

	tab() {
		const seen = { states: [] as StreamState[], events: [] as StreamEvent[] };
		const stream = joinStream(
			this.#parts(),
			(state) => seen.states.push(state),
			(event) => seen.events.push(event),
		);
		return { ...stream, ...seen };
	}

	#parts(): SharedParts {
		return {
			open: () => {
				const source = {
					open: true,
					onState: () => undefined,
					onEvent: () => undefined,
					close: () => {
						source.open = false;
					},
				};
				this.sources.push(source);
				return source;
			},
			leadWhenFree: (lead, signal) => {
				this.#waiting.push({ lead, signal });
				void this.#next();
			},
			channel: () => {
				const channel: Channel = {
					post: (message: TabMessage) => {
						for (const other of this.#channels) {
							if (other !== channel) other.onMessage(message);
						}
					},
					onMessage: () => undefined,
					close: () => this.#channels.delete(channel),
				};
				this.#channels.add(channel);
				return channel;
			},
		};
	}

	async #next(): Promise<void> {
		if (this.#led) return;
		const next = this.#waiting.shift();
		if (!next) return;
		if (!next.signal.aborted) {
			this.#led = true;
			await next.lead();
			this.#led = false;
		}
		await this.#next();
	}
}

const EVENT: StreamEvent = { type: "counts", data: "{}" };
const settled = () => new Promise((resolve) => setImmediate(resolve));

describe("the stream that all tabs share", () => {
	test("is opened once; every tab sees each event and the state", () => {
		const browser = new Browser();
		const [first, second] = [browser.tab(), browser.tab()];
		browser.sources[0]?.onState("open");
		browser.sources[0]?.onEvent(EVENT);

		expect(browser.sources).toHaveLength(1);
		expect([first.events, second.events]).toEqual([[EVENT], [EVENT]]);
		expect(first.states.at(-1)).toBe("open");
		expect(second.states.at(-1)).toBe("open");
	});

	test("a tab that comes later is told how it stands", () => {
		const browser = new Browser();
		browser.tab();
		browser.sources[0]?.onState("reconnecting");
		expect(browser.tab().states).toEqual(["connecting", "reconnecting"]);
	});

	test("when the leading tab leaves, another takes over and begins anew", async () => {
		const browser = new Browser();
		const [first, second] = [browser.tab(), browser.tab()];
		browser.sources[0]?.onState("open");
		first.stop();
		await settled();

		expect(browser.opened).toBe(1);
		expect(browser.sources).toHaveLength(2);
		// What happened between the two streams is unknown.
		expect(second.events).toEqual([{ type: "reset", data: "{}" }]);
		browser.sources[1]?.onEvent(EVENT);
		expect(second.events.at(-1)).toEqual(EVENT);
		expect(first.events).toEqual([]);
	});

	test("is closed when the last tab leaves", async () => {
		const browser = new Browser();
		const [first, second] = [browser.tab(), browser.tab()];
		second.stop();
		first.stop();
		await settled();
		expect(browser.opened).toBe(0);
	});
});
