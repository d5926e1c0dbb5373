import { afterEach, expect, test } from "@jest/globals";

import { actionsForAll } from "../../admin-ui/src/lib/bulk.ts";
import { MESSAGE_STATES } from "../../protocol/index.ts";
import { type LottorAdminOptions, newAdminToken } from "../../services/admin/index.ts";
import { startAdmin, type TestAdmin, withTokens } from "../support/admin.ts";
import { until } from "../support/until.ts";

let admin: TestAdmin;

afterEach(() => admin.stop());

async function start(options: LottorAdminOptions = withTokens): Promise<TestAdmin> {
	admin = await startAdmin(options);
	return admin;
}

/** Waits until the job is over. @returns it */
async function ended(begun: { readonly body: Readonly<Record<string, unknown>> }) {
	let body: Record<string, unknown> = {};
	await until(async () => {
		({ body } = await admin.as("viewer")(`GET /api/jobs/${String(begun.body["id"])}`));
		return body["state"] !== "running";
	});
	return body;
}

async function listed(query: string): Promise<string[]> {
	const { body } = await admin.as("viewer")(`GET /api/messages?${query}`);
	return (body["items"] as { id: string }[]).map(({ id }) => id);
}

test("a message's whole id means that message alone: in lists, in counts, in what is discarded", async () => {
	const { as, failed } = await start();
	const group = await failed("{}", 12);
	const one = `${group}.1`;
	for (const query of [`idPrefix=${one}`, `text=${one}`, `text=%20${one.toUpperCase()}%20`]) {
		const { body } = await as("viewer")(`GET /api/messages?total=true&${query}`);
		expect({ query, body }).toMatchObject({
			body: { items: [{ id: one }], next: null, total: { count: 1, exact: true } },
		});
	}
	expect(await listed(`idPrefix=${group}.12`)).toEqual([]);
	expect(await listed(`idPrefix=${one}&states=consumed`)).toEqual([]);
	expect(await listed(`idPrefix=${group}.`)).toHaveLength(12);

	const discarded = await as("operator")("POST /api/messages/discard", {
		body: { filter: { idPrefix: one }, why: "a test" },
	});
	expect(discarded.body["total"]).toEqual({ count: 1, exact: true });
	expect(await ended(discarded)).toMatchObject({ state: "done", done: 1, ok: 1 });
	expect(await listed(`idPrefix=${group}&states=discarded`)).toEqual([one]);
	const retried = await as("operator")("POST /api/messages/retry", {
		body: { filter: { text: `${group}.2` } },
	});
	expect(await ended(retried)).toMatchObject({ state: "done", done: 1, ok: 1 });
	expect(await listed(`idPrefix=${group}&states=failed`)).toHaveLength(10);
});

test("what can be no message's id is refused, not taken for its group's", async () => {
	const { as, failed } = await start();
	const group = await failed();
	for (const idPrefix of [`${group.slice(0, 8)}.0`, `${group}.00`, `${group}.0.0`, ".0", "-"]) {
		const refused = {
			status: 422,
			body: { code: "LOTTOR_INVALID_REQUEST", data: { field: "idPrefix" } },
		};
		expect(await as("viewer")(`GET /api/messages?idPrefix=${idPrefix}`)).toMatchObject(refused);
		expect(
			await as("operator")("POST /api/messages/discard", {
				body: { filter: { idPrefix }, why: "a test" },
			}),
		).toMatchObject({ ...refused, body: { data: { field: "filter.idPrefix" } } });
	}
});

/** What the audit log has of a job, refusals too, the latest first. */
async function auditOf(job: unknown): Promise<object[]> {
	const { body } = await admin.as("admin")("GET /api/audit?limit=200");
	const items = body["items"] as { subject: unknown; data: { id?: unknown } | null }[];
	return items.filter(({ subject, data }) => subject === job || data?.id === job);
}

/** Begins a job of 10,000 messages that nobody has, as somebody. @returns its id */
async function begun(role: "operator" | "admin", action: "retry" | "discard"): Promise<string> {
	const ids = Array.from({ length: 10_000 }, () => `${admin.lottor.newId()}.0`);
	const answer = await admin.as(role)(`POST /api/messages/${action}`, {
		body: { ids, why: "a test" },
	});
	return answer.body["id"] as string;
}

