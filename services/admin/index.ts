import type { ServerResponse } from "node:http";
import type { ServiceSchema } from "moleculer";
import ApiGateway from "moleculer-web";
import type { ApiSettingsSchema, GatewayResponse, IncomingRequest } from "moleculer-web";

import { refuseForeign, refuseOtherBodies } from "./guard.ts";
import { type AdminSettings, type LottorAdminOptions, readAdminOptions } from "./options.ts";
import { problemOf } from "./problem.ts";
import { ROUTES, type Route } from "./routes.ts";

export type { LottorAdminOptions } from "./options.ts";

type Next = (error?: unknown) => void;

/**
 * The coordinator's HTTP side: a Moleculer service that answers on this machine only and turns
 * requests into calls of the coordinator's actions, in this or another process.
 *
 * @example
 * broker.createService(LottorAdmin({ port: 9666 }));
 */
export function LottorAdmin(options: LottorAdminOptions = {}): ServiceSchema<ApiSettingsSchema> {
	const settings = readAdminOptions(options);
	return {
		name: "lottor-admin",
		mixins: [ApiGateway],
		settings: {
			port: settings.port,
			ip: settings.ip,
			logRequest: "debug",
			logResponse: "debug",
			logRouteRegistration: null,
			onError: sendProblem,
			routes: [
				{
					path: "/",
					mappingPolicy: "restrict",
					// Bodies and queries stay apart: a field of one must not pass for the other's.
					mergeParams: false,
					bodyParsers: { json: { limit: settings.maxBody } },
					use: [guard],
					aliases: Object.fromEntries(
						Object.entries(ROUTES).map(([path, route]) => [
							path,
							answerWith(route, settings),
						]),
					),
				},
			],
		},
	};
}

function guard(req: IncomingRequest, _res: GatewayResponse, next: Next): void {
	try {
		refuseForeign(req);
		refuseOtherBodies(req);
		next();
	} catch (error) {
		next(error);
	}
}

function answerWith(route: Route, { coordinator, callTimeout }: AdminSettings) {
	return (req: IncomingRequest, res: GatewayResponse, next: Next): void => {
		const { params, query, body } = req.$params as {
			params: { id?: string };
			query: Record<string, unknown>;
			body?: Record<string, unknown>;
		};
		const call = <T>(action: string, args: object) =>
			req.$ctx.call<T, object>(`${coordinator}.${action}`, args, {
				timeout: callTimeout,
				retries: 0,
			});
		route(call, { id: params.id ?? "", query, body: body ?? {} })
			.then((answer) => sendJson(res, 200, answer))
			.catch(next);
	};
}

function sendProblem(req: IncomingRequest, res: ServerResponse, error: unknown): void {
	const { status, ...problem } = problemOf(error);
	if (status === 500) req.$service.logger.error("A request failed.", error);
	sendJson(res, status, problem);
}

function sendJson(res: ServerResponse, status: number, body: unknown): void {
	if (res.headersSent || res.destroyed) return;
	res.writeHead(status, {
		"Content-Type": "application/json; charset=utf-8",
		"Cache-Control": "no-store",
		"X-Content-Type-Options": "nosniff",
	});
	res.end(JSON.stringify(body));
}
