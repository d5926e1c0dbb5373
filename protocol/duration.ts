import { invalidOptions } from "./errors.ts";

/** A length of time: milliseconds as a number, or a string such as `"10s"`, `"1.5h"`, `"200ms"`, `"7d"`. */
export type Duration = number | string;

const UNITS_MS: Readonly<Record<string, number>> = {
	ms: 1,
	s: 1_000,
	m: 60_000,
	h: 3_600_000,
	d: 86_400_000,
};

const LONGEST_MS = 10 * 365 * 86_400_000;

/**
 * Converts a duration to whole milliseconds.
 *
 * @param value milliseconds, or a number followed by `ms`, `s`, `m`, `h` or `d`
 * @param field the option's full name, for the error
 * @returns milliseconds, 0 or more
 * @throws LOTTOR_INVALID_OPTIONS naming `field` when the value is no duration
 */
export function toMs(value: Duration, field: string): number {
	const ms = typeof value === "number" ? value : parse(value);
	if (!Number.isFinite(ms) || ms < 0 || ms > LONGEST_MS) {
		throw invalidOptions(
			field,
			`must be milliseconds or a duration such as "10s", got ${JSON.stringify(value)}`,
		);
	}
	return Math.round(ms);
}

function parse(text: unknown): number {
	if (typeof text !== "string") return Number.NaN;
	const match = /^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$/.exec(text);
	if (!match) return Number.NaN;
	return Number(match[1]) * (UNITS_MS[match[2] ?? "ms"] ?? Number.NaN);
}
