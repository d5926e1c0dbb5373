import { untrack } from "svelte";

import { ApiError, isAbort } from "./api/client.ts";

/** Something loaded from the server, and loaded again when what it depends on changes. */
export interface Resource<T> {
	/** What came last; stays while it is loaded anew. */
	readonly data: T | undefined;
	/** Why the last try failed. */
	readonly error: ApiError | undefined;
	readonly loading: boolean;
	/** When `data` came. */
	readonly at: number;
	/** Loads it again, after the load under way, which may have read what was there before. */
	refresh(): void;
}

/**
 * Must be made while a component is.
 *
 * @param load reads what it depends on before its first await; `undefined` instead of a promise: nothing to load
 */
export function resource<T>(load: (signal: AbortSignal) => Promise<T> | undefined): Resource<T> {
	let loaded = $state.raw<Loaded<T>>({ at: 0 });
	let loading = $state(true);
	let again = $state(0);
	let running = false;
	let stale = false;

	$effect(() => {
		void again;
		const leaving = new AbortController();
		const promise = load(leaving.signal);
		if (!promise) {
			running = false;
			loading = false;
			return;
		}
		running = true;
		stale = false;
		untrack(() => (loading = true));
		promise.then(
			(data) => {
				if (!leaving.signal.aborted) loaded = { data, at: Date.now() };
				settle();
			},
			(error: unknown) => {
				if (leaving.signal.aborted || isAbort(error)) return;
				loaded = { ...untrack(() => loaded), error: asApiError(error) };
				settle();
			},
		);
		const settle = (): void => {
			if (leaving.signal.aborted) return;
			running = false;
			loading = false;
			if (stale) again++;
		};
		return () => leaving.abort();
	});

	return {
		get data() {
			return loaded.data;
		},
		get error() {
			return loaded.error;
		},
		get loading() {
			return loading;
		},
		get at() {
			return loaded.at;
		},
		refresh() {
			if (running) stale = true;
			else again++;
		},
	};
}

interface Loaded<T> {
	readonly data?: T;
	readonly error?: ApiError;
	readonly at: number;
}

function asApiError(error: unknown): ApiError {
	if (error instanceof ApiError) return error;
	return new ApiError(
		0,
		"INTERNAL_ERROR",
		error instanceof Error ? error.message : String(error),
	);
}
