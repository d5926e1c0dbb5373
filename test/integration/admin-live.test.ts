import { afterEach, describe, expect, test } from "@jest/globals";
import { ServiceBroker } from "moleculer";

import { EVENTS, type EventName, faultOf } from "../../services/admin/api/index.ts";
import { LottorAdmin, type LottorAdminOptions, type Role } from "../../services/admin/index.ts";
import { startAdmin, type TestAdmin, tokenOf, withTokens } from "../support/admin.ts";
import { reportOf } from "../support/coordinator.ts";
import { type EventStream, openStream } from "../support/event-stream.ts";
import { connectionsOf, portOf } from "../support/http.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { until } from "../support/until.ts";

let admin: TestAdmin;
const cleanups: (() => Promise<unknown> | void)[] = [];

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(options: LottorAdminOptions = withTokens): Promise<TestAdmin> {
	admin = await startAdmin(options);
	cleanups.push(() => admin.stop());
	return admin;
}

async function open(headers: Record<string, string> = {}): Promise<EventStream> {
	const authorization = `Bearer ${tokenOf("viewer")}`;
	const stream = await openStream(admin.port, { authorization, ...headers });
	cleanups.push(() => stream.close());
	return stream;
}

/** Waits for an event that fits. @returns it */
async function eventOf(
	stream: EventStream,
	name: EventName,
	fits: (data: Record<string, unknown>) => boolean = () => true,
) {
	const find = () => stream.events.find((event) => event.name === name && fits(event.data));
	await until(async () => find() !== undefined);
	const event = find();
	expect({ name, fault: faultOf(EVENTS[name].json, event?.data) }).toEqual({
		name,
		fault: undefined,
	});
	return event;
}

function changedIn(data: Record<string, unknown>, id: string, state: string): boolean {
	return (data["changed"] as { id: string; state: string }[]).some(
		(one) => one.id === id && one.state === state,
	);
}

