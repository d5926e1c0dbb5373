import { untrack } from "svelte";

import { ApiError, isAbort } from "./api/client.ts";
import { errorTitle } from "./errors.ts";
import { type PageOf, searchOn, type Total } from "./page-of.ts";
import { type Resource, resource } from "./resource.svelte.ts";
import { toasts } from "./toasts.svelte.ts";

/** A list that is loaded page by page. */
export interface PagedList<T> {
	readonly first: Resource<PageOf<T>>;
	readonly items: readonly T[];
	readonly more: boolean;
	/** Whether the last look found nothing, and there is more to look at. */
	readonly unfinished: boolean;
	readonly loadingMore: boolean;
	readonly error: ApiError | undefined;
	readonly total: Total | null;
	/** Whether something changed since several pages were loaded, which only `refresh` shows. */
	readonly outdated: boolean;
	loadMore(): Promise<void>;
	/** Begins again with the first page. */
	refresh(): void;
	/** Refreshes where that moves nothing under the reader; else says that it is outdated. */
	noticeChange(): void;
}

/** @param load as of {@link resource}; `cursor` is undefined for the first page */
export function pagedList<T>(
	load: (cursor: string | undefined, signal?: AbortSignal) => Promise<PageOf<T>> | undefined,
): PagedList<T> {
	let rest = $state.raw<readonly T[]>([]);
	let next = $state.raw<string | null>(null);
	let unfinished = $state(false);
	let outdated = $state(false);
	let going = $state.raw<AbortController>();

	const first = resource<PageOf<T>>((signal) => {
		untrack(() => going?.abort());
		const promise = searchOn((cursor) => load(cursor, signal));
		return promise?.then((page) => {
			untrack(() => {
				rest = [];
				outdated = false;
				goOnFrom(page);
			});
			return page;
		});
	});
	const items = $derived([...(first.data?.items ?? []), ...rest]);
	const total = $derived.by(() => {
		const found = first.data?.total ?? null;
		return found && !found.exact && found.count < items.length
			? { ...found, count: items.length }
			: found;
	});

	function goOnFrom(page: PageOf<T>): void {
		next = page.next;
		unfinished = page.next !== null && page.items.length === 0;
	}

	return {
		first,
		get items() {
			return items;
		},
		get more() {
			return next !== null;
		},
		get unfinished() {
			return unfinished;
		},
		get loadingMore() {
			return going !== undefined;
		},
		get error() {
			return first.error;
		},
		get total() {
			return total;
		},
		get outdated() {
			return outdated;
		},
		async loadMore() {
			if (going || next === null) return;
			const leaving = new AbortController();
			going = leaving;
			try {
				const more = await searchOn((cursor) => load(cursor, leaving.signal), next);
				if (!more || leaving.signal.aborted) return;
				rest = [...rest, ...more.items];
				goOnFrom(more);
			} catch (error) {
				if (isAbort(error)) return;
				if (!(error instanceof ApiError)) throw error;
				toasts.show("bad", errorTitle(error), error.message);
			} finally {
				going = undefined;
			}
		},
		refresh: first.refresh,
		noticeChange() {
			// A search that went on would begin anew.
			if (rest.length === 0 && !unfinished && !going) first.refresh();
			else outdated = true;
		},
	};
}
