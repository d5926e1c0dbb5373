import { call, type Query } from "./client.ts";
import type {
	AdminSettingsView,
	AuditPage,
	Clients,
	Coordinators,
	Daily,
	Done,
	Facets,
	Failures,
	Group,
	GroupPage,
	Job,
	MessagePage,
	Overview,
	Rates,
	Services,
} from "./types.ts";

type Signal = AbortSignal | undefined;

/** Every call of the admin API that pages make. */
export const api = {
	overview: (signal: Signal) => call<Overview>("GET", "/api/overview", { signal }),
	rates: (minutes: number, signal: Signal) =>
		call<Rates>("GET", "/api/stats/rates", { query: { minutes }, signal }),
	daily: (days: number, signal: Signal) =>
		call<Daily>("GET", "/api/stats/daily", { query: { days }, signal }),
	services: (days: number, signal: Signal) =>
		call<Services>("GET", "/api/stats/services", { query: { days }, signal }),
	facets: (signal: Signal) => call<Facets>("GET", "/api/facets", { signal }),
	groups: (query: Query, signal: Signal) =>
		call<GroupPage>("GET", "/api/groups", { query, signal }),
	group: (id: string, signal: Signal) => call<Group>("GET", `/api/groups/${at(id)}`, { signal }),
	messages: (query: Query, signal: Signal) =>
		call<MessagePage>("GET", "/api/messages", { query, signal }),
	failures: (signal: Signal) => call<Failures>("GET", "/api/messages/errors", { signal }),
	clients: (signal: Signal) => call<Clients>("GET", "/api/clients", { signal }),
	coordinators: (signal: Signal) => call<Coordinators>("GET", "/api/coordinators", { signal }),
	audit: (query: Query, signal: Signal) =>
		call<AuditPage>("GET", "/api/audit", { query, signal }),
	settings: (signal: Signal) => call<AdminSettingsView>("GET", "/api/settings", { signal }),

	decide: (id: string, to: "commit" | "rollback", why: string) =>
		call<Done>("POST", `/api/groups/${at(id)}/${to}`, { body: { why } }),
	recheck: (id: string) => call<Done>("POST", `/api/groups/${at(id)}/recheck`, { body: {} }),
	retry: (id: string, version: number, why: string) =>
		call<Done>("POST", `/api/messages/${at(id)}/retry`, {
			body: { version, ...(why !== "" && { why }) },
		}),
	discard: (id: string, version: number, why: string) =>
		call<Done>("POST", `/api/messages/${at(id)}/discard`, { body: { version, why } }),
	edit: (id: string, version: number, payload: unknown, why: string) =>
		call<Done>("PUT", `/api/messages/${at(id)}/payload`, { body: { payload, version, why } }),
	many: (action: BulkAction, what: BulkChoice, why: string) =>
		call<Job>("POST", `/api/messages/${action}`, {
			body: { ...what, ...(why !== "" && { why }) },
		}),
	jobs: () => call<{ readonly items: readonly Job[] }>("GET", "/api/jobs"),
	job: (id: string) => call<Job>("GET", `/api/jobs/${at(id)}`),
	cancelJob: (id: string) => call<Job>("POST", `/api/jobs/${at(id)}/cancel`, { body: {} }),
};

export type BulkAction = Job["action"];

/** The messages that a bulk action is for: these, or all that match. */
export type BulkChoice =
	{ readonly ids: readonly string[] } | { readonly filter: Readonly<Record<string, unknown>> };

function at(id: string): string {
	return encodeURIComponent(id);
}
