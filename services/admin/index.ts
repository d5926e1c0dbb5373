import type { Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Context, Service, ServiceSchema } from "moleculer";
import ApiGateway from "moleculer-web";
import type { ApiSettingsSchema, GatewayResponse, IncomingRequest } from "moleculer-web";

import {
	CHANGED_EVENT,
	type ChangedNotice,
	hasCode,
	LOTTOR_VERSION,
	LottorError,
	messageOf,
	newGroupId,
	newStoreId,
	type Random,
	systemRandom,
} from "../../protocol/index.ts";
import { Access } from "./access.ts";
import {
	faultOf,
	openApi,
	queryValues,
	type Role,
	type RouteDefinition,
	type RouteName,
	ROUTES,
} from "./api/index.ts";
import type { CallCoordinator } from "./coordinator-calls.ts";
import { DOCS_PAGE } from "./docs-page.ts";
import { EventHub } from "./events.ts";
import { refuseForeign, refuseOtherBodies } from "./guard.ts";
import { HANDLERS, type HandlerContext } from "./handlers.ts";
import { setSecurityHeaders } from "./headers.ts";
import { newAdminToken as makeToken } from "./identity.ts";
import { Jobs } from "./jobs.ts";
import { Live } from "./live.ts";
import { noteLogin, noteRefusal } from "./notes.ts";
import {
	type AdminSettings,
	type AdminToken,
	type LottorAdminOptions,
	readAdminOptions,
} from "./options.ts";
import { invalidField, problemOf, RequestRefused } from "./problem.ts";
import { adminUi } from "./ui.ts";

export type { AdminOidc, AdminToken, LottorAdminOptions } from "./options.ts";
export type { Permission, Role } from "./api/index.ts";

type Next = (error?: unknown) => void;

/** What runs behind one admin service. */
interface Running {
	readonly settings: AdminSettings;
	readonly call: CallCoordinator;
	readonly access: Access;
	readonly hub: EventHub;
	readonly live: Live;
	readonly jobs: Jobs;
}

/** Apart from the schema: Moleculer clones and publishes what a schema holds. */
const running = new WeakMap<Service, Running>();

/**
 * The coordinator's HTTP side: a Moleculer service that turns requests into calls of the
 * coordinator's actions, in this or another process, and streams what changes. Without `tokens`
 * and `oidc` it answers on this machine only, reading is open, and a login link is logged.
 *
 * @throws LOTTOR_INVALID_OPTIONS naming the field
 * @example
 * broker.createService(LottorAdmin({ port: 9666 }));
 */
export function LottorAdmin(options: LottorAdminOptions = {}): ServiceSchema<ApiSettingsSchema> {
	const settings = readAdminOptions(options);
	const ui = adminUi();
	return {
		name: "lottor-admin",
		mixins: [ApiGateway],
		settings: {
			port: settings.port,
			ip: settings.ip,
			// A login link's code is part of its URL.
			logRequest: null,
			logResponse: null,
			logRouteRegistration: null,
			onError: sendProblem,
			routes: [
				{
					path: "/",
					mappingPolicy: "restrict",
					// Bodies and queries stay apart: a field of one must not pass for the other's.
					mergeParams: false,
					bodyParsers: { json: { limit: settings.maxBody } },
					use: [guardOf(settings)],
					aliases: { ...aliases(), ...pages() },
				},
			],
		},
		actions: {
			/** For the REPL of this process: a new link that logs in once. */
			loginLink: {
				visibility: "protected",
				handler(this: Service) {
					return linkOf(this);
				},
			},
		},
		events: {
			[CHANGED_EVENT](this: Service, ctx: Context<ChangedNotice>) {
				running.get(this)?.live.changed(ctx.params);
			},
		},
		methods: {
			/** What no route answers to is the UI's: its files, and its page for each of its addresses. */
			send404(req: IncomingRequest, res: GatewayResponse): void {
				ui.serve(req, res)
					.then((served) => {
						if (!served) sendProblem(req, res, notFound(req));
					})
					.catch((error: unknown) => sendProblem(req, res, error));
			},
		},
		created(this: Service) {
			running.set(this, assemble(this, settings));
		},
		started(this: Service) {
			const { ip } = settings;
			if (!settings.open) return;
			this.logger.info(
				`Log in at ${linkOf(this)} (once, within an hour). Reading needs no login on ${ip}`,
			);
		},
		async stopped(this: Service) {
			const parts = running.get(this);
			parts?.live.stop();
			parts?.hub.close();
			await parts?.jobs.stop();
			// The gateway waits for connections; an idle one would hold it up.
			serverOf(this)?.closeIdleConnections();
		},
	};
}

