import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import type { ServiceSchema } from "moleculer";

import type { ChannelAdapter, ChannelOptions } from "../../../adapters/channels/index.ts";
import { FaultProxy } from "../../support/fault-proxy.ts";
import { PrivateServer } from "../../support/private-server.ts";
import { type ChannelNode, hardened, makeNode } from "./nodes.ts";
import type { Subject } from "./subjects.ts";

/** How long one node or server may take to end. */
const END_MS = 5_000;
const PEER = fileURLToPath(new URL("./peer.ts", import.meta.url));

let namespaces = 0;

/** What one case needs for one adapter; everything is ended after the case. */
export class Stage {
	readonly subject: Subject;
	readonly url: string;
	readonly namespace = `ch${process.pid}-${++namespaces}-${Date.now()}`;
	readonly #cleanups: (() => Promise<unknown>)[] = [];

	constructor(subject: Subject, url: string) {
		this.subject = subject;
		this.url = url;
	}

	/** The full name of a channel. */
	named(channel: string): string {
		return `${this.namespace}.${channel}`;
	}

	/** A node that is not started yet. */
	node(
		nodeID: string,
		services: readonly ServiceSchema[] = [],
		options: ChannelOptions = {},
		url = this.url,
	): ChannelNode {
		return this.nodeOf(nodeID, hardened(url, options), services);
	}

	nodeOf(
		nodeID: string,
		adapter: ChannelAdapter,
		services: readonly ServiceSchema[] = [],
	): ChannelNode {
		const node = makeNode({ nodeID, namespace: this.namespace }, adapter, services);
		this.#cleanups.push(() => node.broker.stop());
		return node;
	}

	async started(...args: Parameters<Stage["node"]>): Promise<ChannelNode> {
		const node = this.node(...args);
		await node.broker.start();
		return node;
	}

	/** A consumer of the channel "work", group "svc", in a process of its own. */
	async peer(nodeID: string, options: ChannelOptions): Promise<Peer> {
		const spec = { url: this.url, nodeID, namespace: this.namespace, options };
		const child = spawn(process.execPath, ["--no-warnings", PEER, JSON.stringify(spec)], {
			stdio: ["ignore", "pipe", "inherit"],
		});
		const peer = new Peer(child);
		this.#cleanups.push(() => peer.kill());
		return peer;
	}

	/** A broker of this case's own. */
	async ownServer(): Promise<PrivateServer> {
		const server = await PrivateServer.start(this.subject.kind);
		this.#cleanups.push(() => server.dispose());
		return server;
	}

	/** A way to the broker that can be cut, and what leads over it. */
	async proxy(): Promise<{ proxy: FaultProxy; url: string; options: ChannelOptions }> {
		const port = Number(/:(\d+)$/.exec(this.url)?.[1]);
		const proxy = await FaultProxy.start({ host: "127.0.0.1", port });
		this.#cleanups.push(() => proxy.close());
		return {
			proxy,
			url: this.url.replace(`:${port}`, `:${proxy.port}`),
			options: this.subject.over?.(proxy.port) ?? {},
		};
	}

	async end(): Promise<void> {
		for (const cleanup of this.#cleanups.splice(0).reverse()) {
			// The stock RabbitMQ adapter waits for ever for a channel that was closed.
			const late = sleep(END_MS, undefined, { ref: false });
			await Promise.race([cleanup().catch(() => undefined), late]);
		}
	}
}

/** A process that consumes, and what it has handled. */
export class Peer {
	readonly handled: string[] = [];
	readonly #child: ChildProcess;

	constructor(child: ChildProcess) {
		this.#child = child;
		if (child.stdout) {
			createInterface({ input: child.stdout }).on("line", (line) => this.handled.push(line));
		}
	}

	/** Ends it without a chance to say goodbye. */
	async kill(): Promise<void> {
		if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
		const exited = once(this.#child, "exit");
		this.#child.kill("SIGKILL");
		await exited;
	}
}
