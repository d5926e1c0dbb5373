import type { Channel, SharedParts, Source, TabMessage } from "./shared.ts";

const NAME = "lottor-events";

/** @param types names of the events that the server sends */
export function browserParts(url: string, types: readonly string[]): SharedParts {
	return {
		open: () => openSource(url, types),
		leadWhenFree(lead, signal) {
			navigator.locks.request(NAME, { signal }, lead).catch(() => undefined);
		},
		channel: openChannel,
	};
}

/** EventSource comes back by itself unless it is refused, and then tells what it saw last. */
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
