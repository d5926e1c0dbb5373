import type { TimelineEntry } from "./api/types.ts";
import { known, t } from "./i18n/index.svelte.ts";

/** What an entry of a history says, in words; an event that this page does not know as it is called. */
export function eventText({ event }: Pick<TimelineEntry, "event">): string {
	const key = `event.${event.replaceAll(" ", "")}`;
	return known(key) ? t(key) : event;
}

/** What else an entry brings, in one line. */
export function eventDetail({ data }: Pick<TimelineEntry, "data">): string {
	if (!data) return "";
	return Object.entries(data)
		.filter(([, value]) => value !== null && typeof value !== "object")
		.map(([name, value]) => `${name} ${String(value)}`)
		.join(" · ");
}
