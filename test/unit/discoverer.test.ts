import { EventEmitter, once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { afterEach, expect, it, jest } from "@jest/globals";
import { type Discoverers, ServiceBroker } from "moleculer";

import {
	ConsulDiscoverer,
	Etcd3Discoverer,
	resolveDiscoverer,
} from "../../adapters/discoverer/index.ts";

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A broker whose process does not end where it would have to. */
function brokerWith(discoverer: Discoverers.Base) {
	const broker = new ServiceBroker({
		nodeID: "node",
		logger: false,
		transporter: "Fake",
		heartbeatInterval: 1,
		heartbeatTimeout: 3,
		registry: { discoverer },
		skipProcessEventRegistration: true,
	});
	const fatal = jest.fn<typeof broker.fatal>();
	broker.fatal = fatal;
	cleanups.push(() => broker.stop());
	return { broker, fatal };
}

/** An agent of Consul's that gives everybody the same answer. */
async function agent(answer: (path: string) => [status: number, body: string]): Promise<string> {
	const server = createServer((req, res) => {
		const [status, body] = answer(req.url ?? "");
		res.writeHead(status).end(body);
	}).listen(0, "127.0.0.1");
	await once(server, "listening");
	cleanups.push(() => {
		server.closeAllConnections();
		server.close();
	});
	return `consul://:S3cret@127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A packet of another process with the same nodeID. */
function deliver(broker: ServiceBroker, cmd: string, payload: object): Promise<boolean> {
	const transit = broker.transit as unknown as {
		messageHandler(cmd: string, packet: object): Promise<boolean>;
	};
	return transit.messageHandler(cmd, { payload: { ver: "5", sender: "node", ...payload } });
}

/** What the first error says that the node tells of the registry. */
function firstTrouble(broker: ServiceBroker): Promise<{ error: Error; type: string }> {
	return new Promise((resolve) => broker.localBus.once("$discoverer.error", resolve));
}

it("LOTTOR_REGISTRY_UNAVAILABLE is told while the registry is down, and the node waits", async () => {
	const { broker, fatal } = brokerWith(new ConsulDiscoverer("consul://:S3cret@127.0.0.1:1"));
	const trouble = firstTrouble(broker);
	void broker.start();
	expect(await trouble).toMatchObject({
		type: "registryFailed",
		error: { type: "LOTTOR_REGISTRY_UNAVAILABLE" },
	});
	expect((await trouble).error.message).not.toContain("S3cret");
	expect(fatal).not.toHaveBeenCalled();
});

it("LOTTOR_REGISTRY_REFUSED ends a node whose token is wrong, and never shows it", async () => {
	const { broker, fatal } = brokerWith(
		new ConsulDiscoverer(await agent(() => [403, "ACL not found"])),
	);
	const trouble = firstTrouble(broker);
	void broker.start();
	expect(await trouble).toMatchObject({
		type: "registryRefused",
		error: { type: "LOTTOR_REGISTRY_REFUSED" },
	});
	expect(fatal.mock.calls[0]?.[0]).toMatch(
		/does not let the token open a session.*ACL not found/,
	);
	expect(String(fatal.mock.calls[0]?.[0])).not.toContain("S3cret");
});

it("LOTTOR_NODE_ID_TAKEN ends a node whose nodeID another living one has", async () => {
	const holder = { nodeID: "node", instanceID: "other", seq: 1 };
	const Value = Buffer.from(JSON.stringify(holder)).toString("base64");
	const { broker, fatal } = brokerWith(
		new ConsulDiscoverer(
			await agent((path) => {
				if (path.includes("/v1/session/")) return [200, '{"ID":"session"}'];
				if (path.includes("acquire=")) return [200, "false"];
				return [200, JSON.stringify([{ Key: "node", Value, ModifyIndex: 1 }])];
			}),
		),
	);
	await deliver(broker, "HEARTBEAT", { instanceID: "other", seq: 1, cpu: 0 });
	void broker.start();
	while (fatal.mock.calls.length === 0) await new Promise(setImmediate);
	expect(fatal.mock.calls[0]?.[1]).toMatchObject({ type: "LOTTOR_NODE_ID_TAKEN" });
});

it("a nodeID whose living owner has lost its record is refused too", async () => {
	const ended: string[] = [];
	const { broker, fatal } = brokerWith(
		new ConsulDiscoverer(
			await agent((path) => {
				if (path.includes("session/destroy")) ended.push(path);
				return [200, path.includes("/v1/session/") ? '{"ID":"session"}' : "true"];
			}),
		),
	);
	await deliver(broker, "HEARTBEAT", { instanceID: "other", seq: 1, cpu: 0 });
	void broker.start();
	while (fatal.mock.calls.length === 0) await new Promise(setImmediate);
	expect(fatal.mock.calls[0]?.[1]).toMatchObject({ data: { holder: "other" } });
	expect(ended).toEqual(["/v1/session/destroy/session"]);
});

it("a nodeID is free again once its owner has said goodbye", async () => {
	const { broker, fatal } = brokerWith(
		new ConsulDiscoverer(
			await agent((path) => [
				200,
				path.includes("/v1/session/") ? '{"ID":"session"}' : "true",
			]),
		),
	);
	await deliver(broker, "HEARTBEAT", { instanceID: "other", seq: 1, cpu: 0 });
	await deliver(broker, "DISCONNECT", {});
	await broker.start();
	expect(fatal).not.toHaveBeenCalled();
});

it("a node that never joined says no goodbye in the name of the one that it waited for", async () => {
	const { broker } = brokerWith(new ConsulDiscoverer("consul://127.0.0.1:1"));
	const sent: string[] = [];
	const transit = broker.transit as unknown as { publish(packet: { type: string }): unknown };
	const publish = transit.publish.bind(transit);
	transit.publish = (packet) => {
		sent.push(packet.type);
		return publish(packet);
	};
	const trouble = firstTrouble(broker);
	void broker.start();
	await trouble;
	await broker.stop();
	expect(sent).not.toContain("DISCONNECT");
});

it("a record that is no INFO of the node is left alone", async () => {
	const info = { ver: "5", sender: "somebody", instanceID: "x", seq: 9, services: 1 };
	const Value = Buffer.from(JSON.stringify(info)).toString("base64");
	const { broker } = brokerWith(
		new ConsulDiscoverer(
			await agent((path) => {
				if (path.includes("/v1/session/")) return [200, '{"ID":"session"}'];
				if (path.includes("/info/")) return [200, JSON.stringify([{ Key: "x", Value }])];
				return [200, "true"];
			}),
		),
	);
	await broker.start();
	await broker.registry.discoverer.discoverNode("remote");
	const nodes = broker.registry.getNodeList({}) as { id: string }[];
	expect(nodes.map(({ id }) => id)).toEqual(["node"]);
});

it.each([
	[{ ca: "/etc/ca.pem" }, "ConsulDiscoverer.tls.ca"],
	[{ key: 1 }, "ConsulDiscoverer.tls.key"],
	[{ cert: ["-----BEGIN CERTIFICATE-----", "x"] }, "ConsulDiscoverer.tls.cert"],
	[{ certs: "" }, "ConsulDiscoverer.tls.certs"],
])("TLS that cannot work is refused by the option's name: %j", (tls, field) => {
	expect(() => new ConsulDiscoverer({ tls } as never)).toThrow(`Option ${field} `);
	const ca = ["-----BEGIN CERTIFICATE-----", Buffer.from("-----BEGIN CERTIFICATE-----")];
	expect(() => new ConsulDiscoverer({ tls: { ca } })).not.toThrow();
});

it.each([
	["no transporter", null, /needs a transporter/],
	["the TCP transporter", "TCP", /needs heartbeats, which this transporter does not have/],
] as const)("fails fast with %s", (_, transporter, reason) => {
	const fatal = jest.spyOn(ServiceBroker.prototype, "fatal").mockImplementation(() => undefined);
	cleanups.push(() => fatal.mockRestore());
	for (const url of ["consul://a", "zookeeper://a:2181,b:2181/path", "eureka://a:8761/eureka"]) {
		fatal.mockClear();
		new ServiceBroker({
			logger: false,
			transporter,
			registry: { discoverer: resolveDiscoverer(url) },
			skipProcessEventRegistration: true,
		});
		expect(fatal.mock.calls[0]?.[1]).toMatchObject({ type: "LOTTOR_INVALID_OPTIONS" });
		expect(String(fatal.mock.calls[0]?.[1])).toMatch(reason);
	}
});

it("options that are none are refused", () => {
	for (const options of [null, 5, []]) {
		expect(() => new ConsulDiscoverer(options as never)).toThrow(
			"Option ConsulDiscoverer must be an object",
		);
	}
});

it.each([
	["consul://", "ConsulDiscoverer.url"],
	["consul://a/path", "ConsulDiscoverer.url"],
	["zookeeper://user@a", "ZooKeeperDiscoverer.password"],
	["eureka://a:99999", "EurekaDiscoverer.url"],
	["nomad://a", "registry.discoverer"],
])("%s is refused by the option's name", (url, field) => {
	expect(() => resolveDiscoverer(url)).toThrow(`Option ${field} `);
});

/** A lease of etcd3's that etcd does not grant: it is lost before anybody can wait for it. */
class NoLease extends EventEmitter {
	readonly #refused = Promise.reject(new Error("etcd is away")).catch((error: Error) => {
		this.emit("lost", error);
		return error;
	});
	async grant(): Promise<never> {
		throw await this.#refused;
	}
	release(): void {}
	async revoke(): Promise<void> {}
}

it("the node goes on while etcd grants no lease, and asks again after a pause", async () => {
	const { broker } = brokerWith(new Etcd3Discoverer("etcd3://127.0.0.1:1"));
	const discoverer = broker.registry.discoverer as Etcd3Discoverer;
	let leases = 0;
	(discoverer.client as { lease(): NoLease }).lease = () => {
		// Moleculer's own would ask for ever, within this turn of the loop.
		if (++leases > 100) throw new Error("asked again and again");
		return new NoLease();
	};
	(broker.transit as unknown as { connected: boolean }).connected = true;
	await Promise.all([discoverer.sendHeartbeat(), discoverer.sendLocalNodeInfo()]);
	expect(leases).toBe(2);
	while (leases < 4) await new Promise((resolve) => setTimeout(resolve, 20));
	(broker.transit as unknown as { connected: boolean }).connected = false;
});
