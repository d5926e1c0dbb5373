import { formatBytes } from "./format/number.ts";
import { formatSpan } from "./format/time.ts";

/** One line of a nested configuration. */
export interface FlatEntry {
	/** Names joined by dots. */
	readonly path: string;
	readonly value: string;
}

/** Options whose numbers are milliseconds, or bytes, by their names. */
const DURATION = /(After|Timeout|Delay|Interval|For|Every|delay|lease|^keep[A-Z]\w*)$/;
const BYTES = /(Payload|Group|Bytes|Body)$/;

/** A nested value as lines of path and text; lists of plain values stay in one line. */
export function flatten(value: unknown, path = ""): FlatEntry[] {
	if (typeof value !== "object" || value === null || isPlainList(value)) {
		return [{ path, value: shown(value, path.split(".").at(-1) ?? "") }];
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

function shown(value: unknown, name: string): string {
	if (value === null || value === undefined) return "–";
	if (Array.isArray(value)) return value.length === 0 ? "–" : value.join(", ");
	if (typeof value === "number" && DURATION.test(name)) return formatSpan(value);
	if (typeof value === "number" && BYTES.test(name)) return formatBytes(value);
	return typeof value === "string" ? value : JSON.stringify(value);
}
