import * as http from "node:http";
import * as https from "node:https";

import { LottorError } from "../../protocol/index.ts";
import type { TlsOptions } from "./contract.ts";

/** What one request may bring along. */
export interface HttpRequest {
	readonly body?: unknown;
	readonly headers?: Readonly<Record<string, string>>;
	/** Milliseconds; 0 for none. @default the client's */
	readonly timeout?: number;
	readonly signal?: AbortSignal;
}

/** An answer, whatever its status. */
export interface HttpAnswer {
	readonly status: number;
	readonly headers: http.IncomingHttpHeaders;
	readonly text: string;
}

/** What all requests of a client have in common. */
export interface HttpClientOptions {
	readonly headers: Readonly<Record<string, string>>;
	readonly timeout: number;
	readonly tls: TlsOptions;
	/** Called once for each request that is sent. */
	counted(): void;
}

/**
 * HTTP over connections that are kept open. Not `fetch`, since that one takes neither an authority's
 * nor a client's certificate. Requests must be safe to repeat: one that meets a connection which the
 * server is closing is sent again.
 */
export class HttpClient {
	readonly #options: HttpClientOptions;
	#agents: { http: http.Agent; https: https.Agent } | undefined;

	constructor(options: HttpClientOptions) {
		this.#options = options;
	}

	/** @throws whatever keeps the answer from coming; its text has the server, never a header or the query */
	async request(method: string, url: string, request: HttpRequest = {}): Promise<HttpAnswer> {
		try {
			return await this.#send(method, url, request).catch((error: unknown) => {
				if (!isStale(error)) throw error;
				return this.#send(method, url, request);
			});
		} catch (error) {
			const { host, pathname } = new URL(url);
			throw new LottorError(
				"LOTTOR_REGISTRY_UNAVAILABLE",
				`${method} ${pathname} at ${host} got no answer`,
				{},
				error,
			);
		}
	}

	/** Ends all connections. */
	close(): void {
		this.#agents?.http.destroy();
		this.#agents?.https.destroy();
		this.#agents = undefined;
	}

	#send(method: string, url: string, request: HttpRequest): Promise<HttpAnswer> {
		const { headers, timeout: usual, tls } = this.#options;
		this.#agents ??= {
			http: new http.Agent({ keepAlive: true }),
			https: new https.Agent({ keepAlive: true, ...(tls as https.AgentOptions) }),
		};
		const secure = url.startsWith("https:");
		const timeout = request.timeout ?? usual;
		const body = request.body === undefined ? undefined : JSON.stringify(request.body);
		this.#options.counted();

		return new Promise((resolve, reject) => {
			const sent = (secure ? https : http).request(
				url,
				{
					method,
					agent: secure ? this.#agents?.https : this.#agents?.http,
					headers: {
						Accept: "application/json",
						...(body !== undefined && {
							"Content-Type": "application/json",
							"Content-Length": Buffer.byteLength(body),
						}),
						...headers,
						...request.headers,
					},
					...(request.signal && { signal: request.signal }),
				},
				(response) => {
					const chunks: Buffer[] = [];
					response.on("data", (chunk: Buffer) => chunks.push(chunk));
					response.once("error", reject);
					response.once("end", () => {
						resolve({
							status: response.statusCode ?? 0,
							headers: response.headers,
							text: Buffer.concat(chunks).toString(),
						});
					});
				},
			);
			const timer =
				timeout > 0
					? setTimeout(
							() => sent.destroy(new Error(`no answer in ${timeout} ms`)),
							timeout,
						)
					: undefined;
			sent.once("close", () => {
				clearTimeout(timer);
				reject(new Error("the connection was closed"));
			});
			sent.once("error", (error) => {
				reject(Object.assign(error, { reused: sent.reusedSocket }));
			});
			sent.end(body);
		});
	}
}

/** A connection out of the pool that the server had closed meanwhile. */
function isStale(error: unknown): boolean {
	const { reused, code } = error as { reused?: boolean; code?: string };
	return reused === true && (code === "ECONNRESET" || code === "EPIPE");
}
