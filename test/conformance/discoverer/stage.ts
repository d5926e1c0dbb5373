import { setTimeout as sleep } from "node:timers/promises";

import type { ServiceBroker } from "moleculer";

import { FaultProxy } from "../../support/fault-proxy.ts";
import { PrivateServer } from "../../support/private-server.ts";
import { makeNode, type NodeSpec, type Peer, startPeer } from "./nodes.ts";
import type { Subject } from "./subjects.ts";

/** Addresses of the servers that the suite is given. */
export interface Servers {
	readonly registry: string;
	readonly nats: string;
	readonly redis: string;
}

/** How long one node or server may take to end. */
const END_MS = 5_000;

let namespaces = 0;

/** What one case needs for one discoverer; everything is ended after the case. */
export class Stage {
	readonly subject: Subject;
	readonly servers: Servers;
	readonly namespace = `case-${process.pid}-${++namespaces}`;
	/** Why nodes in this process would have ended it. */
	readonly fatals: string[] = [];
	readonly #cleanups: (() => Promise<unknown>)[] = [];

	constructor(subject: Subject, servers: Servers) {
		this.subject = subject;
		this.servers = servers;
	}

	/** A node in this process that is not started yet. */
	node(nodeID: string, spec: Partial<NodeSpec> = {}): ServiceBroker {
		const broker = makeNode(this.#spec(nodeID, spec));
		broker.fatal = (message) => {
			this.fatals.push(`${nodeID}: ${message}`);
			void broker.stop();
		};
		this.#cleanups.push(async () => {
			await broker.stop();
			// Moleculer's own leaves its client open where it was stopped while it used it.
			const { client } = broker.registry.discoverer as { client?: { close?(): void } };
			client?.close?.();
		});
		return broker;
	}

	/** A started node in this process. */
	async started(nodeID: string, spec: Partial<NodeSpec> = {}): Promise<ServiceBroker> {
		const broker = this.node(nodeID, spec);
		await broker.start();
		return broker;
	}

	/** A node in a process of its own. */
	peer(nodeID: string, spec: Partial<NodeSpec> = {}): Peer {
		const peer = startPeer(this.#spec(nodeID, spec));
		this.#cleanups.push(async () => {
			peer.process.kill("SIGKILL");
			await peer.exited;
		});
		return peer;
	}

	/** A registry of this case's own. */
	async ownRegistry(password?: string): Promise<PrivateServer> {
		const server = await PrivateServer.start(this.subject.kind, password);
		this.#cleanups.push(() => server.dispose());
		return server;
	}

	/** A way to the registry that can be cut, and the registry's URL over it. */
	async proxy(): Promise<{ proxy: FaultProxy; url: string }> {
		const port = Number(/:(\d+)/.exec(this.servers.registry)?.[1]);
		const proxy = await FaultProxy.start({ host: "127.0.0.1", port });
		this.#cleanups.push(() => proxy.close());
		return { proxy, url: this.servers.registry.replace(`:${port}`, `:${proxy.port}`) };
	}

	/** @returns the nodeIDs in the registry */
	members(url = this.servers.registry): Promise<string[]> {
		return this.subject.members(url, this.namespace);
	}

	async end(): Promise<void> {
		for (const cleanup of this.#cleanups.splice(0).reverse()) {
			// Moleculer's own discoverers wait for ever for a registry that is cut off.
			const late = sleep(END_MS, undefined, { ref: false });
			await Promise.race([cleanup().catch(() => undefined), late]);
		}
	}

	#spec(nodeID: string, spec: Partial<NodeSpec>): NodeSpec {
		return {
			nodeID,
			namespace: this.namespace,
			registry: this.servers.registry,
			transporter: this.servers.nats,
			...spec,
		};
	}
}
