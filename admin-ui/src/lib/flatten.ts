/** One line of a nested configuration. */
export interface FlatEntry {
	/** Names joined by dots. */
	readonly path: string;
	readonly value: string;
}

/** A nested value as lines of path and text; lists of plain values stay in one line. */
export function flatten(value: unknown, path = ""): FlatEntry[] {
	if (typeof value !== "object" || value === null || isPlainList(value)) {
		return [{ path, value: shown(value) }];
	}
	const entries = Object.entries(value as Record<string, unknown>);
	if (entries.length === 0) return [{ path, value: "–" }];
	return entries.flatMap(([name, inner]) =>
		flatten(inner, path === "" ? name : `${path}.${name}`),
	);
}

function isPlainList(value: object): boolean {
	return Array.isArray(value) && value.every((one) => typeof one !== "object" || one === null);
}

function shown(value: unknown): string {
	if (value === null || value === undefined) return "–";
	if (Array.isArray(value)) return value.length === 0 ? "–" : value.join(", ");
	return typeof value === "string" ? value : JSON.stringify(value);
}
