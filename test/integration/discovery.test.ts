import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "@jest/globals";

import { etcd } from "../../scripts/servers/etcd.ts";
import { nats } from "../../scripts/servers/nats.ts";
import { redis } from "../../scripts/servers/redis.ts";
import { cacheFolder, freePort } from "../../scripts/servers/tools.ts";
import { ZooKeeperSession } from "../../adapters/discoverer/zookeeper-session.ts";
import { http } from "../support/http.ts";
import { PrivateServer } from "../support/private-server.ts";
import { Runner } from "../support/runner.ts";
import { until } from "../support/until.ts";

let folder: string;

beforeAll(() => {
	folder = mkdtempSync(join(tmpdir(), "lottor-"));
});

afterAll(() => rmSync(folder, { recursive: true }));

async function json<T>(url: string): Promise<T> {
	const response = await fetch(url, { headers: { Accept: "application/json" } });
	if (!response.ok) throw new Error(`${url} answered ${response.status}`);
	return (await response.json()) as T;
}

/** What a program without Moleculer does: each finds `host:port` of every coordinator. */
const LOOK_UPS: Readonly<Record<string, (url: string) => Promise<string[]>>> = {
	async CONSUL_URL(url) {
		const base = url.replace("consul:", "http:");
		const found = await json<{ Service: { Address: string; Port: number } }[]>(
			`${base}/v1/health/service/lottor?passing`,
		);
		return found.map(({ Service }) => `${Service.Address}:${Service.Port}`);
	},
	async EUREKA_URL(url) {
		const { application } = await json<{
			application: { instance: { ipAddr: string; port: { $: number } }[] };
		}>(`${url.replace("eureka:", "http:")}/apps/LOTTOR`);
		return application.instance.map(({ ipAddr, port }) => `${ipAddr}:${port.$}`);
	},
	async ZOOKEEPER_URL(url) {
		const session = new ZooKeeperSession({
			hosts: [url.replace("zookeeper://", "")],
			sessionTimeoutMs: 5_000,
			timeout: 3_000,
			login: undefined,
			digest: undefined,
			counted: () => undefined,
		});
		try {
			const ids = (await session.children("/services/lottor", () => undefined)) ?? [];
			const nodes = await Promise.all(
				ids.map((id) => session.read(`/services/lottor/${id}`)),
			);
			return (nodes as { address: string; port: number }[]).map(
				({ address, port }) => `${address}:${port}`,
			);
		} finally {
			await session.close();
		}
	},
};

for (const [variable, lookUp] of Object.entries(LOOK_UPS)) {
	const { [variable]: discoverer, NATS_URL: transporter } = process.env;
	const present = discoverer !== undefined && transporter !== undefined;
	const required = process.env["LOTTOR_REQUIRE_SERVERS"] === "1";
	(present || required ? it : it.skip)(
		`the coordinator's HTTP address is found by a standard look-up: ${variable}`,
		async () => {
			if (!present) {
				throw new Error(`${variable} and NATS_URL must be set: npm run servers -- up`);
			}
			const port = await freePort();
			const lottor = new Runner("start:lottor", {
				LOTTOR_DATA: folder,
				LOTTOR_HTTP_PORT: String(port),
				LOTTOR_TRANSPORTER: transporter,
				LOTTOR_DISCOVERER: discoverer,
			});
			try {
				await lottor.started();
				let found: string[] = [];
				await until(async () => {
					found = await lookUp(discoverer).catch((): string[] => []);
					return found.includes(`127.0.0.1:${port}`);
				});
				const answer = await fetch(`http://127.0.0.1:${port}/readyz`);
				expect(answer.status).toBe(200);
			} finally {
				await lottor.end("SIGTERM");
			}
		},
		90_000,
	);
}

for (const kind of [etcd, redis]) {
	const present = [kind, nats].every((one) => one.installed(cacheFolder()));
	const required = process.env["LOTTOR_REQUIRE_SERVERS"] === "1";
	(present || required ? it : it.skip)(
		`the samples find each other by Moleculer's own discoverer: ${kind.name}`,
		async () => {
			const [registry, transporter] = await Promise.all([
				PrivateServer.start(kind),
				PrivateServer.start(nats),
			]);
			const data = mkdtempSync(join(tmpdir(), "lottor-"));
			const processes = ["start:lottor", "start:auth", "start:user"].map(
				(script) =>
					new Runner(script, {
						LOTTOR_DATA: data,
						LOTTOR_HTTP_PORT: "0",
						LOTTOR_USER_PORT: "0",
						LOTTOR_AUTH_PORT: "0",
						LOTTOR_TRANSPORTER: transporter.url,
						LOTTOR_DISCOVERER: registry.url,
					}),
			);
			try {
				await Promise.all(processes.map((one) => one.started()));
				const [lottor, auth, user] = processes as [Runner, Runner, Runner];
				const port = await user.port("user-api");
				let group: unknown;
				await until(async () => {
					const { status, body } = await http(port, "POST /user");
					group = body["group"];
					return status === 201;
				});
				const line = `GET /api/groups/${String(group)}`;
				const admin = await lottor.port("lottor-admin");
				await until(async () => (await http(admin, line)).body["state"] === "completed");
				const { body } = await http(await auth.port("auth-api"), "GET /roles");
				expect(body).toContainEqual(expect.objectContaining({ group }));
			} finally {
				await Promise.all(processes.map((one) => one.end("SIGTERM")));
				await Promise.all([registry.dispose(), transporter.dispose()]);
				rmSync(data, { recursive: true });
			}
		},
		90_000,
	);
}
