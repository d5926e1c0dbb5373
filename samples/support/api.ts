import type { ServerResponse } from "node:http";
import type { ServiceSchema } from "moleculer";
import ApiGateway from "moleculer-web";
import type { ApiSettingsSchema, IncomingRequest } from "moleculer-web";

/** The HTTP side of a sample: a small moleculer-web service on this machine's own address. */
export function sampleApi(
	name: string,
	port: number,
	aliases: Readonly<Record<string, string>>,
): ServiceSchema<ApiSettingsSchema> {
	return {
		name,
		mixins: [ApiGateway],
		settings: {
			port,
			ip: "127.0.0.1",
			logRequest: "debug",
			logResponse: "debug",
			logRouteRegistration: null,
			onError: sendError,
			// Without "restrict" every published action of every service would be reachable.
			routes: [{ path: "/", mappingPolicy: "restrict", aliases: { ...aliases } }],
		},
	};
}

interface Thrown {
	readonly type?: string;
	readonly code?: unknown;
	readonly status?: unknown;
	readonly message?: string;
	readonly data?: { readonly group?: string };
}

/** The error's own code, and the group that it ended, where there is one. */
function sendError(req: IncomingRequest, res: ServerResponse, error: Thrown): void {
	const status = Number(error.status ?? error.code);
	const known = status >= 400 && status < 600;
	if (!known || status === 500) req.$service.logger.error("A request failed.", error);
	res.writeHead(known ? status : 500, { "Content-Type": "application/json; charset=utf-8" });
	res.end(
		JSON.stringify({
			code: known ? (error.type ?? "ERROR") : "INTERNAL_ERROR",
			message: known ? error.message : "Something failed; see the log.",
			group: error.data?.group,
			data: error.data,
		}),
	);
}
