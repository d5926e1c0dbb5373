import { describe, expect, it } from "@jest/globals";
import { Validator } from "@seriousme/openapi-schema-validator";

import {
	ApiError,
	apiClient,
	faultOf,
	openApi,
	queryValues,
	type RequestOf,
	type ResponseOf,
	type RouteDefinition,
	ROUTES,
	urlOf,
} from "../../services/admin/api/index.ts";

const GROUP = "06f6gj4hx7c4g4g8b0m2v9s1qk";

describe("the OpenAPI document", () => {
	it("is valid OpenAPI 3.1 and has every route", async () => {
		const document = openApi("1.2.3");
		const { valid, errors } = await new Validator().validate(structuredClone(document));
		expect(errors).toBeUndefined();
		expect(valid).toBe(true);
		expect(document["openapi"]).toBe("3.1.0");
		const paths = document["paths"] as Record<string, Record<string, { operationId: string }>>;
		const names = Object.values(paths).flatMap((path) =>
			Object.values(path).map(({ operationId }) => operationId),
		);
		expect(names.sort()).toEqual(Object.keys(ROUTES).sort());
	});

	it("says what each route needs, and that the open ones need nothing", () => {
		const paths = openApi("1.2.3")["paths"] as Record<string, Record<string, unknown>>;
		expect(paths["/healthz"]?.["get"]).toMatchObject({ security: [] });
		expect(paths["/api/messages/{id}/payload"]?.["put"]).toMatchObject({
			"x-permission": "edit",
			requestBody: { required: true },
		});
		expect(paths["/api/jobs/{id}/cancel"]?.["post"]).toMatchObject({
			"x-permission": ["retry", "discard"],
		});
	});

	it("no two routes answer to one method and path", () => {
		const lines = Object.values<RouteDefinition>(ROUTES).map(
			({ method, path }) => `${method} ${path}`,
		);
		expect(new Set(lines).size).toBe(lines.length);
	});

	it("whatever changes something needs a permission and a body", () => {
		const open = ["login", "logout"];
		for (const [name, route] of Object.entries<RouteDefinition>(ROUTES)) {
			if (route.method === "GET" || open.includes(name)) continue;
			expect({ name, permission: route.permission }).not.toMatchObject({
				permission: "read",
			});
			expect({ name, permission: route.permission }).not.toMatchObject({ permission: null });
		}
	});
});

describe("validation", () => {
	const groups = ROUTES.groups.query;
	const fault = (query: Record<string, unknown>) =>
		faultOf(groups.json, queryValues(groups, query));

	it("takes what a query string can say", () => {
		expect(
			queryValues(groups, { states: "prepared,inDoubt", limit: "10", total: "true" }),
		).toEqual({
			states: ["prepared", "inDoubt"],
			limit: 10,
			total: true,
		});
		expect(queryValues(groups, { states: ["prepared", "inDoubt"] })).toEqual({
			states: ["prepared", "inDoubt"],
		});
		expect(
			fault({ states: "prepared,inDoubt", limit: "10", since: "0", text: "a.*'; --" }),
		).toBe(undefined);
	});

	it.each([
		[{ stats: "failed" }, "stats"],
		[{ states: "broken" }, "states.0"],
		[{ limit: "many" }, "limit"],
		[{ limit: "0" }, "limit"],
		[{ limit: "201" }, "limit"],
		[{ limit: "1.5" }, "limit"],
		[{ limit: "99999999999999999999" }, "limit"],
		[{ conflict: "maybe" }, "conflict"],
		[{ source: "" }, "source"],
		[{ source: ["a", "b"] }, "source"],
		[{ source: { $ne: "a" } }, "source"],
		[{ idPrefix: "A'" }, "idPrefix"],
		[{ sort: "payload" }, "sort"],
		[{ since: "-1" }, "since"],
		[{ fields: "a,b,c,d,e,f" }, "fields"],
		[{ __proto__: null, constructor: "x" }, "constructor"],
	])("%j is refused by its field", (query, field) => {
		expect(fault(query)?.field).toBe(field);
	});

	it("a body's missing field is named, null is no value for it, and any JSON is a payload", () => {
		const { json } = ROUTES.editPayload.body;
		expect(faultOf(json, { why: "x" })).toEqual({ field: "payload", problem: "is missing" });
		expect(faultOf(json, { payload: null, why: null })?.field).toBe("why");
		expect(faultOf(json, { payload: null, why: "x" })).toBeUndefined();
		expect(faultOf(json, [])).toEqual({ field: "", problem: "must be an object" });
	});
});

describe("the client", () => {
	it("sends what the route's types ask for, and answers with its type", async () => {
		const sent: { url: string; init: RequestInit }[] = [];
		const answer: ResponseOf<"retryMessage"> = { id: `${GROUP}.0`, result: "ok" };
		const api = apiClient({
			headers: () => ({ "X-CSRF-Token": "t" }),
			fetch: async (url, init) => {
				sent.push({ url: url as string, init: init ?? {} });
				return Response.json(answer);
			},
		});
		const request: RequestOf<"retryMessage"> = { id: `${GROUP}.0`, body: { why: "mended" } };
		expect(await api("retryMessage", request)).toEqual(answer);
		expect(sent[0]).toMatchObject({
			url: `/api/messages/${GROUP}.0/retry`,
			init: {
				method: "POST",
				body: '{"why":"mended"}',
				headers: { "Content-Type": "application/json", "X-CSRF-Token": "t" },
			},
		});
		await api("healthz");
		expect(sent[1]).toMatchObject({ url: "/healthz", init: { method: "GET" } });
	});

	it("tells what was refused, and that nobody answers", async () => {
		const refusal = {
			code: "LOTTOR_GROUP_UNKNOWN",
			message: "No group",
			data: { group: GROUP },
		};
		const refusing = apiClient({ fetch: async () => Response.json(refusal, { status: 404 }) });
		await expect(refusing("group", { id: GROUP })).rejects.toMatchObject({
			status: 404,
			...refusal,
		});
		const gone = apiClient({ fetch: () => Promise.reject(new TypeError("fetch failed")) });
		await expect(gone("overview")).rejects.toMatchObject({ status: 0, code: "UNREACHABLE" });
		await expect(gone("overview")).rejects.toBeInstanceOf(ApiError);
		const proxy = apiClient({
			fetch: async () => new Response("<h1>Bad gateway", { status: 502 }),
		});
		await expect(proxy("overview")).rejects.toMatchObject({ status: 502, code: "UNREACHABLE" });
	});

	it("writes lists repeatedly and leaves out what is undefined", () => {
		expect(urlOf("groups", { query: { states: ["prepared", "inDoubt"], text: "a&b" } })).toBe(
			"/api/groups?states=prepared&states=inDoubt&text=a%26b",
		);
		expect(urlOf("groups", { query: { text: undefined } })).toBe("/api/groups");
		expect(urlOf("group", { id: "../x" })).toBe("/api/groups/..%2Fx");
	});
});
