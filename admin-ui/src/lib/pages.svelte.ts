import { untrack } from "svelte";

import { ApiError } from "./api/client.ts";
import { errorTitle } from "./errors.ts";
import { type Resource, resource } from "./resource.svelte.ts";
import { toasts } from "./toasts.svelte.ts";

export interface PageOf<T> {
	readonly items: readonly T[];
	readonly next: string | null;
	readonly total?: Total | null;
}

export interface Total {
	readonly count: number;
	readonly exact: boolean;
}

/** A list that is loaded page by page. */
export interface PagedList<T> {
	readonly first: Resource<PageOf<T>>;
	readonly items: readonly T[];
	readonly more: boolean;
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
	let loadingMore = $state(false);
	let outdated = $state(false);

	const first = resource<PageOf<T>>((signal) => {
		const promise = load(undefined, signal);
		return promise?.then((page) => {
			untrack(() => {
				rest = [];
				next = page.next;
				outdated = false;
			});
			return page;
		});
	});
	const items = $derived([...(first.data?.items ?? []), ...rest]);

	return {
		first,
		get items() {
			return items;
		},
		get more() {
			return next !== null;
		},
		get loadingMore() {
			return loadingMore;
		},
		get error() {
			return first.error;
		},
		get total() {
			return first.data?.total ?? null;
		},
		get outdated() {
			return outdated;
		},
		async loadMore() {
			if (loadingMore || next === null) return;
			const [cursor, page] = [next, first.data];
			loadingMore = true;
			try {
				const more = await load(cursor);
				if (!more || first.data !== page) return;
				rest = [...rest, ...more.items];
				next = more.next;
			} catch (error) {
				if (!(error instanceof ApiError)) throw error;
				toasts.show("bad", errorTitle(error), error.message);
			} finally {
				loadingMore = false;
			}
		},
		refresh: first.refresh,
		noticeChange() {
			if (rest.length === 0) first.refresh();
			else outdated = true;
		},
	};
}