test("whoever cancels a job is in the audit log, and not taken for the one who began it", async () => {
	const { as } = await start();
	const id = await begun("operator", "discard");
	expect(await as("admin")(`POST /api/jobs/${id}/cancel`)).toMatchObject({
		status: 200,
		body: { id, by: "operator" },
	});
	await as("operator")(`POST /api/jobs/${id}/cancel`);
	expect(await ended({ body: { id } })).toMatchObject({ state: "cancelled", by: "operator" });
	await until(async () => (await auditOf(id)).length === 3);
	expect(await auditOf(id)).toMatchObject([
		{ who: "admin", action: "discard job", result: "cancelled", data: { begunBy: "operator" } },
		{
			who: "admin",
			action: "cancel job",
			result: "ok",
			data: { action: "discard", begunBy: "operator" },
		},
		{ who: "operator", action: "discard job", result: "begun" },
	]);
	// One that is over has nobody who cancelled it.
	await as("admin")(`POST /api/jobs/${id}/cancel`);
	expect(await auditOf(id)).toHaveLength(3);
}, 60_000);

test("a job is cancelled by whoever may do what it does", async () => {
	const eve = newAdminToken("eve", "viewer");
	const { as, send } = await start({
		tokens: [...(withTokens.tokens ?? []), eve.entry],
		permissions: { retry: "admin", discard: "viewer" },
	});
	const viewer = { headers: { authorization: `Bearer ${eve.token}` } };
	const retry = await begun("admin", "retry");
	const discard = await begun("admin", "discard");
	expect(await send(`POST /api/jobs/${retry}/cancel`, viewer)).toMatchObject({
		status: 403,
		body: { code: "LOTTOR_FORBIDDEN", data: { permission: "retry" } },
	});
	expect((await as("viewer")(`GET /api/jobs/${retry}`)).body).toMatchObject({ state: "running" });
	expect((await send(`POST /api/jobs/${discard}/cancel`, viewer)).status).toBe(200);
	await ended({ body: { id: discard } });
	await as("admin")(`POST /api/jobs/${retry}/cancel`);
	await ended({ body: { id: retry } });
	const entries = await auditOf(retry);
	expect(entries).toEqual(
		expect.arrayContaining([
			expect.objectContaining({ who: "eve", action: "cancelJob", result: "refused" }),
			expect.objectContaining({ who: "admin", action: "cancel job", result: "ok" }),
		]),
	);
}, 60_000);

test("a job that ends with its process is said to be stopped, by nobody", async () => {
	const { lottor } = await start();
	const id = await begun("operator", "retry");
	await lottor.broker.destroyService("lottor-admin");
	const { items } = await lottor.call<{ items: Record<string, unknown>[] }>("audit.list", {
		action: "retry job",
	});
	expect(items).toMatchObject([
		{ who: "operator", action: "retry job", result: "stopped", subject: id },
		{ who: "operator", action: "retry job", result: "begun", subject: id },
	]);
}, 60_000);

test("the UI offers all that match only where the server takes the list's own filter", async () => {
	const { as, failed, lottor } = await start();
	await failed("{}", 3);
	await lottor.prepare([{}]);
	const subsets = Array.from({ length: 2 ** MESSAGE_STATES.length }, (_, bits) =>
		MESSAGE_STATES.filter((_state, place) => (bits >> place) & 1),
	);
	for (const states of subsets) {
		for (const action of ["retry", "discard"] as const) {
			const begun = await as("operator")(`POST /api/messages/${action}`, {
				body: { filter: { states, target: "nobody" }, why: "a test" },
			});
			const offered = actionsForAll({ states }).includes(action);
			expect({ states, action, status: begun.status }).toEqual({
				states,
				action,
				status: offered ? 202 : 422,
			});
			if (offered) await ended(begun);
			else expect(begun.body).toMatchObject({ data: { field: "filter.states" } });
		}
	}
	// A list of every state shows more than a filter without states means.
	expect(actionsForAll({})).toEqual([]);
	const retried = await as("operator")("POST /api/messages/retry", { body: { filter: {} } });
	expect(retried.body["total"]).toEqual({ count: 3, exact: true });
	await ended(retried);
}, 60_000);
