/**
 * Values of a payload by path: `user.name`. A step into a list means each of its items.
 *
 * @returns what is there, none when there is nothing
 */
export function valuesAt(payload: unknown, path: string): unknown[] {
	let values: unknown[] = [payload];
	for (const step of path.split(".")) {
		values = values
			.flatMap((value) => (Array.isArray(value) ? (value as unknown[]) : [value]))
			.flatMap((value) =>
				typeof value === "object" && value !== null && Object.hasOwn(value, step)
					? [(value as Record<string, unknown>)[step]]
					: [],
			);
	}
	return values.flatMap((value) => (Array.isArray(value) ? (value as unknown[]) : [value]));
}

/** Whether the text can be a path: names joined by dots. */
export function isPath(path: unknown): path is string {
	return typeof path === "string" && path.length <= 200 && /^[^.\s]+(\.[^.\s]+)*$/.test(path);
}

/** Most search terms of a message, and their longest; longer values can't be searched for. */
const MOST_TERMS = 20;
const LONGEST_TERM = 200;

/** @returns what a message can be found by: its values at the paths, in lower case */
export function searchTerms(content: string, paths: readonly string[]): string[] {
	if (paths.length === 0) return [];
	const payload = JSON.parse(content) as unknown;
	const terms = new Set<string>();
	for (const value of paths.flatMap((path) => valuesAt(payload, path))) {
		if (!["string", "number", "boolean"].includes(typeof value)) continue;
		const term = String(value).toLowerCase();
		if (term !== "" && term.length <= LONGEST_TERM) terms.add(term);
	}
	return [...terms].slice(0, MOST_TERMS);
}
