import { LottorError } from "../../protocol/index.ts";
import type { PageRequest } from "./contract.ts";

/** Longest page of a list. */
const LONGEST_PAGE = 1_000;

/**
 * @returns the page's length
 * @throws LOTTOR_INVALID_REQUEST when no page of this length is given
 */
export function limitOf({ limit }: PageRequest): number {
	if (Number.isInteger(limit) && limit >= 1 && limit <= LONGEST_PAGE) return limit;
	throw new LottorError(
		"LOTTOR_INVALID_REQUEST",
		`Field limit must be a whole number from 1 to ${LONGEST_PAGE}, got ${String(limit)}`,
		{ field: "limit" },
	);
}

/** @returns the opaque text of a place in a list */
export function cursorOf(place: readonly (string | number)[]): string {
	return Buffer.from(JSON.stringify(place)).toString("base64url");
}

/**
 * Reads a cursor back.
 *
 * @param fits tells whether the place is one of this list
 * @throws LOTTOR_INVALID_REQUEST when the cursor is none, or one of a list in another order
 */
export function placeOf<Place extends readonly unknown[]>(
	cursor: string,
	fits: (place: readonly unknown[]) => place is Place,
): Place {
	try {
		const place: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
		if (Array.isArray(place) && fits(place)) return place;
	} catch {
		// Not base64url of JSON: refused below.
	}
	throw wrongCursor();
}

/** @returns the error of a cursor that no page ended with */
export function wrongCursor(): LottorError {
	return new LottorError(
		"LOTTOR_INVALID_REQUEST",
		"Field cursor is not one that this list returned; begin without a cursor",
		{ field: "cursor" },
	);
}

/**
 * Brings the rows of several ranges into one order, each row once. Beyond the last row of a range
 * that was cut at `limit` others of it may come first, so what lies beyond the first such edge is
 * left out.
 *
 * @returns the rows, and where to go on; undefined when no range was cut
 */
export function mergeRanges<Row>(
	ranges: readonly (readonly Row[])[],
	limit: number,
	compare: (a: Row, b: Row) => number,
): { readonly rows: readonly Row[]; readonly edge: Row | undefined } {
	const edges = ranges.flatMap((rows) => (rows.length === limit ? rows.slice(-1) : []));
	const edge = edges.sort(compare)[0];
	const sorted = ranges.flat().sort(compare);
	const rows = sorted.filter((row, place) => {
		const before = sorted[place - 1];
		return (!edge || compare(row, edge) <= 0) && (!before || compare(before, row) !== 0);
	});
	return { rows, edge };
}