/**
 * Makes a token and its entry for the option `tokens`. The token is kept nowhere: hand it to
 * whoever it is for.
 *
 * @param name who it is for; shown in timelines and the audit log
 * @param role what they may do
 * @param random for tests
 */
export function newAdminToken(
	name: string,
	role: Role,
	random: Random = systemRandom,
): { readonly token: string; readonly entry: AdminToken } {
	return makeToken(name, role, random);
}

function assemble(service: Service, settings: AdminSettings): Running {
	const { clock, random, coordinator, callTimeout, maxStreams: most } = settings;
	const call: CallCoordinator = (action, params, timeout = callTimeout) =>
		service.broker.call(`${coordinator}.${action}`, params, { timeout, retries: 0 });
	const hub = new EventHub({ clock, most, boot: newStoreId(random).slice(0, 8) });
	return {
		settings,
		call,
		hub,
		access: new Access(settings, (identity) => hub.endOf(identity)),
		live: new Live(hub, call, clock),
		jobs: new Jobs({
			call,
			clock,
			newId: () => newGroupId(clock, random),
			tell: (job) => hub.publish("job", job),
		}),
	};
}

function partsOf(req: IncomingRequest): Running {
	const parts = running.get(req.$service);
	if (!parts) throw new LottorError("LOTTOR_STOPPING", "This service is not running");
	return parts;
}

function linkOf(service: Service): string {
	const parts = running.get(service);
	const address = serverOf(service)?.address() as AddressInfo | null;
	const code = parts?.access.newCode() ?? "";
	return `http://localhost:${address?.port ?? parts?.settings.port}/login?code=${code}`;
}

function serverOf(service: Service): Server | undefined {
	return (service as unknown as { readonly server?: Server }).server;
}

function guardOf({ hosts, secureCookie }: AdminSettings) {
	return (req: IncomingRequest, res: GatewayResponse, next: Next): void => {
		setSecurityHeaders(res, secureCookie);
		try {
			refuseForeign(req, hosts);
			refuseOtherBodies(req);
			next();
		} catch (error) {
			next(error);
		}
	};
}

type Alias = (req: IncomingRequest, res: GatewayResponse, next: Next) => void;

/** Every route of the API. */
function aliases(): Record<string, Alias> {
	return Object.fromEntries(
		Object.entries<RouteDefinition>(ROUTES).map(([name, route]) => [
			`${route.method} ${route.path}`,
			(req, res, next) => {
				answer(name as RouteName, route, req, res)
					.catch((error: unknown) => noteForbidden(error, name, req))
					.catch(next);
			},
		]),
	);
}

/** What is no part of the API: the login link, and the document with its page. */
function pages(): Record<string, Alias> {
	const document = JSON.stringify(openApi(LOTTOR_VERSION));
	const files: Readonly<Record<string, readonly [type: string, content: string]>> = {
		"/api/openapi.json": ["application/json; charset=utf-8", document],
		...DOCS_PAGE,
	};
	return {
		"GET /login": (req, res, next) => {
			followLink(req, res).catch(next);
		},
		...Object.fromEntries(
			Object.entries(files).map(([path, [type, content]]): [string, Alias] => [
				`GET ${path}`,
				(req, res, next) => {
					partsOf(req)
						.access.admit(req, "read")
						.then(() => send(res, 200, type, content))
						.catch(next);
				},
			]),
		),
	};
}

