/** The parts of the browser that sharing one stream takes; tests bring their own. */
export interface SharedParts {
	/** Opens the real stream; only the leading tab does. */
	open(): Source;
	/** Runs `lead` once no other tab leads, until its promise ends or the signal aborts. */
	leadWhenFree(lead: () => Promise<void>, signal: AbortSignal): void;
	channel(): Channel;
	/** Whether the server answers and still knows the login, so that opening again may succeed. */
	mayOpen(): Promise<boolean>;
	/** Does it later, unless the signal aborts. */
	after(ms: number, act: () => void, signal: AbortSignal): void;
	/** @returns 0 to 1 */
	fraction(): number;
}

/** An open stream of events. */
export interface Source {
	/** `refused`: it is closed for good, whatever the server or a proxy before it answered. */
	onState: (state: StreamState | "refused") => void;
	onEvent: (event: StreamEvent) => void;
	close(): void;
}

/** What all tabs of this browser tell each other through. */
export interface Channel {
	post(message: TabMessage): void;
	onMessage: (message: TabMessage) => void;
	close(): void;
}

export type StreamState = "connecting" | "open" | "reconnecting";

/** How long a refused stream waits before it is opened again: doubles each time, up to the second. */
const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 30_000;

export interface StreamEvent {
	readonly type: string;
	/** JSON text. */
	readonly data: string;
}

export type TabMessage =
	| { readonly kind: "event"; readonly event: StreamEvent }
	| { readonly kind: "state"; readonly state: StreamState }
	| { readonly kind: "hello" };

/** How a tab takes part. */
export interface SharedStream {
	/** Leaves: the stream goes to another tab, or closes where this was the last. */
	stop(): void;
}

/**
 * Takes part in the one event stream of this browser: leads it, or listens to the tab that does.
 * A browser opens six connections to a host at most, so each tab having its own would block them all.
 *
 * @param onEvent told of each event; `reset` also when another stream was opened than before, since what lay between is lost
 */
export function joinStream(
	parts: SharedParts,
	onState: (state: StreamState) => void,
	onEvent: (event: StreamEvent) => void,
): SharedStream {
	const leaving = new AbortController();
	const channel = parts.channel();
	let leading: { state: StreamState } | undefined;
	let followed = false;

	channel.onMessage = (message) => {
		if (message.kind === "hello") {
			if (leading) channel.post({ kind: "state", state: leading.state });
			return;
		}
		followed = true;
		if (message.kind === "event") onEvent(message.event);
		else onState(message.state);
	};
	const tellState = (state: StreamState): void => {
		leading = { state };
		channel.post({ kind: "state", state });
		onState(state);
	};
	const tellEvent = (event: StreamEvent): void => {
		channel.post({ kind: "event", event });
		onEvent(event);
	};
	const lead = (): Promise<void> => {
		leading = { state: "connecting" };
		const end = keepOpen(parts, tellState, tellEvent, leaving.signal);
		if (followed) tellEvent(RESET);
		return new Promise((resolve) => {
			leaving.signal.addEventListener("abort", () => {
				end();
				leading = undefined;
				resolve();
			});
		});
	};

	onState("connecting");
	channel.post({ kind: "hello" });
	parts.leadWhenFree(lead, leaving.signal);
	return {
		stop() {
			leaving.abort();
			channel.close();
		},
	};
}

const RESET: StreamEvent = { type: "reset", data: "{}" };

/** Opens the stream, and again where it is refused: a proxy says 502 while the server starts anew. @returns how to close it */
function keepOpen(
	parts: SharedParts,
	onState: (state: StreamState) => void,
	onEvent: (event: StreamEvent) => void,
	signal: AbortSignal,
): () => void {
	let source: Source | undefined;
	let refusals = 0;

	function open(): void {
		const opened = parts.open();
		source = opened;
		opened.onEvent = onEvent;
		opened.onState = (state) => {
			if (state === "refused") {
				opened.close();
				onState("reconnecting");
				openLater();
				return;
			}
			onState(state);
			// It could not say where the one before it ended.
			if (state === "open" && refusals > 0) onEvent(RESET);
			if (state === "open") refusals = 0;
		};
	}

	/** Many browsers are refused in one moment, and should not all come back in one. */
	function openLater(): void {
		const wait = Math.min(FIRST_WAIT * 2 ** refusals++, LONGEST_WAIT);
		parts.after(wait * (0.5 + parts.fraction() / 2), () => void openIfAllowed(), signal);
	}

	async function openIfAllowed(): Promise<void> {
		const may = await parts.mayOpen();
		if (signal.aborted) return;
		if (may) open();
		else openLater();
	}

	open();
	return () => source?.close();
}
