/** One page of a list, as the server answers it. */
export interface PageOf<T> {
	readonly items: readonly T[];
	/** Where the list goes on: also after a page that is empty, when the server has looked at many rows. */
	readonly next: string | null;
	readonly total?: Total | null;
}

export interface Total {
	readonly count: number;
	readonly exact: boolean;
}

/** Pages that are looked at for a row before the person is asked whether to go on. */
export const MOST_LOOKED = 6;

/**
 * Loads the page at a cursor, and the ones after it while they are empty: rare combinations of filters
 * make the server end a page with nothing in it.
 *
 * @param load as of the server; `undefined` instead of a promise: nothing to load
 * @returns the first page with rows, the last one, or an empty one that has a `next` still
 */
export function searchOn<T>(
	load: (cursor: string | undefined) => Promise<PageOf<T>> | undefined,
	cursor?: string,
): Promise<PageOf<T>> | undefined {
	const first = load(cursor);
	return first && filled(first, load);
}

async function filled<T>(
	first: Promise<PageOf<T>>,
	load: (cursor: string) => Promise<PageOf<T>> | undefined,
): Promise<PageOf<T>> {
	let page = await first;
	// The first page alone counts.
	const { total = null } = page;
	if (total?.exact === true && total.count === 0) return { ...page, next: null };
	for (let looked = 1; looked < MOST_LOOKED; looked++) {
		if (page.items.length > 0 || page.next === null) break;
		page = (await load(page.next)) ?? { items: [], next: null };
	}
	return { ...page, total };
}
