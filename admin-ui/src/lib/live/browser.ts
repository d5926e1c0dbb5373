import type { Channel, SharedParts, Source, TabMessage } from "./shared.ts";

const NAME = "lottor-events";

/**
 * @param types names of the events that the server sends
 * @param mayOpen as of {@link SharedParts}
 */
export function browserParts(
	url: string,
	types: readonly string[],
	mayOpen: () => Promise<boolean>,
): SharedParts {
	return {
		mayOpen,
		fraction: Math.random,
		after(ms, act, signal) {
			const timer = setTimeout(act, ms);
			signal.addEventListener("abort", () => clearTimeout(timer));
		},
		open: () => openSource(url, types),
		leadWhenFree(lead, signal) {
			navigator.locks.request(NAME, { signal }, lead).catch(() => undefined);
		},
		channel: openChannel,
	};
}

/** EventSource comes back by itself, and tells what it saw last, unless it is refused. */
function openSource(url: string, types: readonly string[]): Source {
	const events = new EventSource(url);
	const source: Source = {
		onState: () => undefined,
		onEvent: () => undefined,
		close: () => events.close(),
	};
	events.onopen = () => source.onState("open");
	events.onerror = () => {
		source.onState(events.readyState === EventSource.CLOSED ? "refused" : "reconnecting");
	};
	for (const type of types) {
		events.addEventListener(type, (event: MessageEvent<string>) => {
			source.onEvent({ type, data: event.data });
		});
	}
	return source;
}

function openChannel(): Channel {
	const broadcast = new BroadcastChannel(NAME);
	const channel: Channel = {
		post: (message) => broadcast.postMessage(message),
		onMessage: () => undefined,
		close: () => broadcast.close(),
	};
	broadcast.onmessage = (event: MessageEvent<TabMessage>) => channel.onMessage(event.data);
	return channel;
}
