import type { Group, TimelineEntry } from "./api/types.ts";
import { type AnyState, LOOKS } from "./states.ts";

/** A stretch of a lane in one state. Places are shares of the picture's width, 0 to 1. */
export interface Segment {
	readonly from: number;
	readonly to: number;
	readonly state: AnyState;
	/** Milliseconds that it lasted. */
	readonly ms: number;
}

/** Something that happened at one moment. */
export interface LaneMark {
	readonly at: number;
	readonly entry: TimelineEntry;
}

export interface Lane {
	/** A message's id; null for the group itself. */
	readonly message: string | null;
	readonly segments: readonly Segment[];
	readonly marks: readonly LaneMark[];
}

export interface Tick {
	readonly at: number;
	/** Milliseconds since the group was prepared. */
	readonly ms: number;
}

export interface Picture {
	readonly lanes: readonly Lane[];
	readonly ticks: readonly Tick[];
}

const FINAL: readonly string[] = ["completed", "rolledBack", "consumed", "discarded"];
/** Two ticks nearer than this would have their labels overlap. */
const TICK_GAP = 0.15;

/**
 * Lays out a group's history: a lane for the group, one for each message.
 *
 * A group that is done in milliseconds and one that waits for hours must both be readable, so the
 * picture is not to scale: each pause is as wide as the logarithm of its length.
 *
 * @param now where lanes that are not at their end go on to
 */
export function layOut(group: Group, now: number): Picture {
	const entries = inOrder(group.timeline);
	const open = !isOver(group);
	const end = Math.max(group.createdAt, ...entries.map(({ at }) => at), open ? now : 0);
	const place = scale([group.createdAt, ...entries.map(({ at }) => at), end]);
	const lanes = [
		laneOf(null, "prepared", group, entries, place, end),
		...group.messages.map(({ id }) => laneOf(id, "held", group, entries, place, end)),
	];
	return { lanes, ticks: ticksOf(entries, group.createdAt, end, place) };
}

/** A history as it happened. */
export function inOrder(timeline: readonly TimelineEntry[]): TimelineEntry[] {
	return [...timeline].sort((a, b) => a.version - b.version || a.place - b.place || a.at - b.at);
}

function isOver(group: Group): boolean {
	return group.state === "completed" || group.state === "rolledBack";
}

type Place = (at: number) => number;

function scale(moments: readonly number[]): Place {
	const points = [...new Set(moments)].sort((a, b) => a - b);
	const widths = points.map((at, index) =>
		index === 0 ? 0 : Math.log2(2 + (at - (points[index - 1] ?? at))),
	);
	const total = widths.reduce((sum, width) => sum + width, 0) || 1;
	const places = new Map<number, number>();
	let sum = 0;
	for (const [index, at] of points.entries()) {
		sum += widths[index] ?? 0;
		places.set(at, sum / total);
	}
	return (at) => places.get(at) ?? 1;
}

function laneOf(
	message: string | null,
	first: AnyState,
	group: Group,
	entries: readonly TimelineEntry[],
	place: Place,
	end: number,
): Lane {
	const segments: Segment[] = [];
	let state = first;
	let since = group.createdAt;
	const change = (to: AnyState, at: number): void => {
		if (to === state) return;
		segments.push({ from: place(since), to: place(at), state, ms: at - since });
		[state, since] = [to, at];
	};
	const own: LaneMark[] = [];
	for (const entry of entries) {
		const next =
			message === null || entry.message === message ? stateOf(entry, message) : undefined;
		const implied =
			message !== null && entry.message === null ? impliedBy(entry, state) : undefined;
		const to = next ?? implied;
		if (to) change(to, entry.at);
		if (entry.message === message) own.push({ at: place(entry.at), entry });
	}
	const last = FINAL.includes(state) ? since : end;
	segments.push({ from: place(since), to: place(last), state, ms: last - since });
	return { message, segments: segments.filter((one) => one.to > one.from), marks: own };
}

function stateOf(entry: TimelineEntry, message: string | null): AnyState | undefined {
	if (entry.message !== message || entry.to === null) return undefined;
	return Object.hasOwn(LOOKS, entry.to) ? (entry.to as AnyState) : undefined;
}

/** What deciding a group does to its messages has no entry of its own. */
function impliedBy(entry: TimelineEntry, state: AnyState): AnyState | undefined {
	if (entry.to === "committed" && state === "held") return "pending";
	if (entry.to === "rolledBack" && state === "held") return "discarded";
	if (entry.event === "conflict" && entry.to === "inDoubt" && state === "discarded")
		return "held";
	return undefined;
}

function ticksOf(
	entries: readonly TimelineEntry[],
	start: number,
	end: number,
	place: Place,
): Tick[] {
	const ticks: Tick[] = [{ at: 0, ms: 0 }];
	for (const moment of [...entries.map(({ at }) => at), end].sort((a, b) => a - b)) {
		const at = place(moment);
		const last = ticks.at(-1);
		if (last && at - last.at >= TICK_GAP) ticks.push({ at, ms: moment - start });
	}
	return ticks;
}
