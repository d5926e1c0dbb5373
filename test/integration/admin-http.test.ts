import { afterEach, describe, expect, test } from "@jest/globals";
import { ServiceBroker } from "moleculer";

import { faultOf, type RouteName, ROUTES } from "../../services/admin/api/index.ts";
import { LottorAdmin, type LottorAdminOptions } from "../../services/admin/index.ts";
import type { CoordinatorOptions } from "../../services/coordinator/index.ts";
import { startAdmin, type Send, type TestAdmin, withTokens } from "../support/admin.ts";
import type { TestCoordinator } from "../support/coordinator.ts";
import { http, portOf } from "../support/http.ts";

const NO_GROUP = "01kc0000000000000000000000";

let admin: TestAdmin;
let lottor: TestCoordinator;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Starts a coordinator with its HTTP side. @returns what sends an administrator's requests to it */
async function start(
	options: LottorAdminOptions = {},
	coordinator: CoordinatorOptions = {},
): Promise<Send> {
	admin = await startAdmin({ ...withTokens, ...options }, coordinator);
	({ lottor } = admin);
	cleanups.push(() => admin.stop());
	return admin.as("admin");
}

const failedMessage = () => admin.failed();
const groupInDoubt = () => admin.inDoubt();

/** Checks an answer by the route's own schema. */
function expectShape(name: RouteName, body: unknown): void {
	const fault = faultOf(ROUTES[name].response.json, body);
	expect({ name, fault }).toEqual({ name, fault: undefined });
}

describe("health", () => {
	test("the process is up, and the coordinator ready", async () => {
		const send = await start();
		expect(await send("GET /healthz")).toMatchObject({ status: 200, body: { status: "ok" } });
		expect(await send("GET /readyz")).toMatchObject({ status: 200, body: { status: "ready" } });
	});

	test("without a coordinator the process is up, all else says so", async () => {
		const broker = new ServiceBroker({ logger: false });
		broker.createService(LottorAdmin({ port: 0 }));
		await broker.start();
		cleanups.push(() => broker.stop());
		const port = portOf(broker, "lottor-admin");
		expect((await http(port, "GET /healthz")).status).toBe(200);
		for (const line of ["GET /readyz", "GET /api/groups", "GET /api/overview"]) {
			expect(await http(port, line)).toMatchObject({
				status: 503,
				body: { code: "LOTTOR_NO_COORDINATOR" },
			});
		}
	});

	test("a coordinator whose store failed is not ready", async () => {
		const broker = new ServiceBroker({ logger: false });
		broker.createService({ name: "lottor", actions: { health: () => ({ ready: false }) } });
		broker.createService(LottorAdmin({ port: 0 }));
		await broker.start();
		cleanups.push(() => broker.stop());
		expect(await http(portOf(broker, "lottor-admin"), "GET /readyz")).toMatchObject({
			status: 503,
			body: { code: "LOTTOR_STORE_UNAVAILABLE" },
		});
	});
});

