import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { get as getSecurely } from "node:https";
import { type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, afterEach, beforeAll, expect, it } from "@jest/globals";
import { type Discoverers, ServiceBroker } from "moleculer";

import {
	ConsulDiscoverer,
	EurekaDiscoverer,
	ZooKeeperDiscoverer,
} from "../../adapters/discoverer/index.ts";
import { ZooKeeperSession } from "../../adapters/discoverer/zookeeper-session.ts";
import { consul } from "../../scripts/servers/consul.ts";
import { eureka } from "../../scripts/servers/eureka.ts";
import type { Place, ServerKind } from "../../scripts/servers/kind.ts";
import { cacheFolder } from "../../scripts/servers/tools.ts";
import { zookeeper } from "../../scripts/servers/zookeeper.ts";
import { type Certificates, makeCertificates } from "../support/certificates.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { within } from "../support/live-clock.ts";
import { PrivateServer } from "../support/private-server.ts";

const PATIENCE = 30_000;
const SECRET = "S3cret-0123";

let folder: string;
let certificates: Certificates;
const cleanups: (() => unknown)[] = [];

beforeAll(async () => {
	folder = mkdtempSync(join(tmpdir(), "lottor-certificates-"));
	certificates = await makeCertificates(folder);
});

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

afterAll(() => rmSync(folder, { recursive: true }));

/** A test that needs NATS and what starts a server of this kind. */
function itWith(kind: ServerKind, name: string, play: (nats: string) => Promise<void>): void {
	const nats = process.env["NATS_URL"];
	const present = nats !== undefined && kind.installed(cacheFolder());
	const required = process.env["LOTTOR_REQUIRE_SERVERS"] === "1";
	(present || required ? it : it.skip)(
		name,
		async () => {
			if (!present) throw new Error(`It needs: npm run servers -- up nats ${kind.name}`);
			await play(nats);
		},
		240_000,
	);
}

async function serve(kind: ServerKind, password?: string): Promise<PrivateServer> {
	const server = await PrivateServer.start(kind, password);
	cleanups.push(() => server.dispose());
	return server;
}

interface Node {
	readonly broker: ServiceBroker;
	/** What was told of the registry's failures. */
	readonly troubles: string[];
}

function node(nodeID: string, nats: string, discoverer: Discoverers.Base): Node {
	const broker = new ServiceBroker({
		nodeID,
		namespace: `secured-${process.pid}`,
		transporter: nats as never,
		heartbeatInterval: 1,
		heartbeatTimeout: 4,
		logger: false,
		registry: { discoverer },
		skipProcessEventRegistration: true,
	});
	const troubles: string[] = [];
	broker.localBus.on("$discoverer.error", ({ error }: { error: Error & { data?: object } }) => {
		troubles.push(`${error.message} ${JSON.stringify(error.data)}`);
	});
	broker.fatal = (message) => void troubles.push(message);
	broker.createService({ name: nodeID });
	cleanups.push(() => broker.stop());
	return { broker, troubles };
}

/** Starts two nodes and waits until they have found each other. */
async function pair(
	nats: string,
	make: () => Discoverers.Base,
): Promise<[ServiceBroker, ServiceBroker]> {
	const [a, b] = [node("node-a", nats, make()), node("node-b", nats, make())];
	await Promise.all([a.broker.start(), b.broker.start()]);
	await a.broker.waitForServices("node-b", PATIENCE, 20);
	await b.broker.waitForServices("node-a", PATIENCE, 20);
	return [a.broker, b.broker];
}

/** Starts a node that is not let in. @returns the reason that it tells */
async function reasonOf(nats: string, discoverer: Discoverers.Base): Promise<string> {
	const { broker, troubles } = node("outsider", nats, discoverer);
	void broker.start();
	await within(PATIENCE, "the node says why", () => troubles.length > 0);
	expect(troubles.join()).not.toContain(SECRET);
	return troubles.join();
}

