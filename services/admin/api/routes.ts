import type { Permission } from "./access.ts";
import {
	AUDIT_PAGE,
	CLIENTS,
	COORDINATORS,
	DAILY,
	DONE,
	FACETS,
	FAILURES,
	GROUP,
	GROUP_ID,
	GROUP_PAGE,
	GROUP_STATE,
	JOB,
	JOBS,
	ME,
	MESSAGE_ID,
	MESSAGE_PAGE,
	MESSAGE_STATE,
	OVERVIEW,
	RATES,
	SERVICES,
	SETTINGS,
	STATUS,
} from "./models.ts";
import {
	anything,
	integer,
	list,
	named,
	object,
	oneOf,
	optional,
	type Schema,
	type Static,
	text,
	truth,
} from "./schema.ts";

/** One route: what it takes, what it answers, what the caller must be allowed. */
export interface RouteDefinition {
	readonly method: "GET" | "POST" | "PUT";
	readonly path: string;
	readonly tag: string;
	readonly summary: string;
	/** `null`: whoever asks. Of several, one; what it is about tells which. */
	readonly permission: Permission | readonly Permission[] | null;
	/** Of the `:id` in the path. */
	readonly id?: Schema<string>;
	readonly query?: Schema<object>;
	readonly body?: Schema<object>;
	readonly response: Schema<object>;
	/** @default 200 */
	readonly status?: number;
	/** Of the answer. @default "application/json" */
	readonly mediaType?: "text/event-stream";
}

const name = (description: string) => text({ minLength: 1, maxLength: 255, description });
const moment = (description: string) =>
	integer({ minimum: 0, maximum: 9_999_999_999_999, description });

const FILTER = {
	source: optional(name("the producer")),
	target: optional(name("a message's target")),
	type: optional(name("a message's type")),
	errorCode: optional(name("code of a message's last error")),
	text: optional(
		text({
			minLength: 1,
			maxLength: 200,
			description:
				"begin of a group's id (6 characters or more), or a message's whole id, or part of a type, target or error code, or the value of a searchable payload field",
		}),
	),
	since: optional(moment("prepared at or after, milliseconds since 1970")),
	until: optional(moment("prepared before, milliseconds since 1970")),
};

const PAGING = {
	sort: optional(oneOf(["newest", "oldest"], "by the time of prepare; newest unless said")),
	limit: optional(integer({ minimum: 1, maximum: 200, description: "50 unless said" })),
	cursor: optional(
		text({ minLength: 1, maxLength: 1_000, description: "`next` of the page before" }),
	),
	total: optional(truth("whether to count all that match, up to 10,000")),
	fields: optional(
		list(text({ minLength: 1, maxLength: 100 }), {
			minItems: 1,
			maxItems: 5,
			description: "paths in the payload whose values come with each row: user.name",
		}),
	),
};

function idPrefix(pattern: string, description: string) {
	return optional(text({ minLength: 1, maxLength: 31, pattern, description }));
}

const GROUP_FILTER = {
	states: optional(list(GROUP_STATE, { minItems: 1, maxItems: 5 })),
	idPrefix: idPrefix("^[0-9a-z.]*$", "begin of the id"),
	conflict: optional(truth("only groups with contradicting decisions, or only those without")),
	...FILTER,
};
const MESSAGE_FILTER = {
	states: optional(list(MESSAGE_STATE, { minItems: 1, maxItems: 6 })),
	idPrefix: idPrefix(
		"^([0-9a-z]{1,26}|[0-9a-z]{26}\\.(0|[1-9][0-9]{0,3})?)$",
		"begin of the group's id, or the message's whole id",
	),
	...FILTER,
};

const WHY = text({ minLength: 1, maxLength: 1_000, description: "the reason, kept for good" });
const VERSION = optional(
	integer({
		minimum: 0,
		description: "the version that you saw; another one is a LOTTOR_VERSION_CONFLICT",
	}),
);

const MANY = {
	ids: optional(list(MESSAGE_ID, { minItems: 1, maxItems: 10_000 })),
	filter: optional(named("MessageFilter", object(MESSAGE_FILTER))),
};

const DAYS = optional(integer({ minimum: 1, maximum: 366, description: "30 unless said" }));