describe("queries", () => {
	test("a group is shown with its messages, parsed payloads and timeline", async () => {
		const send = await start();
		const group = await lottor.prepare([{ content: '{"user":"ada","role":"member"}' }], {
			context: '{"requestID":"r1"}',
		});
		await lottor.commit(group);
		const { status, headers, body } = await send(`GET /api/groups/${group}`);
		expectShape("group", body);
		expectShape("groups", (await send("GET /api/groups?total=true&fields=user")).body);
		expectShape("messages", (await send("GET /api/messages?total=true&fields=user")).body);
		expect(status).toBe(200);
		expect(headers["content-type"]).toBe("application/json; charset=utf-8");
		expect(body).toMatchObject({
			id: group,
			state: "completed",
			source: "user",
			context: { requestID: "r1" },
			messages: [
				{
					id: `${group}.0`,
					state: "consumed",
					payload: { user: "ada", role: "member" },
					revisions: [{ revision: 0, payload: { user: "ada", role: "member" } }],
				},
			],
		});
		const events = (body.timeline as { event: string }[]).map(({ event }) => event);
		expect(events).toEqual(expect.arrayContaining(["prepare", "commit", "consumed"]));
	});

	test("groups are listed newest first, page by page, and filtered", async () => {
		const send = await start();
		const ids: string[] = [];
		for (let i = 0; i < 5; i++) {
			ids.unshift(await lottor.prepare([{ target: i === 2 ? "mail" : "auth" }]));
			await lottor.due(1);
		}
		await lottor.commit(ids[4] as string);

		const seen: string[] = [];
		let cursor = "";
		do {
			const { body } = await send(`GET /api/groups?limit=2${cursor}`);
			seen.push(...(body.items as { id: string }[]).map(({ id }) => id));
			cursor = body.next === null ? "" : `&cursor=${encodeURIComponent(body.next as string)}`;
		} while (cursor !== "");
		expect(seen).toEqual(ids);

		const listed = async (query: string) => {
			const { body } = await send(`GET /api/groups?${query}`);
			return (body.items as { id: string }[]).map(({ id }) => id);
		};
		expect(await listed("states=completed")).toEqual([ids[4]]);
		expect(await listed("states=completed,prepared")).toEqual(ids);
		expect(await listed("states=completed&states=prepared&limit=1")).toEqual([ids[0]]);
		expect(await listed("target=mail")).toEqual([ids[2]]);
		expect(await listed(`idPrefix=${ids[1]}`)).toEqual([ids[1]]);
		expect(await listed("source=nobody")).toEqual([]);
	});

	test("messages are listed, filtered, and counted", async () => {
		const send = await start();
		const group = await failedMessage();
		const messages = await send("GET /api/messages?states=failed&target=auth&total=true");
		expect(messages.body).toMatchObject({
			items: [{ id: `${group}.0`, group, state: "failed", error: { code: "E_ROLE" } }],
			next: null,
			total: { count: 1, exact: true },
		});
		for (const query of [
			`idPrefix=${group}.0`,
			`idPrefix=${group}.`,
			"errorCode=E_ROLE",
			"type=t&sort=oldest",
		]) {
			expect((await send(`GET /api/messages?${query}`)).body).toMatchObject({
				items: [{ id: `${group}.0` }],
				total: null,
			});
		}
		expect((await send("GET /api/groups?errorCode=E_ROLE")).body).toMatchObject({
			items: [{ id: group }],
		});
		expect((await send("GET /api/groups?errorCode=NONE&total=true")).body).toEqual({
			items: [],
			next: null,
			total: { count: 0, exact: true },
		});
	});

	test("a text finds ids by their begin, names by a part, payload fields by their value", async () => {
		const send = await start({}, { searchFields: ["user.name", "role"] });
		const first = await lottor.prepare([
			{
				type: "grant-role",
				content: '{"user":{"name":"Ada"},"role":"admin","note":"secret"}',
			},
		]);
		const second = await admin.failed('{"user":{"name":"Bob"},"role":"admin"}');
		const found = async (text: string, list = "groups") => {
			const { body } = await send(`GET /api/${list}?text=${encodeURIComponent(text)}`);
			return (body.items as { id: string }[]).map(({ id }) => id);
		};
		expect(await found(first)).toEqual([first]);
		expect(await found(first.slice(0, 20).toUpperCase())).toEqual([first]);
		expect(await found(`${second}.0`, "messages")).toEqual([`${second}.0`]);
		expect(await found("GRANT")).toEqual([first]);
		expect(await found("e_rol")).toEqual([second]);
		expect(await found("auth")).toEqual([second, first]);
		expect(await found("ADA")).toEqual([first]);
		expect(await found("admin", "messages")).toEqual([`${second}.0`, `${first}.0`]);
		for (const text of ["secret", "a.*", "%", "' OR 1=1 --", "$ne", "[", "\\", "zzzzzzzz"]) {
			expect(await found(text)).toEqual([]);
			expect(await found(text, "messages")).toEqual([]);
		}
	});

	test("payload fields come with the rows when they are asked for", async () => {
		const send = await start();
		const long = "x".repeat(600);
		await lottor.prepare([
			{ content: '{"items":[{"sku":"A"},{"sku":"B"}]}' },
			{ content: JSON.stringify({ user: { name: "Ada" }, long }) },
		]);
		const query = "fields=user.name,items.sku,long,gone";
		expect((await send(`GET /api/groups?${query}`)).body).toMatchObject({
			items: [
				{
					fields: {
						"user.name": "Ada",
						"items.sku": ["A", "B"],
						long: `"${"x".repeat(499)}…`,
						gone: null,
					},
				},
			],
		});
		expect((await send(`GET /api/messages?fields=user.name`)).body).toMatchObject({
			items: [{ fields: { "user.name": "Ada" } }, { fields: { "user.name": null } }],
		});
		expect(await send("GET /api/groups?fields=a..b")).toMatchObject({
			status: 422,
			body: { data: { field: "fields" } },
		});
	});

	test("figures: what there is, what happened, what failed", async () => {
		const send = await start();
		const done = await lottor.prepare([{}]);
		await lottor.commit(done);
		const group = await failedMessage();
		await lottor.rollback(await lottor.prepare([{}], { source: "shop" }));
		// The admin service's own clock is the machine's; the coordinator's is moved.
		const { body: overview } = await send("GET /api/overview");
		expectShape("overview", overview);
		expect(overview).toMatchObject({
			groups: { committed: 1, completed: 1, rolledBack: 1 },
			messages: { failed: 1, consumed: 1, discarded: 1 },
			oldestPrepared: null,
			oldestInDoubt: null,
		});
		const { body: failures } = await send("GET /api/messages/errors");
		expectShape("failures", failures);
		expect(failures).toMatchObject({
			items: [
				{
					target: "auth",
					type: "t",
					errorCode: "E_ROLE",
					messages: 1,
					newest: { id: `${group}.0`, message: "no such role" },
				},
			],
		});
		const { body: facets } = await send("GET /api/facets");
		expect(facets).toEqual({
			sources: ["shop", "user"],
			targets: ["auth"],
			types: ["t"],
			errorCodes: ["E_ROLE"],
		});
	});

	test("rates, days and services come from what happened", async () => {
		const send = await start({
			clock: {
				now: () => lottor.clock.now(),
				after: (ms, run) => lottor.clock.after(ms, run),
			},
		});
		for (let i = 0; i < 3; i++) await lottor.commit(await lottor.prepare([{}, {}]));
		await lottor.due(60_000);
		await lottor.rollback(await lottor.prepare([{}], { source: "shop" }));
		const { body: rates } = await send("GET /api/stats/rates?minutes=5");
		expectShape("rates", rates);
		expect(rates.points).toHaveLength(5);
		expect((rates.points as object[]).slice(-2)).toMatchObject([
			{
				prepared: 3,
				committed: 3,
				completed: 3,
				consumed: 6,
				failed: 0,
				latency: { p50: 1 },
			},
			{ prepared: 1, rolledBack: 1, latency: null },
		]);
		const { body: daily } = await send("GET /api/stats/daily?days=2");
		expectShape("daily", daily);
		const today = new Date(lottor.clock.now()).toISOString().slice(0, 10);
		expect((daily.days as object[]).at(-1)).toMatchObject({
			day: today,
			prepared: 4,
			consumed: 6,
		});
		const { body: services } = await send("GET /api/stats/services");
		expectShape("services", services);
		expect(services).toMatchObject({
			sources: [
				{ source: "shop", prepared: 1, rolledBack: 1, completed: 0 },
				{ source: "user", prepared: 3, committed: 3, completed: 3 },
			],
			targets: [{ target: "auth", consumed: 6, failed: 0 }],
		});
		expect((await send("GET /api/overview")).body).toMatchObject({
			lastHour: { prepared: 4, committed: 3, completed: 3, latency: { p50: 1, p95: 1 } },
		});
	});

	test("clients, coordinators and settings are told, without a secret", async () => {
		const send = await start();
		const { body: clients } = await send("GET /api/clients");
		expectShape("clients", clients);
		expect(JSON.stringify(clients)).toContain('"auth"');
		const { body: coordinators } = await send("GET /api/coordinators");
		expectShape("coordinators", coordinators);
		expect(coordinators).toMatchObject({
			items: [{ nodeID: "node", ready: true, delivery: expect.any(String) }],
		});
		const { body: settings } = await send("GET /api/settings");
		expectShape("settings", settings);
		expect(settings).toMatchObject({
			coordinator: { checkAfter: 10_000, searchFields: [] },
			admin: { readOnly: false, tokens: [{ name: "viewer", hash: "•••" }, {}, {}] },
		});
		for (const { hash } of withTokens.tokens ?? []) {
			expect(JSON.stringify(settings)).not.toContain(hash);
		}
	});

	test("what is wrong with a query is named", async () => {
		const send = await start();
		for (const [query, field] of [
			["stats=failed", "stats"],
			["states=broken", "states.0"],
			["limit=many", "limit"],
			["limit=100000", "limit"],
			["conflict=maybe", "conflict"],
		]) {
			expect(await send(`GET /api/groups?${query}`)).toMatchObject({
				status: 422,
				body: { code: "LOTTOR_INVALID_REQUEST", data: { field } },
			});
		}
	});

	test("an unknown group, a malformed id and an unknown path", async () => {
		const send = await start();
		expect(await send(`GET /api/groups/${NO_GROUP}`)).toMatchObject({
			status: 404,
			body: { code: "LOTTOR_GROUP_UNKNOWN", data: { group: NO_GROUP } },
		});
		expect(await send("GET /api/groups/nonsense")).toMatchObject({
			status: 422,
			body: { code: "LOTTOR_INVALID_REQUEST" },
		});
		for (const line of [
			"GET /api",
			"GET /api/stats",
			"GET /api/lottor/stats",
			"GET /api/lottor-admin/loginLink",
			"GET /~node/list",
			"POST /healthz",
			"DELETE /api/groups",
		]) {
			expect(await send(line)).toMatchObject({ status: 404, body: { code: "NOT_FOUND" } });
		}
	});
});