/** Consul over HTTPS that asks clients for a certificate, in a datacenter with a name. */
function secureConsul({ files }: Certificates): ServerKind {
	const httpsPort = ({ ports }: Place) => String(ports["https"]);
	return {
		...consul,
		ports: [...consul.ports, "https"],
		async command(place, cache) {
			const { file, args } = await consul.command(place, cache);
			const more = join(place.folder, "tls.json");
			const config = {
				datacenter: "dc7",
				ca_file: files.ca,
				cert_file: files.serverCert,
				key_file: files.serverKey,
				verify_incoming_https: true,
			};
			writeFileSync(more, JSON.stringify(config));
			return { file, args: [...args, `-config-file=${more}`] };
		},
		url: (place) => `consuls://127.0.0.1:${httpsPort(place)}`,
	};
}

/** The rights that the docs ask for. @returns a token with these only */
async function leastToken(server: PrivateServer): Promise<string> {
	const put = async (path: string, body: object): Promise<{ SecretID: string }> => {
		const answer = await fetch(`http://127.0.0.1:${server.port}/v1/acl/${path}`, {
			method: "PUT",
			headers: { "X-Consul-Token": SECRET },
			body: JSON.stringify(body),
		});
		if (!answer.ok) throw new Error(await answer.text());
		return (await answer.json()) as { SecretID: string };
	};
	const write = '{ policy = "write" }';
	const Rules = `service_prefix "" ${write} session_prefix "" ${write} key_prefix "moleculer/" ${write}`;
	await put("policy", { Name: "moleculer", Rules });
	return (await put("token", { Policies: [{ Name: "moleculer" }] })).SecretID;
}

itWith(
	consul,
	"Consul: HTTPS with an own authority, token of least rights, datacenter",
	async (nats) => {
		const { ca, cert, key } = certificates;
		const server = await serve(secureConsul(certificates), SECRET);
		const token = await leastToken(server);
		const url = `${server.url}?datacenter=dc7`;
		const tls = { ca, cert, key };
		const [a, b] = await pair(nats, () => new ConsulDiscoverer({ url, token, tls }));
		const late = { name: "late" };
		b.createService(late);
		await a.waitForServices("late", PATIENCE, 20);

		expect(await reasonOf(nats, new ConsulDiscoverer({ url, token }))).toMatch(
			/got no answer.*(certificate|issuer)/,
		);
		expect(await reasonOf(nats, new ConsulDiscoverer({ url, token, tls: { ca } }))).toMatch(
			/got no answer.*(certificate|reset|closed|alert)/i,
		);
		expect(
			await reasonOf(
				nats,
				new ConsulDiscoverer({ url: server.url, datacenter: "elsewhere", token, tls }),
			),
		).toMatch(/No path to datacenter/);
		expect(
			await reasonOf(nats, new ConsulDiscoverer({ url, token, tls, prefix: "other" })),
		).toMatch(/does not let the token write the key other.*Permission denied/);
	},
);

itWith(
	zookeeper,
	"ZooKeeper: everything below the URL's path, records for one user only",
	async (nats) => {
		const server = await serve(zookeeper);
		const url = `${server.url.replace("://", `://lottor:${SECRET}@`)}/shop/live`;
		const [a] = await pair(nats, () => new ZooKeeperDiscoverer(url));

		const session = (login?: string) => {
			const opened = new ZooKeeperSession({
				hosts: [server.url.replace("zookeeper://", "")],
				sessionTimeoutMs: 5_000,
				timeout: 3_000,
				login,
				digest: undefined,
				counted: () => undefined,
			});
			cleanups.push(() => opened.close());
			return opened;
		};
		const own = session(`lottor:${SECRET}`);
		const other = session(`lottor:wrong`);
		const children = async (path: string) =>
			((await own.children(path, () => undefined)) ?? []).sort();
		expect(await children("/")).toEqual(["shop", "zookeeper"]);
		expect(await children("/shop/live")).toEqual(["moleculer", "services"]);
		const nodes = `/shop/live/moleculer/${a.namespace}/nodes`;
		expect(await children(nodes)).toEqual(["node-a", "node-b"]);
		expect(await own.read(`${nodes}/node-a`)).toMatchObject({ nodeID: "node-a" });

		const refused = { type: "LOTTOR_REGISTRY_REFUSED" };
		await expect(other.read(`${nodes}/node-a`)).rejects.toMatchObject(refused);
		await expect(other.write(`${nodes}/node-a`, {})).rejects.toMatchObject(refused);
		await expect(other.remove(`${nodes}/node-a`)).rejects.toMatchObject(refused);
		await expect(other.create(`${nodes}/node-c`, {}, true)).rejects.toMatchObject(refused);
	},
);

