import type { Figures } from "../random/words.ts";

/** What all processes held at some time. */
export interface Sample {
	/** Seconds since the overload began. */
	readonly at: number;
	readonly of: Readonly<Record<string, Pick<Figures, "heap" | "rss"> | undefined>>;
}

/** What one process held; MiB. */
export interface Memory {
	readonly heapStart: number;
	readonly heapEnd: number;
	readonly rssStart: number;
	readonly rssEnd: number;
	/** By how much the heap grew over the last two thirds, by the line that fits it best. */
	readonly heapGrowth: number;
	/** The same of all that the process holds. */
	readonly rssGrowth: number;
}

const MIB = 2 ** 20;

/** Sums up the samples of one process; the first third is its time to come to its working size. */
export function memoryOf(samples: readonly Sample[], name: string): Memory {
	const heap = samples.map(({ at, of }) => ({ at, value: (of[name]?.heap ?? 0) / MIB }));
	const rss = samples.map(({ at, of }) => ({ at, value: (of[name]?.rss ?? 0) / MIB }));
	return {
		heapStart: round(heap[0]?.value),
		heapEnd: round(heap.at(-1)?.value),
		rssStart: round(rss[0]?.value),
		rssEnd: round(rss.at(-1)?.value),
		heapGrowth: round(growth(heap)),
		rssGrowth: round(growth(rss)),
	};
}

interface Point {
	readonly at: number;
	readonly value: number;
}

/** Slope of the line of least squares over the last two thirds, times how long they are. */
function growth(points: readonly Point[]): number {
	const last = points.slice(Math.floor(points.length / 3));
	const from = last[0]?.at ?? 0;
	const to = last.at(-1)?.at ?? 0;
	const meanAt = mean(last.map(({ at }) => at));
	const meanValue = mean(last.map(({ value }) => value));
	const spread = last.reduce((sum, { at }) => sum + (at - meanAt) ** 2, 0);
	const joint = last.reduce((sum, { at, value }) => sum + (at - meanAt) * (value - meanValue), 0);
	return spread === 0 ? 0 : (joint / spread) * (to - from);
}

function mean(values: readonly number[]): number {
	return values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
}

function round(value = 0): number {
	return Math.round(value * 10) / 10;
}