describe("operators", () => {
	test("edit a payload and retry it: it is consumed, and the timeline says who and why", async () => {
		const send = await start();
		const group = await failedMessage();
		const message = `${group}.0`;
		const edited = await send(`PUT /api/messages/${message}/payload`, {
			body: { payload: { role: "admin" }, why: "a slip" },
		});
		expect(edited).toMatchObject({ status: 200, body: { id: message, result: "ok" } });
		const retried = await send(`POST /api/messages/${message}/retry`);
		expect(retried).toMatchObject({ status: 200, body: { result: "ok" } });
		await lottor.due();

		const { body } = await send(`GET /api/groups/${group}`);
		expect(body).toMatchObject({
			state: "completed",
			messages: [
				{
					state: "consumed",
					payload: { role: "admin" },
					revisions: [{ payload: { role: "amdin" } }, { payload: { role: "admin" } }],
				},
			],
		});
		expect(body.timeline).toEqual(
			expect.arrayContaining([
				expect.objectContaining({ event: "edit", by: "admin", why: "a slip" }),
				expect.objectContaining({ event: "retry", by: "admin" }),
			]),
		);
	});

	test("a payload of the largest size is edited, listed and shown; one byte more is refused", async () => {
		const send = await start();
		const group = await failedMessage();
		const payload = "x".repeat(512 * 1_024 - '""'.length);
		const edit = (content: string) =>
			send(`PUT /api/messages/${group}.0/payload`, {
				body: { payload: content, why: "all of it" },
			});
		expect(await edit(`${payload}x`)).toMatchObject({
			status: 413,
			body: { code: "LOTTOR_PAYLOAD_TOO_LARGE", data: { message: `${group}.0` } },
		});
		expect(await edit(payload)).toMatchObject({ status: 200, body: { result: "ok" } });
		const { body } = await send(`GET /api/groups/${group}`);
		expect(body["messages"]).toMatchObject([{ payload, bytes: 512 * 1_024 }]);
		const list = await send("GET /api/messages?states=failed");
		expect(JSON.stringify(list.body).length).toBeLessThan(10_000);
	});

	test("discard a message", async () => {
		const send = await start();
		const group = await failedMessage();
		const line = `POST /api/messages/${group}.0/discard`;
		expect(await send(line)).toMatchObject({ status: 422, body: { data: { field: "why" } } });
		expect(await send(line, { body: { why: "a test" } })).toMatchObject({
			status: 200,
			body: { result: "ok", state: "discarded" },
		});
		expect((await lottor.group(group)).state).toBe("completed");
	});

	test("commit and roll back what is in doubt, and nothing else", async () => {
		const send = await start();
		const first = await groupInDoubt();
		const body = { why: "the row is there" };
		expect(await send(`POST /api/groups/${first}/commit`, { body })).toMatchObject({
			status: 200,
			body: { id: first, result: "ok" },
		});
		const second = await groupInDoubt();
		expect(await send(`POST /api/groups/${second}/recheck`)).toMatchObject({ status: 200 });
		expect(await send(`POST /api/groups/${second}/rollback`, { body })).toMatchObject({
			status: 200,
			body: { result: "ok", state: "rolledBack" },
		});
		const prepared = await lottor.prepare([{}]);
		expect(await send(`POST /api/groups/${prepared}/commit`, { body })).toMatchObject({
			status: 409,
			body: { code: "LOTTOR_ILLEGAL_TRANSITION", data: { state: "prepared" } },
		});
	});

	test("an order that can't be obeyed has its own code", async () => {
		const send = await start();
		const group = await failedMessage();
		const message = `${group}.0`;
		for (const [line, sent, status, code] of [
			[
				`POST /api/groups/${NO_GROUP}/commit`,
				{ body: { why: "x" } },
				404,
				"LOTTOR_GROUP_UNKNOWN",
			],
			[`POST /api/messages/${NO_GROUP}.0/retry`, {}, 404, "LOTTOR_MESSAGE_UNKNOWN"],
			["POST /api/messages/x/retry", {}, 422, "LOTTOR_INVALID_REQUEST"],
			[
				`POST /api/messages/${message}/retry`,
				{ body: { version: 1 } },
				409,
				"LOTTOR_VERSION_CONFLICT",
			],
			[
				`POST /api/messages/${message}/retry`,
				{ body: { vresion: 1 } },
				422,
				"LOTTOR_INVALID_REQUEST",
			],
			[
				`PUT /api/messages/${message}/payload`,
				{ body: { why: "x" } },
				422,
				"LOTTOR_INVALID_REQUEST",
			],
			[
				`PUT /api/messages/${message}/payload`,
				{ body: { why: "x", payload: "x".repeat(600_000) } },
				413,
				"LOTTOR_PAYLOAD_TOO_LARGE",
			],
		] as const) {
			expect({ line, ...(await send(line, sent)) }).toMatchObject({
				line,
				status,
				body: { code },
			});
		}
	});
});