/** Eureka over HTTPS. */
function secureEureka({ files, ca }: Certificates): ServerKind {
	const address = (place: Place) => eureka.url(place).replace(/^eureka:\/\/(.*@)?/, "");
	return {
		...eureka,
		async command(place, cache) {
			const command = await eureka.command(place, cache);
			const env = {
				SERVER_SSL_CERTIFICATE: files.serverCert,
				SERVER_SSL_CERTIFICATE_PRIVATE_KEY: files.serverKey,
			};
			return { ...command, env: { ...command.env, ...env } };
		},
		ready: (place) =>
			new Promise((resolve, reject) => {
				getSecurely(`https://${address(place)}/apps`, { ca }, (answer) => {
					answer.resume();
					resolve(answer.statusCode === 401);
				}).once("error", reject);
			}),
		url: (place) => eureka.url(place).replace("eureka:", "eurekas:"),
	};
}

itWith(
	eureka,
	"Eureka: HTTPS, password, and another server where one does not answer",
	async (nats) => {
		const { ca } = certificates;
		const server = await serve(secureEureka(certificates), SECRET);
		const proxy = await FaultProxy.start({ host: "127.0.0.1", port: server.port });
		cleanups.push(() => proxy.close());
		const hosts = ["127.0.0.1:1", `127.0.0.1:${proxy.port}`, `127.0.0.1:${server.port}`];
		const url = server.url.replace(/@[^/]+/, `@${hosts.join(",")}`);
		const make = (tls: { ca?: string }) =>
			new EurekaDiscoverer({
				url,
				tls,
				renewInterval: "1s",
				fetchInterval: "1s",
			});
		const [a, b] = await pair(nats, () => make({ ca }));

		const registered = () =>
			new Promise<boolean>((resolve, reject) => {
				const authorization = `Basic ${Buffer.from(`eureka:${SECRET}`).toString("base64")}`;
				const path = `https://127.0.0.1:${server.port}/eureka/apps/LATE/${b.namespace}:node-b:late`;
				const options = { ca, headers: { Authorization: authorization } };
				getSecurely(path, options, (answer) => {
					answer.resume();
					resolve(answer.statusCode === 200);
				}).once("error", reject);
			});
		expect(await registered()).toBe(false);
		proxy.blackhole();
		b.createService({ name: "late" });
		await within(PATIENCE, "the other server has it", registered);
		await a.waitForServices("late", PATIENCE, 20);
		expect(await reasonOf(nats, make({}))).toMatch(/got no answer.*(certificate|issuer)/);
	},
);

itWith(eureka, "Eureka: what has changed is fetched, everything only once", async (nats) => {
	// Its own: what other tests register there would be fetched, too.
	const server = await serve(eureka);
	const target = new URL(server.url.replace("eureka:", "http:"));
	const paths: string[] = [];
	const counter = createServer((req, res) => {
		if (req.method === "GET") paths.push(req.url ?? "");
		const { method, url: path, headers } = req;
		const { hostname: host, port } = target;
		req.pipe(
			request({ host, port, method, path, headers }, (answer) => {
				res.writeHead(answer.statusCode ?? 500, answer.headers);
				answer.pipe(res);
			}),
		);
	}).listen(0, "127.0.0.1");
	cleanups.push(() => {
		counter.closeAllConnections();
		counter.close();
	});
	await new Promise((resolve) => counter.once("listening", resolve));
	const { port } = counter.address() as AddressInfo;
	const periods = { renewInterval: "1s", fetchInterval: "500ms" } as const;
	const url = `eureka://127.0.0.1:${port}/eureka`;
	const a = node("node-a", nats, new EurekaDiscoverer({ url, ...periods }));
	await a.broker.start();
	const b = node("node-b", nats, new EurekaDiscoverer({ url: server.url, ...periods }));
	await b.broker.start();
	await a.broker.waitForServices("node-b", PATIENCE, 20);
	const deltas = () => paths.filter((path) => path === "/eureka/apps/delta").length;
	const before = deltas();
	await within(PATIENCE, "the changes are fetched again and again", () => deltas() >= before + 6);
	// Others may change something between the server's count of instances and its list of changes.
	const whole = paths.filter((path) => path === "/eureka/apps").length;
	expect(whole).toBeLessThan(deltas() / 2);
});
