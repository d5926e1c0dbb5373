import type { HandlerContext } from "./handlers.ts";
import { masked } from "./mask.ts";

/** Rows that a list looks at before it ends a page early: keeps any filter quick. */
const SCAN_ROWS = 8_000;

/** @returns the query of a list as the coordinator takes it */
export function listParams(
	query: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
	const { sort, ...rest } = query;
	return { ...rest, scan: SCAN_ROWS, ...(sort !== undefined && { order: sort }) };
}

/** A row, with the payload fields that were asked for. */
export interface Row {
	readonly fields?: Readonly<Record<string, unknown>>;
}

/** @returns the rows, with what the caller's role may not see hidden */
export function rowsOf<T extends Row>(
	{ identity, settings }: HandlerContext,
	rows: readonly T[],
): T[] {
	const mask = settings.mask[identity?.role ?? "viewer"];
	return rows.map((row) => {
		if (!row.fields || mask.length === 0) return row;
		const fields = Object.entries(row.fields).map(([path, value]) => [
			path,
			maskedAt(path, value, mask),
		]);
		return { ...row, fields: Object.fromEntries(fields) as Record<string, unknown> };
	});
}

/** Hides what a mask names at or below the path: as if the value were in its payload. */
function maskedAt(path: string, value: unknown, mask: readonly string[]): unknown {
	const steps = path.split(".");
	const payload = steps.reduceRight<unknown>((inner, step) => ({ [step]: inner }), value);
	return steps.reduce<unknown>(
		(outer, step) =>
			typeof outer === "object" && outer !== null
				? (outer as Record<string, unknown>)[step]
				: outer,
		masked(payload, mask),
	);
}
