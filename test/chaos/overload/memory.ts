import type { Figures } from "../random/words.ts";

/** What all processes held at some time. */
export interface Sample {
	/** Seconds since the overload began. */
	readonly at: number;
	readonly of: Readonly<Record<string, Pick<Figures, "heap" | "rss"> | undefined>>;
}

/** What one process held, without garbage; MiB. */
export interface Memory {
	/** The heap at rest, before the overload and after it: what is more was lost track of. */
	readonly restBefore: number;
	readonly restAfter: number;
	/** The most that the heap came to, in each third of the overload. */
	readonly heapPeaks: readonly number[];
	/** The same of all that the process holds. */
	readonly rssPeaks: readonly number[];
	/** By how much the last third went beyond all before it. */
	readonly heapGrowth: number;
	readonly rssGrowth: number;
	/** By how much the heap at rest is more than it was. */
	readonly leaked: number;
}

/**
 * Growth of the highest values in MiB that is no trend: it may be chance in which third a sample
 * meets a full queue, which holds about 30 MiB.
 */
const FLAT_HEAP = 32;
const FLAT_RSS = 64;
/** MiB that the heap at rest may have more than before. */
const LEAK_BAR = 8;
const MIB = 2 ** 20;
const THIRDS = 3;

/**
 * Sums up what one process held. A queue with a bound is empty at one moment and full at the next,
 * so that a line through the samples says nothing: highest values are compared.
 *
 * @param during at least three samples, in order of time
 */
export function memoryOf(
	before: Sample,
	during: readonly Sample[],
	after: Sample,
	name: string,
): Memory {
	const heapPeaks = peaks(during, (sample) => sample.of[name]?.heap);
	const rssPeaks = peaks(during, (sample) => sample.of[name]?.rss);
	const restBefore = mib(before.of[name]?.heap);
	const restAfter = mib(after.of[name]?.heap);
	return {
		restBefore,
		restAfter,
		heapPeaks,
		rssPeaks,
		heapGrowth: growth(heapPeaks),
		rssGrowth: growth(rssPeaks),
		leaked: tenths(restAfter - restBefore),
	};
}

/** @returns by which process memory was not flat, and how; nothing when all was */
export function growths(memory: Readonly<Record<string, Memory>>): string[] {
	return Object.entries(memory).flatMap(([name, { heapGrowth, rssGrowth, leaked }]) => [
		...(heapGrowth > FLAT_HEAP ? [`the heap of ${name} grew by ${heapGrowth} MiB`] : []),
		...(rssGrowth > FLAT_RSS ? [`the memory of ${name} grew by ${rssGrowth} MiB`] : []),
		...(leaked > LEAK_BAR ? [`${name} kept ${leaked} MiB`] : []),
	]);
}

function peaks(
	samples: readonly Sample[],
	value: (sample: Sample) => number | undefined,
): readonly number[] {
	const ends = Array.from({ length: THIRDS + 1 }, (_, third) =>
		Math.floor((samples.length * third) / THIRDS),
	);
	return ends
		.slice(1)
		.map((end, third) =>
			Math.max(...samples.slice(ends[third], end).map((sample) => mib(value(sample)))),
		);
}

function growth(ofThirds: readonly number[]): number {
	return tenths((ofThirds.at(-1) ?? 0) - Math.max(...ofThirds.slice(0, -1)));
}

function mib(bytes = 0): number {
	return tenths(bytes / MIB);
}

function tenths(value: number): number {
	return Math.round(value * 10) / 10;
}
