import { spawn } from "node:child_process";
import { type EventEmitter, once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:net";
import { networkInterfaces } from "node:os";

import { afterEach, describe, expect, it } from "@jest/globals";
import { ServiceBroker } from "moleculer";

import { LoopbackTcp } from "../../adapters/transporter/loopback-tcp.ts";
import type { LoopbackTcpOptions } from "../../adapters/transporter/loopback-tcp.ts";
import { until } from "../support/until.ts";

const PEER = new URL("./loopback-tcp.peer.ts", import.meta.url).pathname;

const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
	for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A started node on a free port, with a service that bears its name. */
async function startNode(nodeID: string, opts: LoopbackTcpOptions = {}) {
	const transporter = new LoopbackTcp(opts);
	const broker = new ServiceBroker({ nodeID, logger: false, transporter });
	broker.createService({
		name: nodeID,
		actions: {
			hello: (ctx: { params: { name: string } }) => `${nodeID} greets ${ctx.params.name}`,
			size: (ctx: { params: { text: string } }) => ctx.params.text.length,
		},
	});
	await broker.start();
	cleanups.push(() => broker.stop());

	const address = transporter.reader?.server?.address() as AddressInfo;
	return { broker, transporter, address, url: `tcp://127.0.0.1:${address.port}/${nodeID}` };
}

function greet(from: ServiceBroker, to: string): Promise<string> {
	return from.call<string, { name: string }>(`${to}.hello`, { name: from.nodeID });
}

/** Resolves with how connecting ends, "connected" or the error's code. */
function tryConnect(host: string, port: number): Promise<string> {
	return new Promise((resolve) => {
		const socket = connect({ host, port, timeout: 2000 });
		const end = (result: string) => {
			socket.destroy();
			resolve(result);
		};
		socket.on("connect", () => end("connected"));
		socket.on("timeout", () => end("ETIMEDOUT"));
		socket.on("error", (err: NodeJS.ErrnoException) => end(err.code ?? err.message));
	});
}

describe("LoopbackTcp", () => {
	it("lets two nodes find and call each other", async () => {
		const a = await startNode("node-a");
		const b = await startNode("node-b", { urls: a.url });
		await Promise.all([
			a.broker.waitForServices("node-b", 10_000, 20),
			b.broker.waitForServices("node-a", 10_000, 20),
		]);

		expect(await greet(a.broker, "node-b")).toBe("node-b greets node-a");
		expect(await greet(b.broker, "node-a")).toBe("node-a greets node-b");
	});

	it("lets three nodes find each other through the one that two of them know", async () => {
		const a = await startNode("node-a");
		const b = await startNode("node-b", { urls: [a.url] });
		const c = await startNode("node-c", { urls: [a.url] });
		const nodes = [a, b, c];
		const ids = ["node-a", "node-b", "node-c"];
		await Promise.all(nodes.map((node) => node.broker.waitForServices(ids, 15_000, 20)));

		for (const { broker } of nodes) {
			for (const id of ids)
				expect(await greet(broker, id)).toBe(`${id} greets ${broker.nodeID}`);
		}
	});

	it("R13 hears of nodes on a machine at its limit, whose CPU figure never changes", async () => {
		const cpu = () => Promise.resolve({ avg: 100, usages: [100] });
		const a = await startNode("node-a");
		const b = await startNode("node-b", { urls: [a.url] });
		for (const { broker } of [a, b]) Object.assign(broker, { getCpuUsage: cpu });
		await a.broker.waitForServices("node-b", 10_000, 20);
		const heard = () =>
			(a.transporter.nodes.get("node-b") as { lastHeartbeatTime: number }).lastHeartbeatTime;
		for (let round = 0; round < 3; round++) {
			const before = heard();
			await until(() => heard() > before);
		}
	});

	it("listens on 127.0.0.1 only", async () => {
		const { address, transporter } = await startNode("node-a");

		expect(address).toMatchObject({ address: "127.0.0.1", family: "IPv4" });
		expect(transporter.opts.port).toBe(address.port);
		expect(await tryConnect("127.0.0.1", address.port)).toBe("connected");
		const others = Object.values(networkInterfaces())
			.flatMap((list) => list ?? [])
			.filter(({ address, family }) => family === "IPv4" && address !== "127.0.0.1");
		for (const { address: host } of others)
			expect([host, await tryConnect(host, address.port)]).toEqual([host, "ECONNREFUSED"]);
	});

	it("sends no datagram", async () => {
		const { transporter } = await startNode("node-a");

		expect(transporter.opts.udpDiscovery).toBe(false);
		expect(
			(transporter as unknown as { udpServer: { servers: [] } }).udpServer.servers,
		).toEqual([]);
	});

	it("takes its port from its own entry in the urls", async () => {
		const free = await startNode("node-a");
		await free.broker.stop();
		const { address } = await startNode("node-a", { urls: free.url });

		expect(address.port).toBe(free.address.port);
	});

	it("says so when the port is taken", async () => {
		const { address } = await startNode("node-a");
		const second = new LoopbackTcp({ port: address.port });
		const broker = new ServiceBroker({ nodeID: "node-b", logger: false, transporter: second });
		second.init(
			broker.transit as never,
			() => undefined,
			() => undefined,
		);

		await expect(second.connect()).rejects.toMatchObject({ code: "EADDRINUSE" });
	});

	it("carries a packet that is over Moleculer's own limit of 1 MiB", async () => {
		const a = await startNode("node-a");
		const b = await startNode("node-b", { urls: a.url });
		await b.broker.waitForServices("node-a", 10_000, 20);

		const text = "x".repeat(3 * 1024 * 1024);
		expect(await b.broker.call("node-a.size", { text })).toBe(text.length);
	});

	it("drops a peer whose process was killed", async () => {
		const { broker, url } = await startNode("node-a");
		const peer = spawn(process.execPath, [PEER, "node-b", url], { stdio: "inherit" });
		const exited = once(peer, "exit");
		cleanups.push(async () => {
			peer.kill("SIGKILL");
			await exited;
		});
		await broker.waitForServices("node-b", 15_000, 20);
		expect(await broker.call("node-b.whoami")).toBe(peer.pid);

		const gone = new Promise<{ node: { id: string } }>((resolve) => {
			broker.localBus.once("$node.disconnected", resolve);
		});
		peer.kill("SIGKILL");

		expect((await gone).node.id).toBe("node-b");
		await expect(broker.call("node-b.whoami")).rejects.toMatchObject({
			type: "SERVICE_NOT_AVAILABLE",
		});
	}, 60_000);

	it("finds a node again that was killed and came back on another port", async () => {
		const { broker, url } = await startNode("node-a");
		const startPeer = () => {
			const peer = spawn(process.execPath, [PEER, "node-b", url], { stdio: "inherit" });
			const exited = once(peer, "exit");
			const kill = () => {
				peer.kill("SIGKILL");
				return exited;
			};
			cleanups.push(kill);
			return { peer, kill };
		};
		const first = startPeer();
		await broker.waitForServices("node-b", 15_000, 20);
		const gone = new Promise((resolve) => broker.localBus.once("$node.disconnected", resolve));
		await first.kill();
		await gone;
		const seq = () => (broker.registry.nodes.get("node-b") as unknown as { seq: number }).seq;
		const before = seq();

		const second = startPeer();
		await broker.waitForServices("node-b", 15_000, 20);

		expect(await broker.call("node-b.whoami")).toBe(second.peer.pid);
		// What others still tell of the one that was killed is of 1, 2 or 3 more than `before`.
		expect(seq()).toBeGreaterThan(before + 100);
	}, 60_000);

	it("does not take a node for gone because its former port refuses, and sends anew", async () => {
		const a = await startNode("node-a");
		const b = await startNode("node-b", { urls: a.url });
		await a.broker.waitForServices("node-b", 15_000, 20);
		const { writer } = a.transporter as unknown as {
			writer: EventEmitter & { removeSocket(nodeID: string): void };
		};
		const server = createServer().listen(0, "127.0.0.1");
		await once(server, "listening");
		const former = (server.address() as AddressInfo).port;
		server.close();
		await once(server, "close");

		// The connection begins at the former port; when its refusal arrives the new one is known.
		const ports = [former];
		const node = a.broker.registry.nodes.get("node-b") as unknown as { available: boolean };
		Object.defineProperty(node, "port", { get: () => ports.shift() ?? b.address.port });
		writer.removeSocket("node-b");

		expect(await greet(a.broker, "node-b")).toBe("node-b greets node-a");
		expect(node.available).toBe(true);
	});

	it("does not mind a HELLO that can't be read", async () => {
		const { broker, transporter } = await startNode("node-a");
		const hello = () => transporter.processGossipHello(Buffer.from("{"), null as never);
		expect(hello).not.toThrow();
		expect(await greet(broker, "node-a")).toBe("node-a greets node-a");
	});
});
