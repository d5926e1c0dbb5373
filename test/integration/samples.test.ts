import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "@jest/globals";
import { ServiceBroker } from "moleculer";

import { authApi } from "../../samples/auth/auth-api.service.ts";
import { authService } from "../../samples/auth/auth.service.ts";
import { userApi } from "../../samples/user/user-api.service.ts";
import { userService } from "../../samples/user/user.service.ts";
import { makePlace } from "../../scripts/places.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { mysql } from "../../scripts/servers/mysql.ts";
import { postgres } from "../../scripts/servers/postgres.ts";
import { redis } from "../../scripts/servers/redis.ts";
import { LottorAdmin } from "../../services/admin/index.ts";
import { Coordinator } from "../../services/coordinator/index.ts";
import { tokenOf, withTokens } from "../support/admin.ts";
import { type Answer, http, portOf, type Sent } from "../support/http.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

type Send = (line: string, sent?: Sent) => Promise<Answer>;

interface Samples {
	readonly user: Send;
	readonly auth: Send;
	readonly lottor: Send;
	readonly broker: ServiceBroker;
	/** Waits until the group is in this state. @returns it as HTTP shows it */
	readonly group: (id: unknown, state: string) => Promise<Record<string, unknown>>;
}

const cleanups: (() => Promise<unknown> | void)[] = [];

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Gives each of the three databases, by its name, a URL of its own. */
type Databases = (name: "lottor" | "user" | "auth") => Promise<string> | string;

/** Files in a folder of a test's own. */
function inFiles(query = ""): Databases {
	const folder = mkdtempSync(join(tmpdir(), "lottor-"));
	cleanups.push(() => rmSync(folder, { recursive: true }));
	return (name) => `sqlite:${join(folder, `${name}.db`)}${name === "lottor" ? "" : query}`;
}

/** Databases of a test's own on servers; the coordinator's in a file where it can't be there. */
function onServers(participants: string, coordinator?: string): Databases {
	const files = coordinator === undefined ? inFiles() : undefined;
	return async (name) => {
		if (name === "lottor" && files) return files(name);
		const server = name === "lottor" && coordinator !== undefined ? coordinator : participants;
		const place = await makePlace(server, `test_${name}`);
		cleanups.push(() => place.remove());
		return place.url;
	};
}

/** Starts what `npm start` runs, on free ports and on databases of its own. */
async function start(databases = inFiles()): Promise<Samples> {
	const broker = new ServiceBroker({ nodeID: "node", logger: false });
	broker.createService(Coordinator({ store: await databases("lottor") }));
	broker.createService(LottorAdmin({ port: 0, ...withTokens }));
	broker.createService(userService(await databases("user")));
	broker.createService(userApi(0));
	broker.createService(authService(await databases("auth")));
	broker.createService(authApi(0));
	await broker.start();
	cleanups.push(() => broker.stop());

	const sender = (service: string, headers = {}): Send => {
		const port = portOf(broker, service);
		return (line, sent) => http(port, line, { headers, ...sent });
	};
	const lottor = sender("lottor-admin", { Authorization: `Bearer ${tokenOf("operator")}` });
	return {
		user: sender("user-api"),
		auth: sender("auth-api"),
		lottor,
		broker,
		async group(id, state) {
			let found: Record<string, unknown> = {};
			await until(async () => {
				found = (await lottor(`GET /api/groups/${String(id)}`)).body;
				return found["state"] === state;
			});
			return found;
		},
	};
}

async function rows(send: Send, path: string): Promise<Record<string, unknown>[]> {
	const { status, body } = await send(`GET ${path}`);
	expect(status).toBe(200);
	return body as unknown as Record<string, unknown>[];
}

describe("on a transactional SQLite file", () => samplesSuite(() => inFiles()));
describe("on a recorded SQLite file", () => samplesSuite(() => inFiles("?guarantee=recorded")));
withServer(mongodb, "samples on mongodb", (url) => {
	describe("on mongodb, the coordinator too", () => samplesSuite(() => onServers(url, url)));
});
for (const kind of [postgres, mysql, redis]) {
	withServer(kind, `samples on ${kind.name}`, (url) => {
		describe(`on ${kind.name}`, () => samplesSuite(() => onServers(url)));
	});
}

