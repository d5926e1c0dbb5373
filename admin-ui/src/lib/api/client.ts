/** What the server, or the way to it, answered instead of success. */
export class ApiError extends Error {
	readonly status: number;
	/** A stable code, as docs/errors.md lists them; `UNREACHABLE` when no answer came at all. */
	readonly code: string;
	readonly data: Readonly<Record<string, unknown>>;

	constructor(
		status: number,
		code: string,
		message: string,
		data: Readonly<Record<string, unknown>> = {},
	) {
		super(message);
		this.name = "ApiError";
		this.status = status;
		this.code = code;
		this.data = data;
	}
}

export type QueryValue = string | number | boolean | null | undefined | readonly string[];
export type Query = Readonly<Record<string, QueryValue>>;

export interface CallOptions {
	readonly query?: Query;
	readonly body?: unknown;
	readonly signal?: AbortSignal | undefined;
}

/** Told of every answer, so that the shell knows when the session or the server is gone. */
export type Watcher = (outcome: { readonly ok: boolean; readonly error?: ApiError }) => void;

const TIME_LIMIT = 20_000;

const watchers = new Set<Watcher>();

let csrf: string | null = null;

/** What a session's changes must bring along. */
export function useCsrfToken(token: string | null): void {
	csrf = token;
}

export function watchCalls(watcher: Watcher): () => void {
	watchers.add(watcher);
	return () => watchers.delete(watcher);
}

/** @returns `?a=1&b=x,y`, without what is empty; "" when nothing is left */
export function queryString(query: Query): string {
	const params = new URLSearchParams();
	for (const [name, value] of Object.entries(query)) {
		if (value === undefined || value === null || value === "") continue;
		const text = Array.isArray(value) ? value.join(",") : String(value);
		if (text !== "") params.set(name, text);
	}
	const text = params.toString();
	return text === "" ? "" : `?${text}`;
}

/**
 * Calls the admin API.
 *
 * @throws ApiError, also when nobody answers; AbortError when the signal says so
 */
export async function call<T>(
	method: "GET" | "POST" | "PUT" | "DELETE",
	path: string,
	options: CallOptions = {},
): Promise<T> {
	try {
		const answer = await send(method, path, options);
		tell({ ok: true });
		return answer as T;
	} catch (error) {
		if (error instanceof ApiError) tell({ ok: false, error });
		throw error;
	}
}

async function send(method: string, path: string, options: CallOptions): Promise<unknown> {
	const limit = AbortSignal.timeout(TIME_LIMIT);
	const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
	let response: Response;
	let text: string;
	try {
		response = await fetch(path + queryString(options.query ?? {}), {
			method,
			signal,
			credentials: "same-origin",
			headers: {
				Accept: "application/json",
				...(options.body !== undefined && { "Content-Type": "application/json" }),
				...(method !== "GET" && csrf !== null && { "X-CSRF-Token": csrf }),
			},
			...(options.body !== undefined && { body: JSON.stringify(options.body) }),
		});
		text = await response.text();
	} catch (error) {
		if (options.signal?.aborted) throw error;
		const why = limit.aborted ? "No answer in time" : "The server cannot be reached";
		throw new ApiError(0, "UNREACHABLE", why);
	}
	const body = parsed(text);
	if (response.ok) return body;
	throw errorOf(response.status, body);
}

function errorOf(status: number, body: unknown): ApiError {
	const { code, message, data } = (typeof body === "object" && body !== null ? body : {}) as {
		code?: unknown;
		message?: unknown;
		data?: unknown;
	};
	return new ApiError(
		status,
		typeof code === "string" ? code : "INTERNAL_ERROR",
		typeof message === "string" ? message : `HTTP ${status}`,
		typeof data === "object" && data !== null ? (data as Record<string, unknown>) : {},
	);
}

function parsed(text: string): unknown {
	if (text === "") return undefined;
	try {
		return JSON.parse(text) as unknown;
	} catch {
		return undefined;
	}
}

function tell(outcome: Parameters<Watcher>[0]): void {
	for (const watcher of watchers) watcher(outcome);
}

export function isAbort(error: unknown): boolean {
	return error instanceof DOMException && error.name === "AbortError";
}
