import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { ServiceBroker } from "moleculer";

import type { Guarantee } from "../../protocol/index.ts";
import { LoopbackTcp } from "../../adapters/transporter/loopback-tcp.ts";
import { DATABASES, type Databases } from "./databases.ts";
import { NETWORK, type Network, overNetwork } from "./network.ts";
import { FAULT, type FaultPoint, type NodeName, NODES, READY, SERVICES } from "./words.ts";

const NODE_FILE = new URL("./node.ts", import.meta.url).pathname;
const START_MS = 60_000;
const POLL_MS = 25;

interface Running {
	readonly child: ChildProcess;
	/** Emits each line that the child prints. */
	readonly lines: EventEmitter<{ line: [string] }>;
	readonly exited: Promise<unknown>;
}

/** A service as Moleculer lists it. */
interface Known {
	readonly name: string;
	readonly metadata?: { readonly lottor?: { readonly guarantee?: Guarantee } };
}

/** The processes of the demo: each a Moleculer node of its own, this process the one that watches. */
export class Cluster {
	readonly folder: string;
	readonly #databases: Databases;
	readonly #network: Network;
	readonly #broker: ServiceBroker;
	readonly #transporter: LoopbackTcp;
	readonly #running = new Map<NodeName, Running>();

	/**
	 * @param folder where the logs go
	 * @param databases where each service keeps its data
	 * @param network what the processes find and reach each other by
	 */
	constructor(folder: string, databases: Databases, network: Network) {
		this.folder = folder;
		this.#databases = databases;
		this.#network = network;
		this.#transporter = new LoopbackTcp({ port: 0 });
		this.#broker = new ServiceBroker({
			nodeID: "demo",
			logger: { type: "File", options: { folder, filename: "demo.log", interval: 100 } },
			...overNetwork(network, this.#transporter),
			requestTimeout: 10_000,
		});
	}

	/** Starts this process's node, which the others look for. */
	async start(): Promise<void> {
		await this.#broker.start();
	}

	/** Calls an action anywhere in the cluster. */
	call<T>(action: string, params: object = {}, nodeID?: string): Promise<T> {
		return this.#broker.call<T, object>(action, params, nodeID === undefined ? {} : { nodeID });
	}

	/** What the participant store of a service promises, as the service itself tells. */
	async guaranteeOf(service: string): Promise<Guarantee> {
		let told: Guarantee | undefined;
		await until(`${service} to be known`, START_MS, async () => {
			const services = await this.call<Known[]>("$node.services");
			told = services.find(({ name }) => name === service)?.metadata?.lottor?.guarantee;
			return told !== undefined;
		});
		return told ?? "memory";
	}

	/** Starts a process, and waits until it answers. */
	async spawn(name: NodeName): Promise<void> {
		const port = this.#transporter.reader?.opts.port;
		const child = spawn(process.execPath, [NODE_FILE, name, this.folder, String(port)], {
			env: {
				...process.env,
				[NETWORK]: JSON.stringify(this.#network),
				[DATABASES]: JSON.stringify(this.#databases),
			},
			stdio: ["pipe", "pipe", "pipe"],
		});
		const lines = new EventEmitter<{ line: [string] }>();
		const exited = once(child, "exit");
		this.#running.set(name, { child, lines, exited });
		const log = createWriteStream(join(this.folder, `${name}.log`), { flags: "a" });
		child.stderr.pipe(log, { end: false });
		createInterface({ input: child.stdout }).on("line", (line) => {
			log.write(`${line}\n`);
			lines.emit("line", line);
		});
		await this.#line(name, READY);
		await until(`${name} to answer`, START_MS, async () => {
			const pid = await this.call<number>(`${name}-faults.pid`, {}, name).catch(() => 0);
			return pid === child.pid;
		});
		// Its other services may have become known later.
		await this.#broker.waitForServices([...SERVICES[name]], START_MS);
	}

	/** Starts those of the processes that do not run. */
	async spawnMissing(): Promise<void> {
		const missing = NODES.filter((name) => !this.#running.has(name));
		await Promise.all(missing.map((name) => this.spawn(name)));
	}

	/**
	 * Makes the process stop, or misbehave, the next time that it comes to this point.
	 * @returns `reached`, which resolves with the group that was under way there
	 */
	async arm(name: NodeName, point: FaultPoint): Promise<{ readonly reached: Promise<string> }> {
		const reached = this.#line(name, `${FAULT} ${point} `);
		reached.catch(() => undefined);
		await this.call(`${name}-faults.arm`, { point }, name);
		return { reached };
	}

	/** Kills the process as the machine would: SIGKILL, nothing can be tidied up. */
	async kill(name: NodeName): Promise<void> {
		const running = this.#running.get(name);
		if (!running) throw new Error(`${name} does not run`);
		this.#running.delete(name);
		running.child.kill("SIGKILL");
		await running.exited;
	}

	/** Kills all that run. */
	async killAll(): Promise<void> {
		for (const name of [...this.#running.keys()]) await this.kill(name);
	}

	/** Ends everything that was started here. */
	async stop(): Promise<void> {
		await this.killAll();
		await this.#broker.stop();
	}

	/** @returns what follows `start` in the next line that begins with it */
	#line(name: NodeName, start: string): Promise<string> {
		const running = this.#running.get(name);
		if (!running) throw new Error(`${name} does not run`);
		const found = new Promise<string>((resolve) => {
			running.lines.on("line", (line) => {
				if (line.startsWith(start)) resolve(line.slice(start.length));
			});
		});
		const gone = running.exited.then(() => {
			throw new Error(`${name} ended before it printed "${start}"; see ${name}.log`);
		});
		const late = sleep(START_MS, undefined, { ref: false }).then(() => {
			throw new Error(`${name} did not print "${start}" in ${START_MS / 1_000} s`);
		});
		return Promise.race([found, gone, late]);
	}
}

/** Looks again and again until the condition holds. */
export async function until(
	what: string,
	limit: number,
	holds: () => boolean | Promise<boolean>,
): Promise<void> {
	const end = Date.now() + limit;
	while (!(await holds())) {
		if (Date.now() > end) throw new Error(`Waited ${limit / 1_000} s for ${what}`);
		await sleep(POLL_MS);
	}
}
