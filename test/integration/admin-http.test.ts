import { afterEach, describe, expect, test } from "@jest/globals";
import { ServiceBroker } from "moleculer";

import { LottorAdmin, type LottorAdminOptions } from "../../services/admin/index.ts";
import { reportOf, type Scripted, scripted, TestCoordinator } from "../support/coordinator.ts";
import { type Answer, http, portOf, type Sent } from "../support/http.ts";

const NO_GROUP = "01kc0000000000000000000000";

let lottor: TestCoordinator;
let auth: Scripted;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Starts a coordinator with its HTTP side. @returns what sends requests to it */
async function start(
	options: LottorAdminOptions = {},
): Promise<(line: string, sent?: Sent) => Promise<Answer>> {
	auth = scripted("auth");
	lottor = await TestCoordinator.start(
		{},
		auth.schema,
		scripted("user").schema,
		LottorAdmin({ port: 0, ...options }),
	);
	cleanups.push(() => lottor.stop());
	const port = portOf(lottor.broker, "lottor-admin");
	return (line, sent) => http(port, line, sent);
}

/** A message that `auth` has refused for good. */
async function failedMessage(): Promise<string> {
	auth.consume = (envelope) => ({
		result: "reported",
		report: reportOf(envelope, { code: "E_ROLE", message: "no such role", retryable: false }),
	});
	const group = await lottor.prepare([{ content: '{"role":"amdin"}' }]);
	await lottor.commit(group);
	auth.consume = (envelope) => ({ result: "reported", report: reportOf(envelope) });
	return group;
}

/** A group that nobody could decide. */
async function groupInDoubt(): Promise<string> {
	const group = await lottor.prepare([{}], { storeId: "gone", guarantee: "recorded" });
	for (let hour = 0; hour < 3; hour++) await lottor.due(3_600_000);
	expect((await lottor.group(group)).state).toBe("inDoubt");
	return group;
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
		for (const line of ["GET /readyz", "GET /api/groups", "GET /api/stats"]) {
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

	test("messages, counts and clients are told", async () => {
		const send = await start();
		const group = await failedMessage();
		const messages = await send("GET /api/messages?states=failed&target=auth");
		expect(messages.body).toMatchObject({
			items: [{ id: `${group}.0`, group, state: "failed", error: { code: "E_ROLE" } }],
			next: null,
		});
		expect((await send("GET /api/stats")).body).toMatchObject({
			groups: { committed: 1 },
			messages: { failed: 1 },
		});
		const clients = await send("GET /api/clients");
		expect(clients.status).toBe(200);
		expect(JSON.stringify(clients.body)).toContain('"auth"');
	});

	test("what is wrong with a query is named", async () => {
		const send = await start();
		for (const [query, field] of [
			["stats=failed", "stats"],
			["states=broken", "states"],
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
			"GET /",
			"GET /api",
			"GET /api/lottor/stats",
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
			body: { payload: { role: "admin" }, why: "a slip", by: "ann" },
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
				expect.objectContaining({ event: "edit", by: "ann", why: "a slip" }),
				expect.objectContaining({ event: "retry", by: "operator" }),
			]),
		);
	});

	test("discard a message", async () => {
		const send = await start();
		const group = await failedMessage();
		expect(await send(`POST /api/messages/${group}.0/discard`)).toMatchObject({
			status: 200,
			body: { result: "ok", state: "discarded" },
		});
		expect((await lottor.group(group)).state).toBe("completed");
	});

	test("commit and roll back what is in doubt, and nothing else", async () => {
		const send = await start();
		const first = await groupInDoubt();
		const body = { why: "the row is there", by: "ann" };
		expect(await send(`POST /api/groups/${first}/commit`, { body })).toMatchObject({
			status: 200,
			body: { id: first, result: "ok" },
		});
		const second = await groupInDoubt();
		expect(await send(`POST /api/groups/${second}/recheck`)).toMatchObject({ status: 200 });
		expect(await send(`POST /api/groups/${second}/rollback`)).toMatchObject({
			status: 200,
			body: { result: "ok", state: "rolledBack" },
		});
		const prepared = await lottor.prepare([{}]);
		expect(await send(`POST /api/groups/${prepared}/commit`)).toMatchObject({
			status: 409,
			body: { code: "LOTTOR_ILLEGAL_TRANSITION", data: { state: "prepared" } },
		});
	});

	test("an order that can't be obeyed has its own code", async () => {
		const send = await start();
		const group = await failedMessage();
		const message = `${group}.0`;
		for (const [line, sent, status, code] of [
			[`POST /api/groups/${NO_GROUP}/commit`, {}, 404, "LOTTOR_GROUP_UNKNOWN"],
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
			[`PUT /api/messages/${message}/payload`, { body: {} }, 422, "LOTTOR_INVALID_REQUEST"],
			[
				`PUT /api/messages/${message}/payload`,
				{ body: { payload: "x".repeat(600_000) } },
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
		const send = await start();
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
			expect(await send(line, { headers })).toMatchObject({
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
		expect((await send(line, { headers: own })).status).toBe(200);
	});
});

describe("options", () => {
	test.each([
		[{ ip: "0.0.0.0" }, "ip"],
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
