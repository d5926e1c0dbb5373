import type { Problem } from "./models.ts";
import {
	type RequestOf,
	type ResponseOf,
	type RouteDefinition,
	type RouteName,
	ROUTES,
} from "./routes.ts";

/** What the server refused, or that it was not reached: then `status` is 0. */
export class ApiError extends Error {
	readonly status: number;
	/** A LOTTOR_ code, one of HTTP's, or `UNREACHABLE`. */
	readonly code: string;
	readonly data: Readonly<Record<string, unknown>>;

	constructor(status: number, problem: Problem) {
		super(problem.message);
		this.name = "ApiError";
		this.status = status;
		this.code = problem.code;
		this.data = problem.data;
	}
}

export interface ApiClientOptions {
	/** Where the server is. @default "", the page's own */
	readonly base?: string;
	/** @default the global one */
	readonly fetch?: typeof fetch;
	/** Headers of each request: a bearer token, or a session's X-CSRF-Token. */
	readonly headers?: () => Readonly<Record<string, string>>;
}

export type ApiClient = <Name extends RouteName>(
	name: Name,
	...rest: object extends RequestOf<Name>
		? [request?: RequestOf<Name>, signal?: AbortSignal]
		: [request: RequestOf<Name>, signal?: AbortSignal]
) => Promise<ResponseOf<Name>>;

interface AnyRequest {
	readonly id?: string;
	readonly query?: Readonly<Record<string, unknown>>;
	readonly body?: unknown;
}

/**
 * Makes what calls the API by the names of its routes, typed by their schemas. Rejects with an
 * {@link ApiError}.
 *
 * @example
 * const api = apiClient();
 * const page = await api("groups", { query: { states: ["inDoubt"] } });
 */
export function apiClient(options: ApiClientOptions = {}): ApiClient {
	const call = async (name: RouteName, request: AnyRequest = {}, signal?: AbortSignal) => {
		const { method }: RouteDefinition = ROUTES[name];
		const response = await send(`${options.base ?? ""}${urlOf(name, request)}`, {
			method,
			headers: {
				...options.headers?.(),
				...(request.body !== undefined && { "Content-Type": "application/json" }),
			},
			...(request.body !== undefined && { body: JSON.stringify(request.body) }),
			...(signal && { signal }),
		});
		const answer = (await response.json().catch(() => undefined)) as unknown;
		if (response.ok && answer !== undefined) return answer;
		throw new ApiError(response.status, problemOf(response.status, answer));
	};
	return call as ApiClient;

	async function send(url: string, init: RequestInit): Promise<Response> {
		try {
			return await (options.fetch ?? fetch)(url, init);
		} catch (error) {
			if (error instanceof Error && error.name === "AbortError") throw error;
			const message = error instanceof Error ? error.message : String(error);
			throw new ApiError(0, { code: "UNREACHABLE", message, data: {} });
		}
	}
}

/** @returns path and query of a request: also what a link to it needs */
export function urlOf(name: RouteName, { id, query = {} }: AnyRequest = {}): string {
	const path = ROUTES[name].path.replace(":id", encodeURIComponent(id ?? ""));
	const search = new URLSearchParams();
	for (const [key, value] of Object.entries(query)) {
		if (value === undefined) continue;
		for (const one of Array.isArray(value) ? (value as unknown[]) : [value]) {
			search.append(key, String(one));
		}
	}
	return search.size === 0 ? path : `${path}?${search}`;
}

function problemOf(status: number, answer: unknown): Problem {
	if (typeof answer === "object" && answer !== null && "code" in answer && "data" in answer) {
		return answer as Problem;
	}
	return { code: "UNREACHABLE", message: `The server answered ${status}`, data: {} };
}
