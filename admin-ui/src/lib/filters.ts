import type { Query } from "./api/client.ts";
import { isPath } from "./format/payload.ts";

/** Spans of time that lists can be narrowed to, ending now. Milliseconds. */
export const RANGES = {
	"15m": 15 * 60_000,
	"1h": 3_600_000,
	"24h": 86_400_000,
	"7d": 7 * 86_400_000,
	"30d": 30 * 86_400_000,
} as const;
export type Range = keyof typeof RANGES;

/** Fields of the address that become fields of the server's filter as they are. */
export const TEXT_FIELDS = ["text", "source", "target", "type", "errorCode"] as const;
export type TextField = (typeof TEXT_FIELDS)[number];

const PAYLOAD = "payload.";
/** The server answers with so many payload fields a row at most. */
export const MOST_PAYLOAD_COLUMNS = 5;

/**
 * What an address asks for, as the server's filter has it.
 *
 * @param params the address's query
 * @param now what spans such as `range=1h` end at, milliseconds since 1970
 */
export function filterOf(params: URLSearchParams, now: number): Record<string, unknown> {
	const filter: Record<string, unknown> = {};
	for (const name of TEXT_FIELDS) {
		const value = params.get(name)?.trim();
		if (value) filter[name] = value;
	}
	const states = params.get("states");
	if (states) filter["states"] = states.split(",");
	if (params.get("conflict") === "true") filter["conflict"] = true;
	const range = params.get("range");
	if (range !== null && isRange(range)) filter["since"] = now - RANGES[range];
	else {
		const [since, until] = [moment(params.get("since")), moment(params.get("until"))];
		if (since !== undefined) filter["since"] = since;
		if (until !== undefined) filter["until"] = until;
	}
	return filter;
}

/** The query of a list's page: its filter, order, payload columns. */
export function listQuery(params: URLSearchParams, columns: readonly string[], now: number): Query {
	const fields = payloadPaths(columns);
	return {
		...(filterOf(params, now) as Query),
		...(params.get("sort") === "oldest" && { sort: "oldest" }),
		...(fields.length > 0 && { fields }),
	};
}

/** How many fields narrow the list. */
export function countFilters(params: URLSearchParams): number {
	return Object.keys(filterOf(params, 0)).filter((name) => name !== "until").length;
}

/** The columns to show: those of the address, or the usual ones; unknown names are left out. */
export function columnsOf(
	chosen: string | null,
	known: readonly string[],
	usual: readonly string[],
): string[] {
	if (chosen === null || chosen === "") return [...usual];
	let payloads = 0;
	return chosen.split(",").filter((name) => {
		if (!name.startsWith(PAYLOAD)) return known.includes(name);
		return isPath(name.slice(PAYLOAD.length)) && ++payloads <= MOST_PAYLOAD_COLUMNS;
	});
}

export function payloadColumn(path: string): string {
	return PAYLOAD + path;
}

/** Paths of the payload columns among these. */
export function payloadPaths(columns: readonly string[]): string[] {
	return columns
		.filter((name) => name.startsWith(PAYLOAD))
		.map((name) => name.slice(PAYLOAD.length));
}

export function isRange(text: string): text is Range {
	return Object.hasOwn(RANGES, text);
}

function moment(text: string | null): number | undefined {
	return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}