async function answer(
	name: RouteName,
	route: RouteDefinition,
	req: IncomingRequest,
	res: GatewayResponse,
): Promise<void> {
	const parts = partsOf(req);
	const { permission } = route;
	const identity = permission === null ? undefined : await parts.access.admit(req, permission);
	if (name === "events") {
		parts.hub.open(req, res, identity);
		parts.live.looked();
		return;
	}
	const { settings, call, access, jobs } = parts;
	const { clock } = settings;
	const context: HandlerContext = { settings, call, access, jobs, clock, identity, req, res };
	const handler = HANDLERS[name] as (context: HandlerContext, request: object) => Promise<object>;
	sendJson(res, route.status ?? 200, await handler(context, checked(route, req)));
}

/** Notes who wanted what is not theirs. @throws the error */
async function noteForbidden(error: unknown, name: string, req: IncomingRequest): Promise<never> {
	if (hasCode(error, "LOTTOR_FORBIDDEN")) {
		const { access, call } = partsOf(req);
		const { id } = (req.$params as unknown as Sent).params;
		await noteRefusal(call, await access.identify(req), name, id);
	}
	throw error;
}

interface Sent {
	readonly params: { readonly id?: string };
	readonly query: Record<string, unknown>;
	readonly body?: Record<string, unknown>;
}

/** @throws LOTTOR_INVALID_REQUEST that names the field */
function checked(route: RouteDefinition, req: IncomingRequest) {
	const { params, query, body = {} } = req.$params as unknown as Sent;
	const values = route.query ? queryValues(route.query, query) : query;
	const parts = [
		[route.id, params.id, "id"],
		[route.query ?? NOTHING, values, ""],
		[route.body ?? NOTHING, body, ""],
	] as const;
	for (const [schema, value, field] of parts) {
		const fault = schema && faultOf(schema.json, value, field);
		if (fault) throw invalidField(fault.field || "body", fault.problem);
	}
	return { id: params.id, query: values, body };
}

const NOTHING = { json: { type: "object", properties: {}, additionalProperties: false } } as const;

/** A login link of the log: begins a session, and goes on to the pages. */
async function followLink(req: IncomingRequest, res: GatewayResponse): Promise<void> {
	const { access, call } = partsOf(req);
	const { code } = (req.$params as unknown as Sent).query;
	const { identity, cookie } = access.loginByCode(req, typeof code === "string" ? code : "");
	await noteLogin(call, identity, "link");
	res.writeHead(303, { Location: "/", "Set-Cookie": cookie, "Cache-Control": "no-store" });
	res.end();
}

function sendProblem(req: IncomingRequest, res: ServerResponse, error: unknown): void {
	const { status, ...problem } = problemOf(error);
	if (status === 500) req.$service.logger.error("A request failed.", error);
	else req.$service.logger.debug(`${req.method} refused: ${problem.code}: ${messageOf(error)}`);
	const { retryAfter } = problem.data as { readonly retryAfter?: unknown };
	if (typeof retryAfter === "number") res.setHeader("Retry-After", String(retryAfter));
	if (status === 401) res.setHeader("WWW-Authenticate", "Bearer");
	sendJson(res, status, problem);
}

function notFound({ method }: IncomingRequest): RequestRefused {
	return new RequestRefused(404, "NOT_FOUND", `There is nothing to ${method} here`);
}

function sendJson(res: ServerResponse, status: number, body: unknown): void {
	send(res, status, "application/json; charset=utf-8", JSON.stringify(body));
}

function send(res: ServerResponse, status: number, type: string, content: string): void {
	if (res.headersSent || res.destroyed) return;
	res.writeHead(status, { "Content-Type": type, "Cache-Control": "no-store" });
	res.end(content);
}
