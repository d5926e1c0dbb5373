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
	/** Whether the server answers. */
	up = true;
	/** What waits, and for how long. */
	readonly waiting: { ms: number; act: () => void }[] = [];

	/** Lets what waits happen. */
	async pass(): Promise<void> {
		for (const { act } of this.waiting.splice(0)) act();
		await settled();
	}

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
			mayOpen: async () => this.up,
			fraction: () => 1,
			after: (ms, act, signal) => {
				const entry = { ms, act: () => signal.aborted || act() };
				this.waiting.push(entry);
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

const RESET: StreamEvent = { type: "reset", data: "{}" };
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
		const [first, second, third] = [browser.tab(), browser.tab(), browser.tab()];
		browser.sources[0]?.onState("open");
		first.stop();
		await settled();

		expect(browser.opened).toBe(1);
		expect(browser.sources).toHaveLength(2);
		// What happened between the two streams is unknown, to a tab that follows on, too.
		expect([second.events, third.events]).toEqual([[RESET], [RESET]]);
		browser.sources[1]?.onEvent(EVENT);
		expect(second.events.at(-1)).toEqual(EVENT);
		expect(first.events).toEqual([]);
	});

	test("is opened again when it was refused, later and later, and what lay between is lost", async () => {
		const browser = new Browser();
		const [first, second] = [browser.tab(), browser.tab()];
		browser.sources[0]?.onState("open");
		const waits: number[] = [];
		for (let refused = 0; refused < 7; refused++) {
			browser.sources.at(-1)?.onState("refused");
			waits.push(...browser.waiting.map(({ ms }) => ms));
			expect([first.states.at(-1), second.states.at(-1)]).toEqual([
				"reconnecting",
				"reconnecting",
			]);
			expect(browser.opened).toBe(0);
			await browser.pass();
			expect(browser.opened).toBe(1);
		}
		expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
		expect([first.events, second.events]).toEqual([[], []]);

		browser.sources.at(-1)?.onState("open");
		expect([first.states.at(-1), second.states.at(-1)]).toEqual(["open", "open"]);
		expect([first.events, second.events]).toEqual([[RESET], [RESET]]);
		browser.sources.at(-1)?.onState("refused");
		expect(browser.waiting.map(({ ms }) => ms)).toEqual([1_000]);
	});

	test("is not opened while the server does not answer or know the login, nor once the tab has left", async () => {
		const browser = new Browser();
		const tab = browser.tab();
		browser.sources[0]?.onState("refused");
		browser.up = false;
		await browser.pass();
		await browser.pass();
		expect(browser.sources).toHaveLength(1);
		browser.up = true;
		await browser.pass();
		expect(browser.sources).toHaveLength(2);

		browser.sources[1]?.onState("refused");
		const late = browser.pass();
		tab.stop();
		await late;
		expect(browser.sources).toHaveLength(2);
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
