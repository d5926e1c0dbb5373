/** A list's filter and columns under a name. */
export interface SavedView {
	readonly page: string;
	readonly name: string;
	/** The query of the page's address, without `?`. */
	readonly search: string;
}

/** Reads what was stored; whatever is not a view is left out. */
export function parseViews(stored: string | null): SavedView[] {
	let read: unknown;
	try {
		read = JSON.parse(stored ?? "[]");
	} catch {
		return [];
	}
	return Array.isArray(read) ? read.filter(isView) : [];
}

function isView(value: unknown): value is SavedView {
	if (typeof value !== "object" || value === null) return false;
	const { page, name, search } = value as Record<string, unknown>;
	return typeof page === "string" && typeof name === "string" && typeof search === "string";
}