describe("requests that are refused", () => {
	test("broken JSON, another kind of body, a body that is too large", async () => {
		const send = await start({ maxBody: 1_000 });
		const line = `POST /api/groups/${NO_GROUP}/commit`;
		expect(await send(line, { body: '{"why":' })).toMatchObject({
			status: 400,
			body: { code: "INVALID_REQUEST_BODY" },
		});
		expect(
			await send(line, { body: "why=x", headers: { "Content-Type": "text/plain" } }),
		).toMatchObject({ status: 415, body: { code: "UNSUPPORTED_MEDIA_TYPE" } });
		expect(await send(line, { body: { why: "x".repeat(2_000) } })).toMatchObject({
			status: 413,
			body: { code: "PAYLOAD_TOO_LARGE" },
		});
	});

	test("defect 9: while there is no login, nothing but this machine: a name made to point here reads nothing", async () => {
		await start({ tokens: [] });
		const { send } = admin;
		for (const host of ["evil.example", "localhost.evil.example:9666", "127.0.0.1.nip.io"]) {
			expect(await send("GET /api/groups", { headers: { host } })).toMatchObject({
				status: 403,
				body: { code: "FOREIGN_HOST" },
			});
		}
		for (const host of ["localhost:9666", "LOCALHOST", "127.0.0.1:1", "[::1]:9666"]) {
			expect((await send("GET /api/groups", { headers: { host } })).status).toBe(200);
		}
	});

	test("a change that a foreign page has the browser send", async () => {
		const send = await start();
		const group = await failedMessage();
		const line = `POST /api/messages/${group}.0/discard`;
		for (const headers of [
			{ origin: "http://evil.example" },
			{ origin: "null" },
			{ origin: "http://localhost:3000", host: "localhost:9666" },
			{ "sec-fetch-site": "cross-site" },
			{ "sec-fetch-site": "same-site" },
		] as Record<string, string>[]) {
			expect(await send(line, { headers, body: { why: "x" } })).toMatchObject({
				status: 403,
				body: { code: "FOREIGN_ORIGIN" },
			});
		}
		expect((await lottor.message(group)).state).toBe("failed");
		const own = {
			origin: "http://localhost:9666",
			host: "localhost:9666",
			"sec-fetch-site": "same-origin",
		};
		expect((await send(line, { headers: own, body: { why: "x" } })).status).toBe(200);
	});
});

