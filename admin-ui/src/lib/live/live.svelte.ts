import { onMount } from "svelte";

import { call } from "../api/client.ts";
import type { EventData, EventName } from "../api/types.ts";
import { browserParts } from "./browser.ts";
import { joinStream, type SharedStream, type StreamEvent, type StreamState } from "./shared.ts";

export type LiveStatus = StreamState | "paused";

const NAMES: readonly EventName[] = ["counts", "groups", "job", "reset", "coordinator"];

type Handlers = { [Name in EventName]: Set<(data: EventData<Name>) => void> };

const handlers: Handlers = {
	counts: new Set(),
	groups: new Set(),
	job: new Set(),
	reset: new Set(),
	coordinator: new Set(),
};

const state = $state<{
	stream: StreamState;
	paused: boolean;
	counts: EventData<"counts"> | undefined;
	coordinator: boolean;
}>({ stream: "connecting", paused: false, counts: undefined, coordinator: true });

let joined: SharedStream | undefined;
let leftBefore = false;

/** What the server tells by itself: one stream for all tabs, none while this one is hidden. */
export const live = {
	get status(): LiveStatus {
		return state.paused ? "paused" : state.stream;
	},
	/** The newest figures; undefined until some came. */
	get counts(): EventData<"counts"> | undefined {
		return state.counts;
	},
	get coordinator(): boolean {
		return state.coordinator;
	},
	pause(): void {
		state.paused = true;
		leave();
	},
	resume(): void {
		state.paused = false;
		join();
	},
	/** Has everything loaded anew, after what was missed. */
	reset(): void {
		emit("reset", {});
	},
	/** Listens as long as the component that calls it lives. */
	on<Name extends EventName>(name: Name, handler: (data: EventData<Name>) => void): void {
		onMount(() => {
			handlers[name].add(handler);
			return () => handlers[name].delete(handler);
		});
	},
};

/** Takes part from now on. @returns how to end it */
export function startLive(): () => void {
	const onVisible = (): void => (document.hidden ? leave() : join());
	document.addEventListener("visibilitychange", onVisible);
	onVisible();
	return () => {
		document.removeEventListener("visibilitychange", onVisible);
		leave();
		leftBefore = false;
	};
}

function join(): void {
	if (joined || state.paused || document.hidden) return;
	joined = joinStream(
		browserParts("/api/events", NAMES, mayOpen),
		(stream) => (state.stream = stream),
		take,
	);
	// Whatever happened meanwhile was missed.
	if (leftBefore) emit("reset", {});
}

/** EventSource does not tell why it was refused; a login that is over shows in this call, and ends the stream. */
function mayOpen(): Promise<boolean> {
	return call("GET", "/api/me").then(
		() => true,
		() => false,
	);
}

function leave(): void {
	if (!joined) return;
	joined.stop();
	joined = undefined;
	leftBefore = true;
}

function take({ type, data }: StreamEvent): void {
	const name = NAMES.find((known) => known === type);
	if (!name) return;
	const value = JSON.parse(data) as EventData<typeof name>;
	if (name === "counts") state.counts = value as EventData<"counts">;
	if (name === "coordinator") {
		state.coordinator = (value as EventData<"coordinator">).available;
	}
	emit(name, value);
}

function emit<Name extends EventName>(name: Name, value: EventData<Name>): void {
	for (const handler of handlers[name] as Set<(data: EventData<Name>) => void>) handler(value);
}
