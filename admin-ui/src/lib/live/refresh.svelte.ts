import { onMount } from "svelte";

import { session } from "../session.svelte.ts";
import { live } from "./live.svelte.ts";

const GAP = 1_000;

/**
 * Loads something anew when groups changed, once a second at most, as long as the component lives.
 *
 * @param about only changes of these ids matter; all of them unless given
 */
export function refreshOnChange(refresh: () => void, about?: () => readonly string[]): void {
	let timer: ReturnType<typeof setTimeout> | undefined;
	const soon = (): void => {
		timer ??= setTimeout(() => {
			timer = undefined;
			refresh();
		}, GAP);
	};
	live.on("groups", ({ changed, more }) => {
		const ids = about?.();
		if (!ids || more || changed.some(({ id }) => ids.includes(id))) soon();
	});
	live.on("reset", soon);
	live.on("coordinator", ({ available }) => {
		if (available) soon();
	});
	onMount(() => () => clearTimeout(timer));
}

const BEAT = 5_000;

/** Loads anew what no event tells of, while the page is seen, not paused and not expired. @returns how to end it */
export function everyFewSeconds(refresh: () => void): () => void {
	const timer = setInterval(() => {
		if (!document.hidden && !session.expired && live.status !== "paused") refresh();
	}, BEAT);
	return () => clearInterval(timer);
}
