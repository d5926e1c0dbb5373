import { LottorError } from "./errors.ts";
import { BATCH_ITEMS } from "./wire.ts";

/** Most items that one call may bring; Lottor's own callers send a tenth of it. */
const MOST_ITEMS = BATCH_ITEMS * 10;

/** Longest time that a call may ask for, in milliseconds: a hundred years, which any store can add to now. */
export const LONGEST_MS = 100 * 365 * 86_400_000;

/** Highest count, attempt or revision that is believed: every store keeps it exactly. */
export const HIGHEST_COUNT = 2 ** 31 - 1;

/** @returns whether the value has fields to be read: no array, no null */
export function isRecord(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @returns whether the value is a whole number within the bounds, both included */
export function isWhole(value: unknown, least: number, most: number): value is number {
	return (
		typeof value === "number" && Number.isSafeInteger(value) && value >= least && value <= most
	);
}

/**
 * Reads the params of a call with many items. What is wrong with one item is that item's own affair;
 * Moleculer's validator would refuse them all, and ends in a TypeError over values that have no text.
 *
 * @param least how many there must be
 * @returns the items; holes are `undefined`
 * @throws LOTTOR_INVALID_REQUEST
 */
export function itemsOf(params: unknown, least = 1): readonly unknown[] {
	const items = isRecord(params) ? params["items"] : undefined;
	if (Array.isArray(items) && items.length >= least && items.length <= MOST_ITEMS) {
		return Array.from(items as unknown[]);
	}
	throw new LottorError(
		"LOTTOR_INVALID_REQUEST",
		`Field items must be an array of ${least} to ${MOST_ITEMS} items`,
		{ field: "items" },
	);
}