/** What holds on every store. */
function samplesSuite(databases: () => Databases): void {
	test("success: a user row and its role row", async () => {
		const { user, auth, group } = await start(databases());
		const { status, headers, body } = await user("POST /user?result=success", {
			body: { name: "Grace" },
		});
		expect(status).toBe(201);
		const made = body["user"] as { _id: string };
		expect(body).toEqual({
			group: expect.stringMatching(/^[0-9a-z]{26}$/),
			user: { _id: made._id, name: "Grace", group: body["group"] },
		});
		expect(headers["location"]).toBe(`/users/${made._id}`);
		await group(body["group"], "completed");
		expect(await rows(user, "/users")).toEqual([made]);
		expect(await rows(auth, "/roles")).toMatchObject([
			{ user: made._id, role: "member", group: body["group"] },
		]);
		expect((await user(`GET ${headers["location"] as string}`)).body).toEqual(made);
	});

	test("GET /produce is a success, too", async () => {
		const { user, auth, group } = await start(databases());
		const { status, body } = await user("GET /produce");
		expect(status).toBe(201);
		await group(body["group"], "completed");
		expect(await rows(auth, `/roles?group=${body["group"] as string}`)).toHaveLength(1);
	});

	test("fail: no user row, the group rolled back, nothing delivered", async () => {
		const { user, auth, group } = await start(databases());
		const { status, body } = await user("POST /user?result=fail");
		expect(status).toBe(409);
		expect(body).toMatchObject({ code: "SAMPLE_WORK_FAILED" });
		expect(await group(body["group"], "rolledBack")).toMatchObject({
			messages: [{ state: "discarded", sends: 0 }],
		});
		expect(await rows(user, "/users")).toEqual([]);
		expect(await rows(auth, "/roles")).toEqual([]);
	});

	test("consumeFail: retries run out, and an edited payload heals it", async () => {
		const { user, auth, lottor, group } = await start(databases());
		const { status, body } = await user("POST /user?result=consumeFail");
		expect(status).toBe(201);
		const made = body["user"] as { _id: string };
		const message = `${body["group"] as string}.0`;
		await until(async () => {
			const failed = await lottor("GET /api/messages?states=failed");
			return (failed.body["items"] as unknown[]).length === 1;
		});
		expect((await lottor(`GET /api/groups/${body["group"] as string}`)).body).toMatchObject({
			state: "committed",
			messages: [
				{
					state: "failed",
					attempts: 3,
					error: { code: "SAMPLE_USER_MISSING", retryable: true },
					payload: { user: null, role: "member" },
				},
			],
		});
		expect(await rows(user, "/users")).toHaveLength(1);
		expect(await rows(auth, "/roles")).toEqual([]);

		const payload = { user: made._id, role: "member" };
		const edit = { payload, why: "the user was not told" };
		await lottor(`PUT /api/messages/${message}/payload`, { body: edit });
		await lottor(`POST /api/messages/${message}/retry`);
		await group(body["group"], "completed");
		expect(await rows(auth, "/roles")).toMatchObject([{ user: made._id }]);
	});
}

describe("the samples' HTTP", () => {
	test.each([
		["POST /user?result=maybe", {}],
		["POST /user", { body: { name: "" } }],
		["GET /users?limit=0", {}],
	])("%s is refused", async (line, sent) => {
		const { user } = await start();
		expect(await user(line, sent)).toMatchObject({
			status: 422,
			body: { code: "VALIDATION_ERROR" },
		});
		expect(await rows(user, "/users")).toEqual([]);
	});

	test("nothing but the listed paths is reachable", async () => {
		const { user, auth } = await start();
		for (const send of [user, auth]) {
			for (const line of ["GET /", "GET /lottor/stats", "GET /~node/list", "POST /auth/rows"])
				expect((await send(line)).status).toBe(404);
		}
		expect((await user("POST /user", { body: "{" })).status).toBe(400);
		expect((await user("GET /users/nobody")).status).toBe(404);
	});

	test("without a coordinator nothing is made, and the caller is told to come again", async () => {
		const { user, broker } = await start();
		await broker.destroyService("lottor");
		const { status, body } = await user("POST /user");
		expect({ status, body }).toMatchObject({
			status: 503,
			body: { code: "LOTTOR_NO_COORDINATOR" },
		});
		expect(await rows(user, "/users")).toEqual([]);
	});
});

test("the sample user can tell how a transaction ended that it did not live to record", async () => {
	const { user, broker } = await start(inFiles("?guarantee=recorded"));
	const { body } = await user("POST /user");
	const service = broker.getLocalService("user") as unknown as {
		resolveTransaction(group: { id: string }): Promise<string>;
	};
	const id = body["group"] as string;
	expect(await service.resolveTransaction({ id })).toBe("committed");
	expect(await service.resolveTransaction({ id: "01kc0000000000000000000000" })).toBe(
		"rolledBack",
	);
});