describe("the event stream", () => {
	test("tells how things stand, then what changes", async () => {
		const { lottor } = await start();
		const stream = await open();
		await eventOf(stream, "coordinator", ({ available }) => available === true);
		await eventOf(stream, "counts");
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		await lottor.due(500);
		await eventOf(stream, "groups", (data) => changedIn(data, id, "completed"));
		const completed = (data: Record<string, unknown>) =>
			(data["groups"] as { completed: number }).completed === 1;
		await eventOf(stream, "counts", completed);
	});

	test("is resumed by Last-Event-ID, or says that something was missed", async () => {
		const { lottor } = await start();
		const first = await open();
		await eventOf(first, "counts");
		const a = await lottor.prepare([{}]);
		await lottor.due(500);
		const seen = await eventOf(first, "groups", (data) => changedIn(data, a, "prepared"));
		const b = await lottor.prepare([{}]);
		await lottor.due(500);
		await eventOf(first, "groups", (data) => changedIn(data, b, "prepared"));

		const resumed = await open({ "last-event-id": seen?.id ?? "" });
		await eventOf(resumed, "groups", (data) => changedIn(data, b, "prepared"));
		expect(
			resumed.events.some(({ data }) => "changed" in data && changedIn(data, a, "prepared")),
		).toBe(false);
		for (const lost of ["other.5", `${seen?.id}999`, "nonsense", "'; --"]) {
			const anew = await open({ "last-event-id": lost });
			await eventOf(anew, "reset");
		}
	});

	test("is resumed when it was the only one: what changed meanwhile is kept for a minute, then missed", async () => {
		const clock = new ManualClock();
		const { lottor } = await start({ ...withTokens, clock });
		const prepare = async () => {
			const id = await lottor.prepare([{}]);
			await lottor.due(500);
			return id;
		};
		/** Closes it, before it has seen any change. @returns where it was */
		const left = async () => {
			const stream = await open();
			await until(async () => stream.lastId !== "");
			stream.close();
			await until(async () => (await connectionsOf(lottor.broker, "lottor-admin")) === 0);
			return stream.lastId;
		};

		const soon = await left();
		await clock.advance(59_000);
		const a = await prepare();
		const resumed = await open({ "last-event-id": soon });
		await eventOf(resumed, "groups", (data) => changedIn(data, a, "prepared"));
		resumed.close();
		await until(async () => (await connectionsOf(lottor.broker, "lottor-admin")) === 0);

		const late = await left();
		await clock.advance(60_001);
		await prepare();
		const anew = await open({ "last-event-id": late });
		await eventOf(anew, "reset");
		anew.close();
		const up = await open({ "last-event-id": anew.lastId });
		await until(async () => up.lastId !== "");
		expect(up.events.map(({ name }) => name)).not.toContain("reset");
	});

	test("says that the coordinator is gone, and that it is back", async () => {
		const broker = new ServiceBroker({ logger: false });
		broker.createService(LottorAdmin({ port: 0 }));
		await broker.start();
		cleanups.push(() => broker.stop());
		const stream = await openStream(portOf(broker, "lottor-admin"));
		cleanups.push(() => stream.close());
		await eventOf(stream, "coordinator", ({ available }) => available === false);
		const stats = () => ({
			groups: {},
			messages: {},
			conflicts: 0,
			oldestPrepared: null,
			oldestInDoubt: null,
			backlog: [],
			inFlight: 0,
		});
		broker.createService({ name: "lottor", actions: { stats } });
		await broker.waitForServices("lottor");
		await eventOf(stream, "coordinator", ({ available }) => available === true);
	}, 20_000);

	test("200 are open at once, one more than allowed is told so: LOTTOR_TOO_MANY_STREAMS", async () => {
		const { lottor } = await start({ ...withTokens, maxStreams: 200 });
		const streams = await Promise.all(Array.from({ length: 200 }, () => open()));
		expect(streams.every(({ status }) => status === 200)).toBe(true);
		expect(await admin.as("viewer")("GET /api/events")).toMatchObject({
			status: 503,
			body: { code: "LOTTOR_TOO_MANY_STREAMS" },
		});
		const id = await lottor.prepare([{}]);
		await lottor.due(500);
		for (const stream of streams) {
			await eventOf(stream, "groups", (data) => changedIn(data, id, "prepared"));
		}
		streams[0]?.close();
		await until(async () => {
			const again = await open();
			if (again.status === 200) return true;
			again.close();
			return false;
		});
	}, 30_000);

	test("a slow reader is cut off, the others go on", async () => {
		const { lottor } = await start();
		const slow = await open();
		const quick = await open();
		await eventOf(slow, "counts");
		await eventOf(quick, "counts");
		slow.pause();
		let cut = false;
		void slow.ended.then(() => (cut = true));
		// Each notice has 500 groups; what a socket and its peer buffer is some megabytes.
		const changed = Array.from({ length: 500 }, () => ({
			id: lottor.newId(),
			state: "prepared",
		}));
		for (let i = 0; i < 2_000 && !cut; i++) {
			await lottor.broker.broadcast("lottor.changed", { changed, more: true });
			await new Promise((turn) => setImmediate(turn));
		}
		slow.close();
		const last = lottor.newId();
		await lottor.broker.broadcast("lottor.changed", {
			changed: [{ id: last, state: "prepared" }],
			more: false,
		});
		await eventOf(quick, "groups", (data) => changedIn(data, last, "prepared"));
		expect(cut).toBe(true);
	}, 30_000);

	/** @returns the headers of a new session's requests */
	async function logIn(role: Role): Promise<{ cookie: string; "x-csrf-token": string }> {
		const login = await admin.send("POST /api/login", { body: { token: tokenOf(role) } });
		const [cookie = ""] = login.headers["set-cookie"] as string[];
		return {
			cookie: cookie.split(";")[0] ?? "",
			"x-csrf-token": String(login.body["csrf"]),
		};
	}

	test("ends with the session that opened it", async () => {
		const clock = new ManualClock();
		await start({ ...withTokens, clock, sessionFor: "1h" });
		const stream = await openStream(admin.port, await logIn("viewer"));
		await clock.advance(3_600_001);
		await stream.ended;
	});

	test("ends when its session logs out, and no other does", async () => {
		const { send, lottor } = await start();
		const [headers, other] = [await logIn("viewer"), await logIn("viewer")];
		const streams = await Promise.all([1, 2].map(() => openStream(admin.port, headers)));
		const stays = await openStream(admin.port, other);
		cleanups.push(() => stays.close());
		expect((await send("POST /api/logout", { headers })).status).toBe(200);
		await Promise.all(streams.map(({ ended }) => ended));
		const id = await lottor.prepare([{}]);
		await lottor.due(500);
		await eventOf(stays, "groups", (data) => changedIn(data, id, "prepared"));
	});

	test("ends when a thousand newer sessions push its own out", async () => {
		await start();
		const oldest = await openStream(admin.port, await logIn("viewer"));
		const second = await openStream(admin.port, await logIn("viewer"));
		let over = false;
		void oldest.ended.then(() => (over = true));
		for (let made = 2; made < 1_000; made++) await logIn("viewer");
		expect(over).toBe(false);
		await logIn("viewer");
		await oldest.ended;
		const id = admin.lottor.newId();
		const changed = [{ id, state: "prepared" }];
		await admin.lottor.broker.broadcast("lottor.changed", { changed, more: false });
		await eventOf(second, "groups", (data) => changedIn(data, id, "prepared"));
		second.close();
	}, 120_000);

	test("stopping ends every stream at once", async () => {
		const { lottor } = await start();
		const streams = await Promise.all([open(), open(), open()]);
		await lottor.broker.stop();
		await Promise.all(streams.map(({ ended }) => ended));
	});
});

