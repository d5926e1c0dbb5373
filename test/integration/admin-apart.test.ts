import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "@jest/globals";
import { ServiceBroker } from "moleculer";

import { LoopbackTcp } from "../../adapters/transporter/loopback-tcp.ts";
import { freePort } from "../../scripts/servers/tools.ts";
import { openStream } from "../support/event-stream.ts";
import { prepareItem } from "../support/groups.ts";
import { http } from "../support/http.ts";
import { Runner } from "../support/runner.ts";
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

async function surroundings() {
	const folder = mkdtempSync(join(tmpdir(), "lottor-"));
	cleanups.push(() => rmSync(folder, { recursive: true }));
	const port = String(await freePort());
	return { LOTTOR_DATA: folder, LOTTOR_HTTP_PORT: "0", LOTTOR_TCP_PORT: port };
}

test(
	"the admin service in a process of its own lists, acts, tells of changes, and outlives the coordinator",
	async () => {
		const env = await surroundings();
		const coordinator = run("start:coordinator", env);
		const admin = run("start:admin", env);
		const producer = new ServiceBroker({
			nodeID: "producer",
			logger: false,
			transporter: new LoopbackTcp({ urls: `tcp://127.0.0.1:${env.LOTTOR_TCP_PORT}/lottor` }),
		});
		cleanups.push(() => producer.stop());
		await Promise.all([coordinator.started(), admin.started(), producer.start()]);
		await producer.waitForServices("lottor");
		const prepare = async (): Promise<string> => {
			const item = prepareItem({ checkAfter: 3_600_000 });
			await producer.call("lottor.prepare", { items: [item] });
			return item.id;
		};

		const port = await admin.port("lottor-admin");
		await until(async () => (await http(port, "GET /readyz")).status === 200);
		const [, code = ""] = await admin.printed(/Log in at \S+\/login\?code=(\S+)/);
		const login = await http(port, `GET /login?code=${code}`);
		const [cookie = ""] = login.headers["set-cookie"] as string[];
		const session = { cookie: cookie.split(";")[0] ?? "" };
		const me = await http(port, "GET /api/me", { headers: session });
		expect(me.body).toMatchObject({ role: "admin" });

		const stream = await openStream(port, session);
		cleanups.push(() => stream.close());
		const told = (id: string) =>
			stream.events.some(
				({ name, data }) => name === "groups" && JSON.stringify(data).includes(id),
			);
		const first = await prepare();
		await until(async () => told(first));
		const list = async () => (await http(port, "GET /api/groups", { headers: session })).body;
		expect(await list()).toMatchObject({ items: [{ id: first, state: "prepared" }] });
		const headers = { ...session, "x-csrf-token": me.body["csrf"] as string };
		const body = { why: "nobody knows it" };
		const act = await http(port, `POST /api/groups/${first}/recheck`, { headers, body });
		expect(act).toMatchObject({ status: 200 });

		await coordinator.end("SIGKILL");
		await until(async () => (await http(port, "GET /readyz")).status === 503);
		expect(await http(port, "GET /api/groups", { headers: session })).toMatchObject({
			status: 503,
			body: { code: "LOTTOR_NO_COORDINATOR" },
		});
		const available = () =>
			stream.events.filter(({ name }) => name === "coordinator").at(-1)?.data["available"];
		await until(async () => available() === false);
		expect(await http(port, "GET /healthz")).toMatchObject({ status: 200 });

		await run("start:coordinator", env).started();
		await until(async () => (await http(port, "GET /readyz")).status === 200);
		await until(async () => available() === true);
		expect(await list()).toMatchObject({ items: [{ id: first }] });
		await producer.waitForServices("lottor");
		const second = await prepare();
		await until(async () => told(second));
	},
	PATIENCE_MS,
);
