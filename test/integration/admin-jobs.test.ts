import { afterEach, expect, test } from "@jest/globals";

import type { LottorAdminOptions } from "../../services/admin/index.ts";
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