describe("options", () => {
	test.each([
		[{ ip: "0.0.0.0" }, "ip"],
		[{ ip: "0.0.0.0", ...withTokens }, "ip"],
		[{ ip: "" }, "ip"],
		[{ hosts: ["a/b"] }, "hosts"],
		[{ tokens: [{ name: "a", role: "king", hash: "0".repeat(64) }] }, "tokens[0].role"],
		[{ tokens: [{ name: "a b", role: "admin", hash: "0".repeat(64) }] }, "tokens[0].name"],
		[{ tokens: [{ name: "a", role: "admin", hash: "plain" }] }, "tokens[0].hash"],
		[{ oidc: { issuer: "x", audience: "y" } }, "oidc.issuer"],
		[{ oidc: { issuer: "https://x", audience: "" } }, "oidc.audience"],
		[{ oidc: { issuer: "https://x", audience: "y", roles: { a: "b" } } }, "oidc.roles.a"],
		[{ permissions: { fly: "admin" } }, "permissions.fly"],
		[{ permissions: { edit: "nobody" } }, "permissions.edit"],
		[{ mask: { viewer: ["a..b"] } }, "mask.viewer"],
		[{ mask: { guest: [] } }, "mask.guest"],
		[{ readOnly: "yes" }, "readOnly"],
		[{ sessionFor: "long" }, "sessionFor"],
		[{ traceUrl: "https://x" }, "traceUrl"],
		[{ maxStreams: 0 }, "maxStreams"],
		[{ port: 70_000 }, "port"],
		[{ port: "9666" }, "port"],
		[{ callTimeout: "soon" }, "callTimeout"],
		[{ coordinator: "" }, "coordinator"],
		[{ maxBody: 0 }, "maxBody"],
		[{ prot: 1 }, "prot"],
	])("%j is refused by name", (options, field) => {
		expect(() => LottorAdmin(options as LottorAdminOptions)).toThrow(
			expect.objectContaining({
				type: "LOTTOR_INVALID_OPTIONS",
				data: { field: `LottorAdmin.${field}` },
			}),
		);
	});
});