describe("bulk jobs", () => {
	async function failing(count: number): Promise<string[]> {
		const { lottor, auth } = admin;
		const consume = auth.consume;
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, { code: "E", retryable: false }),
		});
		const ids: string[] = [];
		for (let at = 0; at < count; at += 250) {
			const size = Math.min(250, count - at);
			const group = await lottor.prepare(Array.from({ length: size }, () => ({})));
			await lottor.commit(group);
			for (let index = 0; index < size; index++) ids.push(`${group}.${index}`);
		}
		await until(async () => {
			await lottor.due(1_000);
			const { messages } = await lottor.call<{ messages: { failed: number } }>("stats");
			return messages.failed === count;
		});
		auth.consume = consume;
		return ids;
	}

	async function ended(job: string): Promise<Record<string, unknown>> {
		let body: Record<string, unknown> = {};
		await until(async () => {
			({ body } = await admin.as("viewer")(`GET /api/jobs/${job}`));
			return body["state"] !== "running";
		});
		return body;
	}

	test("retry all that match a filter, with progress, and all are consumed", async () => {
		const { as, lottor } = await start();
		await failing(1_000);
		const stream = await open();
		const begun = await as("operator")("POST /api/messages/retry", {
			body: { filter: { errorCode: "E" }, why: "mended" },
		});
		expect(begun).toMatchObject({
			status: 202,
			body: { state: "running", total: { count: 1_000, exact: true }, by: "operator" },
		});
		const id = begun.body["id"] as string;
		expect(await ended(id)).toMatchObject({
			state: "done",
			done: 1_000,
			ok: 1_000,
			refused: 0,
			errors: [],
		});
		await eventOf(stream, "job", (data) => data["id"] === id && data["state"] === "done");
		await until(async () => {
			await lottor.due(1_000);
			const { groups } = await lottor.call<{ groups: { completed: number } }>("stats");
			return groups.completed === 4;
		});
		const audit = await as("operator")(
			`GET /api/audit?action=${encodeURIComponent("retry job")}`,
		);
		expect(audit.body["items"]).toMatchObject([
			{ result: "done", subject: id, data: { done: 1_000, ok: 1_000 }, why: "mended" },
			{ result: "begun", subject: id },
		]);
	}, 60_000);

	test("ten thousand selected rows, some of them gone or twice", async () => {
		const { as } = await start();
		const ids = await failing(20);
		const unknown = Array.from({ length: 9_980 }, () => `${admin.lottor.newId()}.0`);
		const body = { ids: [...ids, ...unknown.slice(0, 9_979), ids[0]], why: "a test" };
		const begun = await as("operator")("POST /api/messages/discard", { body });
		expect(begun).toMatchObject({ status: 202, body: { total: { count: 9_999 } } });
		const job = await ended(begun.body["id"] as string);
		expect(job).toMatchObject({ state: "done", ok: 20, refused: 9_979 });
		expect(job["errors"]).toHaveLength(50);
		expect((job["errors"] as { code: string }[])[0]?.code).toBe("LOTTOR_MESSAGE_UNKNOWN");
		const more = { ids: [...body.ids, ...unknown], why: "x" };
		expect(await as("operator")("POST /api/messages/discard", { body: more })).toMatchObject({
			status: 422,
			body: { data: { field: "ids" } },
		});
	}, 60_000);

	test("is cancelled, and what it did stays done; a stop cancels, too", async () => {
		const { as, lottor } = await start();
		const failed = await failing(500);
		const unknown = Array.from({ length: 5_000 }, () => `${lottor.newId()}.0`);
		const ids = [...failed.slice(0, 200), ...unknown, ...failed.slice(200)];
		const cancelled = await as("operator")("POST /api/messages/discard", {
			body: { ids, why: "a test" },
		});
		const id = cancelled.body["id"] as string;
		await as("operator")(`POST /api/jobs/${id}/cancel`);
		const job = await ended(id);
		expect(job).toMatchObject({ state: "cancelled" });
		const { messages } = await lottor.call<{ messages: { discarded: number } }>("stats");
		expect(messages.discarded).toBe(job["ok"]);
		expect(job["ok"]).toBeLessThan(500);
		expect((await as("viewer")("GET /api/jobs")).body["items"]).toHaveLength(1);
		await as("operator")("POST /api/messages/discard", { body: { ids, why: "again" } });
		await lottor.broker.stop();
	}, 60_000);

	test("what can't be is refused: LOTTOR_JOB_UNKNOWN, LOTTOR_TOO_MANY_JOBS, a wrong filter", async () => {
		const { as } = await start();
		const ids = await failing(1);
		expect(await as("viewer")("GET /api/jobs/none")).toMatchObject({
			status: 404,
			body: { code: "LOTTOR_JOB_UNKNOWN" },
		});
		for (const [body, field] of [
			[{}, "ids"],
			[{ ids, filter: {} }, "ids"],
			[{ filter: { states: ["consumed"] } }, "filter.states"],
			[{ filter: { stats: [] } }, "filter.stats"],
			[{ ids: ["x"] }, "ids.0"],
		] as const) {
			expect(await as("operator")("POST /api/messages/retry", { body })).toMatchObject({
				status: 422,
				body: { code: "LOTTOR_INVALID_REQUEST", data: { field } },
			});
		}
		const many = Array.from({ length: 5_000 }, () => `${admin.lottor.newId()}.0`);
		const begin = () => as("operator")("POST /api/messages/retry", { body: { ids: many } });
		const answers = await Promise.all(Array.from({ length: 8 }, begin));
		expect(answers.filter(({ status }) => status === 202).length).toBeGreaterThanOrEqual(5);
		for (const { status, body } of answers) {
			if (status !== 202) expect(body).toMatchObject({ code: "LOTTOR_TOO_MANY_JOBS" });
		}
	}, 60_000);

	test("two operators on one message: one wins, the other is told", async () => {
		const { as } = await start();
		const [id = ""] = await failing(1);
		const { body } = await as("viewer")("GET /api/messages?states=failed");
		const [{ version } = { version: -1 }] = body["items"] as { version: number }[];
		const answers = await Promise.all([
			as("operator")(`POST /api/messages/${id}/discard`, { body: { version, why: "one" } }),
			as("admin")(`PUT /api/messages/${id}/payload`, {
				body: { payload: {}, version, why: "two" },
			}),
		]);
		expect(answers.map(({ status }) => status).sort()).toEqual([200, 409]);
		expect(answers.find(({ status }) => status === 409)?.body["code"]).toMatch(
			/^LOTTOR_(VERSION_CONFLICT|ILLEGAL_TRANSITION)$/,
		);
	});
});
