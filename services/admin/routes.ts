import { type ItemAnswer, LottorError } from "../../protocol/index.ts";
import { groupView, type StoredGroup } from "./group-view.ts";
import { errorOf, invalidField } from "./problem.ts";
import { fields, integer, list, text, truth } from "./request-fields.ts";

/** What of an HTTP request a route sees. */
export interface AdminRequest {
	/** The `:id` of the path, or "". */
	readonly id: string;
	readonly query: Readonly<Record<string, unknown>>;
	readonly body: Readonly<Record<string, unknown>>;
}

/** Calls an action of the coordinator, by its name there. */
export type CallCoordinator = <T>(action: string, params: object) => Promise<T>;

/** Answers with what becomes the response's JSON. */
export type Route = (call: CallCoordinator, request: AdminRequest) => Promise<unknown>;

interface PageOf<T> {
	readonly items: readonly T[];
	readonly next?: string;
}

const PAGE = { limit: integer, cursor: text };
const GROUP_QUERY = {
	states: list,
	source: text,
	target: text,
	type: text,
	idPrefix: text,
	conflict: truth,
	since: integer,
	until: integer,
	...PAGE,
};
const MESSAGE_QUERY = {
	states: list,
	source: text,
	target: text,
	type: text,
	errorCode: text,
	groupPrefix: text,
	since: integer,
	until: integer,
	...PAGE,
};
const GROUP_ORDER = { why: text, by: text };
const MESSAGE_ORDER = { version: integer, ...GROUP_ORDER };

/** Everything that the server answers to, by method and path. */
export const ROUTES: Readonly<Record<string, Route>> = {
	"GET /healthz": async () => ({ status: "ok" }),
	"GET /readyz": ready,
	"GET /api/groups": listed("groups.list", GROUP_QUERY),
	"GET /api/groups/:id": getGroup,
	"POST /api/groups/:id/commit": orderGroup("groups.commit"),
	"POST /api/groups/:id/rollback": orderGroup("groups.rollback"),
	"POST /api/groups/:id/recheck": orderGroup("groups.recheck"),
	"GET /api/messages": listed("messages.list", MESSAGE_QUERY),
	"POST /api/messages/:id/retry": orderMessage("messages.retry", {
		...MESSAGE_ORDER,
		rebind: truth,
	}),
	"POST /api/messages/:id/discard": orderMessage("messages.discard", MESSAGE_ORDER),
	"PUT /api/messages/:id/payload": editPayload,
	"GET /api/stats": (call) => call("stats", {}),
	"GET /api/clients": (call) => call("clients", {}),
};

async function ready(call: CallCoordinator): Promise<unknown> {
	const health = await call<{ readonly ready: boolean }>("health", {});
	if (!health.ready) {
		throw new LottorError(
			"LOTTOR_STORE_UNAVAILABLE",
			"The coordinator's store does not work now",
		);
	}
	return { status: "ready" };
}

function listed(action: string, allowed: Parameters<typeof fields>[1]): Route {
	return async (call, { query }) => {
		const page = await call<PageOf<unknown>>(action, fields(query, allowed));
		return { items: page.items, next: page.next ?? null };
	};
}

async function getGroup(call: CallCoordinator, { id }: AdminRequest): Promise<unknown> {
	return groupView(await call<StoredGroup>("groups.get", { id }));
}

function orderGroup(action: string): Route {
	return async (call, { id, body }) => {
		const item = { id, ...fields(body, GROUP_ORDER) };
		return answered(await call<ItemAnswer[]>(action, { items: [item] }), "group", id);
	};
}

function orderMessage(action: string, allowed: Parameters<typeof fields>[1]): Route {
	return async (call, { id, body }) => {
		const item = { id, ...fields(body, allowed) };
		return answered(await call<ItemAnswer[]>(action, { items: [item] }), "message", id);
	};
}

async function editPayload(call: CallCoordinator, { id, body }: AdminRequest): Promise<unknown> {
	if (!Object.hasOwn(body, "payload")) throw invalidField("payload", "is missing");
	const { payload, ...rest } = body;
	const item = { id, payload, ...fields(rest, MESSAGE_ORDER) };
	return answered(await call<ItemAnswer[]>("messages.edit", { items: [item] }), "message", id);
}

function answered(answers: readonly ItemAnswer[], what: "group" | "message", id: string) {
	const [answer] = answers;
	if (!answer) throw new Error(`The coordinator gave no answer for ${id}`);
	const error = errorOf(answer, what, id);
	if (error) throw error;
	return { id, result: answer.result, ...(answer.state && { state: answer.state }) };
}