/** Everything that the server answers to: the one definition of requests, answers and types. */
export const ROUTES = {
	healthz: {
		method: "GET",
		path: "/healthz",
		tag: "health",
		summary: "The process is up",
		permission: null,
		response: STATUS,
	},
	readyz: {
		method: "GET",
		path: "/readyz",
		tag: "health",
		summary: "A coordinator answers and its store works",
		permission: null,
		response: STATUS,
	},
	overview: {
		method: "GET",
		path: "/api/overview",
		tag: "figures",
		summary: "Counts by state, backlog, what waits longest, the last hour",
		permission: "read",
		response: OVERVIEW,
	},
	rates: {
		method: "GET",
		path: "/api/stats/rates",
		tag: "figures",
		summary: "What happened, minute by minute",
		permission: "read",
		query: object({
			minutes: optional(
				integer({ minimum: 1, maximum: 1_440, description: "60 unless said" }),
			),
		}),
		response: RATES,
	},
	daily: {
		method: "GET",
		path: "/api/stats/daily",
		tag: "figures",
		summary: "What happened, day by day (UTC)",
		permission: "read",
		query: object({ days: DAYS }),
		response: DAILY,
	},
	services: {
		method: "GET",
		path: "/api/stats/services",
		tag: "figures",
		summary: "What happened, by source and by target",
		permission: "read",
		query: object({ days: DAYS }),
		response: SERVICES,
	},
	facets: {
		method: "GET",
		path: "/api/facets",
		tag: "figures",
		summary: "Sources, targets, types and error codes that there are to filter by",
		permission: "read",
		response: FACETS,
	},
	groups: {
		method: "GET",
		path: "/api/groups",
		tag: "groups",
		summary: "Groups that match, page by page",
		permission: "read",
		query: object({ ...GROUP_FILTER, ...PAGING }),
		response: GROUP_PAGE,
	},
	group: {
		method: "GET",
		path: "/api/groups/:id",
		tag: "groups",
		summary: "A group with its messages, payloads and timeline",
		permission: "read",
		id: GROUP_ID,
		response: GROUP,
	},
	commitGroup: {
		method: "POST",
		path: "/api/groups/:id/commit",
		tag: "groups",
		summary: "Commits a group in doubt, after its source was asked once more",
		permission: "decide",
		id: GROUP_ID,
		body: object({ why: WHY }),
		response: DONE,
	},
	rollbackGroup: {
		method: "POST",
		path: "/api/groups/:id/rollback",
		tag: "groups",
		summary: "Rolls back a group in doubt, after its source was asked once more",
		permission: "decide",
		id: GROUP_ID,
		body: object({ why: WHY }),
		response: DONE,
	},
	recheckGroup: {
		method: "POST",
		path: "/api/groups/:id/recheck",
		tag: "groups",
		summary: "Asks the producer of an undecided group now",
		permission: "recheck",
		id: GROUP_ID,
		body: object({ why: optional(WHY) }),
		response: DONE,
	},
	messages: {
		method: "GET",
		path: "/api/messages",
		tag: "messages",
		summary: "Messages that match, page by page",
		permission: "read",
		query: object({ ...MESSAGE_FILTER, ...PAGING }),
		response: MESSAGE_PAGE,
	},
	failures: {
		method: "GET",
		path: "/api/messages/errors",
		tag: "messages",
		summary: "Failed messages by target, type and error",
		permission: "read",
		response: FAILURES,
	},
	retryMessage: {
		method: "POST",
		path: "/api/messages/:id/retry",
		tag: "messages",
		summary: "Delivers a failed message again",
		permission: "retry",
		id: MESSAGE_ID,
		body: object({
			version: VERSION,
			why: optional(WHY),
			rebind: optional(truth("let it go to another store than the one it is bound to")),
		}),
		response: DONE,
	},
	discardMessage: {
		method: "POST",
		path: "/api/messages/:id/discard",
		tag: "messages",
		summary: "Gives a message up; its inbox refuses every copy first",
		permission: "discard",
		id: MESSAGE_ID,
		body: object({ version: VERSION, why: WHY }),
		response: DONE,
	},
	editPayload: {
		method: "PUT",
		path: "/api/messages/:id/payload",
		tag: "messages",
		summary: "Gives a failed message another payload; the former is kept",
		permission: "edit",
		id: MESSAGE_ID,
		body: object({ payload: anything("any JSON"), version: VERSION, why: WHY }),
		response: DONE,
	},
	retryMany: {
		method: "POST",
		path: "/api/messages/retry",
		tag: "messages",
		summary: "Retries the failed messages listed, or all that match; answers with a job",
		permission: "retry",
		body: object({ ...MANY, why: optional(WHY) }),
		response: JOB,
		status: 202,
	},
	discardMany: {
		method: "POST",
		path: "/api/messages/discard",
		tag: "messages",
		summary: "Discards the messages listed, or all failed ones that match; answers with a job",
		permission: "discard",
		body: object({ ...MANY, why: WHY }),
		response: JOB,
		status: 202,
	},
	jobs: {
		method: "GET",
		path: "/api/jobs",
		tag: "jobs",
		summary: "Jobs of this process, newest first",
		permission: "read",
		response: JOBS,
	},
	job: {
		method: "GET",
		path: "/api/jobs/:id",
		tag: "jobs",
		summary: "A job's progress",
		permission: "read",
		id: text({ minLength: 1, maxLength: 64 }),
		response: JOB,
	},
	cancelJob: {
		method: "POST",
		path: "/api/jobs/:id/cancel",
		tag: "jobs",
		summary: "Ends a job, by the permission of its action; what it did stays done",
		permission: ["retry", "discard"],
		id: text({ minLength: 1, maxLength: 64 }),
		response: JOB,
	},
	clients: {
		method: "GET",
		path: "/api/clients",
		tag: "cluster",
		summary: "Connected producers and consumers",
		permission: "read",
		response: CLIENTS,
	},
	coordinators: {
		method: "GET",
		path: "/api/coordinators",
		tag: "cluster",
		summary: "Living coordinators",
		permission: "read",
		response: COORDINATORS,
	},
	audit: {
		method: "GET",
		path: "/api/audit",
		tag: "access",
		summary: "Who did what, newest first",
		permission: "audit",
		query: object({
			who: optional(name("only this person")),
			action: optional(name("only this action")),
			limit: optional(integer({ minimum: 1, maximum: 200, description: "50 unless said" })),
			cursor: optional(text({ minLength: 1, maxLength: 1_000 })),
		}),
		response: AUDIT_PAGE,
	},
	settings: {
		method: "GET",
		path: "/api/settings",
		tag: "access",
		summary: "The effective configuration, without secrets",
		permission: "settings",
		response: SETTINGS,
	},
	me: {
		method: "GET",
		path: "/api/me",
		tag: "access",
		summary: "Who you are and what you may do",
		permission: "read",
		response: ME,
	},
	login: {
		method: "POST",
		path: "/api/login",
		tag: "access",
		summary: "Begins a session with a token",
		permission: null,
		body: object({ token: text({ minLength: 1, maxLength: 8_192 }) }),
		response: ME,
	},
	logout: {
		method: "POST",
		path: "/api/logout",
		tag: "access",
		summary: "Ends the session",
		permission: null,
		response: STATUS,
	},
	events: {
		method: "GET",
		path: "/api/events",
		tag: "figures",
		summary: "Server-sent events: counts, changed groups, jobs; resumable by Last-Event-ID",
		permission: "read",
		response: object({}),
		mediaType: "text/event-stream",
	},
} as const satisfies Record<string, RouteDefinition>;

export type RouteName = keyof typeof ROUTES;

type Part<Name extends RouteName, Key extends string> = (typeof ROUTES)[Name] extends {
	readonly [K in Key]: infer S;
}
	? Static<S>
	: undefined;

export type QueryOf<Name extends RouteName> = Part<Name, "query">;
export type BodyOf<Name extends RouteName> = Part<Name, "body">;
export type IdOf<Name extends RouteName> = Part<Name, "id">;
export type ResponseOf<Name extends RouteName> = Static<(typeof ROUTES)[Name]["response"]>;

/** What a call of a route brings: only the parts that the route has; a query may be left out. */
export type RequestOf<Name extends RouteName> = {
	readonly [K in "id" | "body" as Part<Name, K> extends undefined ? never : K]: Part<Name, K>;
} & {
	readonly [K in "query" as Part<Name, K> extends undefined ? never : K]?: Part<Name, K>;
};
