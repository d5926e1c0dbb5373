import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "@jest/globals";

import { makePlace } from "../../scripts/places.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { freePort } from "../../scripts/servers/tools.ts";
import { http } from "../support/http.ts";
import { Runner } from "../support/runner.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

const PATIENCE_MS = 120_000;

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function run(script: string, env: Readonly<Record<string, string>>): Runner {
	const runner = new Runner(script, env);
	cleanups.push(() => runner.end("SIGKILL"));
	return runner;
}

/** Free ports, and a folder that is removed afterwards. */
function privately(): Record<string, string> {
	const data = mkdtempSync(join(tmpdir(), "lottor-"));
	cleanups.push(() => rmSync(data, { recursive: true }));
	return {
		LOTTOR_DATA: data,
		LOTTOR_HTTP_PORT: "0",
		LOTTOR_USER_PORT: "0",
		LOTTOR_AUTH_PORT: "0",
	};
}

async function groupIs(port: number, id: string, state: string): Promise<void> {
	await until(async () => (await http(port, `GET /api/groups/${id}`)).body["state"] === state);
}

async function rows(port: number, path: string): Promise<{ group: string }[]> {
	return (await http(port, `GET ${path}`)).body as unknown as { group: string }[];
}

describe("npm start", () => {
	test(
		"works at once, and loses nothing to kill -9",
		async () => {
			const env = privately();
			const first = run("start", env);
			await first.started();
			const { status, body } = await http(
				await first.port("user-api"),
				"POST /user?result=success",
			);
			expect(status).toBe(201);
			const group = body["group"] as string;
			await groupIs(await first.port("lottor-admin"), group, "completed");
			await Promise.all([
				first.printed(/USER: Lottor: connected to the coordinator on node/),
				first.printed(new RegExp(`group ${group} prepared`)),
				first.printed(new RegExp(`group ${group} committed`)),
				first.printed(new RegExp(`message ${group}\\.0 .*consumed`)),
			]);
			expect(await first.end("SIGKILL")).toEqual([null, "SIGKILL"]);

			const second = run("start", env);
			await second.started();
			const lottor = await second.port("lottor-admin");
			expect((await http(lottor, "GET /readyz")).status).toBe(200);
			await groupIs(lottor, group, "completed");
			expect(await rows(await second.port("user-api"), "/users")).toMatchObject([{ group }]);
			expect(await rows(await second.port("auth-api"), "/roles")).toMatchObject([{ group }]);
			expect(await second.end("SIGTERM")).toEqual([0, null]);
		},
		PATIENCE_MS,
	);

	withServer(mongodb, "npm start on mongodb", (server) => {
		test(
			"runs on mongodb by environment alone, and loses nothing to kill -9",
			async () => {
				const databases: Record<string, string> = {};
				for (const name of ["LOTTOR_STORE", "USER_STORE", "AUTH_STORE"]) {
					const place = await makePlace(server, "test_start");
					cleanups.push(() => place.remove());
					databases[name] = place.url;
				}
				const env = { ...privately(), ...databases };
				const first = run("start", env);
				await first.started();
				const { status, body } = await http(await first.port("user-api"), "POST /user");
				expect(status).toBe(201);
				const group = body["group"] as string;
				await groupIs(await first.port("lottor-admin"), group, "completed");
				expect(readdirSync(env["LOTTOR_DATA"] ?? "")).toEqual([]);
				await first.end("SIGKILL");

				const second = run("start", env);
				await second.started();
				await groupIs(await second.port("lottor-admin"), group, "completed");
				expect(await rows(await second.port("user-api"), "/users")).toMatchObject([
					{ group },
				]);
				expect(await rows(await second.port("auth-api"), "/roles")).toMatchObject([
					{ group },
				]);
				expect(await second.end("SIGTERM")).toEqual([0, null]);
			},
			PATIENCE_MS,
		);
	});

	test.each([
		["LOTTOR_HTTP_PORT", "none"],
		["LOTTOR_STORE", "nonsense:x"],
		["LOTTOR_DATA", "/dev/null/data"],
	])(
		"%s=%s ends it with one line that names the variable",
		async (name, value) => {
			const runner = run("start", { ...privately(), [name]: value });
			expect(await runner.ended()).toEqual([1, null]);
			expect(runner.output).toMatch(new RegExp(`^Option ${name} [^\\n]+\\n$`));
		},
		PATIENCE_MS,
	);
});

describe("npm run start:lottor, start:auth, start:user", () => {
	test(
		"find each other, and each comes back after kill -9",
		async () => {
			const env = { ...privately(), LOTTOR_TCP_PORT: String(await freePort()) };
			let lottor = run("start:lottor", env);
			let auth = run("start:auth", env);
			const user = run("start:user", { ...env, LOTTOR_LOG_LEVEL: "debug" });
			await Promise.all([lottor.started(), auth.started(), user.started()]);
			await user.printed(/USER: Lottor: connected to the coordinator on lottor/);
			await user.printed(/DEBUG BROKER: Heartbeat of lottor/);
			const produce = async (): Promise<string> => {
				const port = await user.port("user-api");
				let group = "";
				await until(async () => {
					const { status, body } = await http(port, "POST /user");
					group = String(body["group"]);
					return status === 201;
				});
				return group;
			};

			const first = await produce();
			await groupIs(await lottor.port("lottor-admin"), first, "completed");

			await auth.end("SIGKILL");
			const second = await produce();
			auth = run("start:auth", env);
			await auth.started();
			await groupIs(await lottor.port("lottor-admin"), second, "completed");

			await lottor.end("SIGKILL");
			lottor = run("start:lottor", env);
			await lottor.started();
			const third = await produce();
			await groupIs(await lottor.port("lottor-admin"), third, "completed");

			const roles = await rows(await auth.port("auth-api"), "/roles");
			expect(roles.map(({ group }) => group)).toEqual([first, second, third]);
		},
		PATIENCE_MS,
	);
});
