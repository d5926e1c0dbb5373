import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";

import { ServiceBroker } from "moleculer";

import { EurekaDiscoverer, resolveDiscoverer } from "../../../adapters/discoverer/index.ts";

/** Seconds. Short, so that a suite of time-outs ends; the jitter of Moleculer's timers is ±0.5 s. */
export const INTERVAL = 1;
export const TIMEOUT = 4;
/** Where the registry itself tells who lives: it does not know that a node's machine is busy. */
export const REGISTRY_TIMEOUT = 6;

/** What one node is made of. */
export interface NodeSpec {
	readonly nodeID: string;
	readonly namespace: string;
	/** URL of the registry. */
	readonly registry: string;
	/** URL of the transporter. */
	readonly transporter: string;
	/** Names of its services; each has the actions `who` and `sees`. */
	readonly services?: readonly string[];
}

const PEER = new URL("./peer.ts", import.meta.url).pathname;

/** @returns the discoverer for a URL, its own periods fitted to short heartbeats */
function discovererOf(url: string) {
	if (!url.startsWith("eureka")) return resolveDiscoverer(url);
	return new EurekaDiscoverer({ url, renewInterval: "1s", fetchInterval: "1s" });
}

/** Makes a node; it is not started yet. */
export function makeNode(spec: NodeSpec, loud = false): ServiceBroker {
	const { nodeID, namespace, registry, transporter, services = [] } = spec;
	const broker = new ServiceBroker({
		nodeID,
		namespace,
		transporter,
		heartbeatInterval: INTERVAL,
		heartbeatTimeout: /^(etcd3|redis):/.test(registry) ? REGISTRY_TIMEOUT : TIMEOUT,
		requestTimeout: 10_000,
		registry: { discoverer: discovererOf(registry) },
		skipProcessEventRegistration: true,
		logger: loud ? { type: "Console", options: { level: "info", colors: false } } : false,
		// The types don't know transporters by URL.
	} as never);
	for (const name of services) addService(broker, name);
	return broker;
}

/** Adds a service that tells who answers and whom it sees. */
export function addService(broker: ServiceBroker, name: string): void {
	broker.createService({
		name,
		actions: { who: () => broker.nodeID, sees: () => seenBy(broker) },
	});
}

/** @returns the other nodes that a node takes for alive, sorted */
export function seenBy(broker: ServiceBroker): string[] {
	const nodes = broker.registry.getNodeList({ onlyAvailable: true }) as { id: string }[];
	return nodes
		.map(({ id }) => id)
		.filter((id) => id !== broker.nodeID)
		.sort();
}

/** A node in a process of its own. */
export interface Peer {
	readonly process: ChildProcess;
	/** All that it has written so far. */
	output(): string;
	/** Resolves when it has started. */
	readonly started: Promise<void>;
	/** Resolves with its exit code, null after a signal. */
	readonly exited: Promise<number | null>;
}

export function startPeer(spec: NodeSpec): Peer {
	const child = spawn(process.execPath, [PEER, JSON.stringify(spec)], {
		stdio: ["ignore", "pipe", "pipe"],
	});
	let output = "";
	const started = new Promise<void>((resolve) => {
		const take = (data: Buffer) => {
			output += data.toString();
			if (output.includes("PEER STARTED")) resolve();
		};
		child.stdout.on("data", take);
		child.stderr.on("data", take);
	});
	const exited = once(child, "exit").then(([code]) => code as number | null);
	return { process: child, output: () => output, started, exited };
}
