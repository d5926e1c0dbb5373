/** The parts of the browser that sharing one stream takes; tests bring their own. */
export interface SharedParts {
	/** Opens the real stream; only the leading tab does. */
	open(): Source;
	/** Runs `lead` once no other tab leads, until its promise ends or the signal aborts. */
	leadWhenFree(lead: () => Promise<void>, signal: AbortSignal): void;
	channel(): Channel;
}

/** An open stream of events. */
export interface Source {
	onState: (state: StreamState) => void;
	onEvent: (event: StreamEvent) => void;
	close(): void;
}

/** What all tabs of this browser tell each other through. */
export interface Channel {
	post(message: TabMessage): void;
	onMessage: (message: TabMessage) => void;
	close(): void;
}

export type StreamState = "connecting" | "open" | "reconnecting" | "refused";

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
 * @param onEvent told of each event; `reset` also when the lead came to this tab, since what lay between is lost
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
	const lead = (): Promise<void> => {
		const own = { state: "connecting" as StreamState };
		leading = own;
		const source = parts.open();
		source.onState = (state) => {
			own.state = state;
			channel.post({ kind: "state", state });
			onState(state);
		};
		source.onEvent = (event) => {
			channel.post({ kind: "event", event });
			onEvent(event);
		};
		if (followed) onEvent({ type: "reset", data: "{}" });
		return new Promise((resolve) => {
			leaving.signal.addEventListener("abort", () => {
				source.close();
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
