import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, type WriteStream } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import type { Guarantee } from "../../../protocol/index.ts";
import type { Network } from "./network.ts";
import {
	type Command,
	FIGURES,
	type Figures,
	type NodeName,
	type NodeOrders,
	NODES,
	type Peer,
	PORT,
	READY,
	type ServerName,
	type ServerPorts,
	type Times,
} from "./words.ts";

const NODE_FILE = new URL("./node.ts", import.meta.url).pathname;
/** Not a bar: how long a start may take on a machine that has much else to do. */
const START_MS = 180_000;
const STOP_MS = 30_000;
/** A process that refuses to start, since its store is locked, say, is started again after this. */
const AGAIN_MS = 500;

interface Running {
	readonly child: ChildProcess;
	readonly exited: Promise<unknown>;
	ready: boolean;
	paused: boolean;
	/** Whether the process is to end now. */
	ending: boolean;
	/** Who waits for its figures. */
	readonly curious: ((figures: Figures) => void)[];
}

/** What the processes are started with. */
export interface Setting {
	/** Every process that there may be. @default those of a chaos run */
	readonly nodes?: readonly NodeName[];
	/** @default false: handlers fail and dawdle at random, and Lottor's times are short */
	readonly calm?: boolean;
	/** @default nothing */
	readonly coordinator?: Times;
	/** Seconds until a silent node is taken for gone. @default Moleculer's 30 */
	readonly heartbeatTimeout?: number;
	/** How long a producer tries to prepare. @default Lottor's 5 s */
	readonly prepareTimeout?: string;
	readonly folder: string;
	readonly guarantee: Guarantee;
	/** `direct`, or the broker's URL. */
	readonly delivery: string;
	/** `sqlite`, or the URL of the coordinators' store. */
	readonly store: string;
	readonly seed: string;
	readonly network: Network<Peer>;
	/** Servers that are reached over the network, too. @default none: each at its own address */
	readonly servers?: readonly ServerName[];
	readonly tell: (text: string) => void;
}

/** The processes of a run, kept running like a supervisor would. */
export class Processes {
	/** What no process should ever do. */
	readonly misbehaviour: string[] = [];
	/** Starts of processes that were killed, or whose disk failed, in the middle of what they did. */
	readonly harmed = new Set<string>();
	/** How often one was killed. */
	crashes = 0;
	readonly #setting: Setting;
	readonly #running = new Map<NodeName, Running>();
	readonly #starts = new Map<NodeName, number>();
	/** Nodes whose disk does not work. */
	readonly #hampered = new Set<NodeName>();
	#ports = new Map<Peer, Readonly<Record<string, number>>>();
	#serverPorts = new Map<Peer, ServerPorts>();
	#load = false;
	#over = false;

	constructor(setting: Setting) {
		this.#setting = setting;
	}

	get nodes(): readonly NodeName[] {
		return this.#setting.nodes ?? NODES;
	}

	/** Starts these, and waits until they are ready. */
	async start(nodes = this.nodes): Promise<void> {
		if (this.#ports.size === 0) {
			const { network, servers = [] } = this.#setting;
			this.#ports = await network.open(this.nodes);
			this.#serverPorts = await network.open(this.nodes, servers);
		}
		for (const name of nodes) this.#spawn(name);
		await Promise.all(nodes.map((name) => this.ready(name)));
	}

	/** Whether the process runs, ready and not paused, on a disk that works. */
	isUp(name: NodeName): boolean {
		const running = this.#running.get(name);
		return running?.ready === true && !running.paused && !this.#hampered.has(name);
	}

	isPaused(name: NodeName): boolean {
		return this.#running.get(name)?.paused === true;
	}

	/** Switches the load of all producers on or off. */
	load(on: boolean): void {
		this.#load = on;
		for (const name of this.#running.keys()) this.command(name, { do: "load", on });
	}

	command(name: NodeName, command: Command): void {
		if (command.do === "full" || command.do === "ioError") this.#harm(name);
		if (command.do === "full" && command.on) this.#hampered.add(name);
		else if (command.do === "full") this.#hampered.delete(name);
		this.#running.get(name)?.child.stdin?.write(`${JSON.stringify(command)}\n`);
	}

	/** How the process is doing; it must run. @param collect whether garbage is to be gone first */
	figures(name: NodeName, collect = false): Promise<Figures> {
		return new Promise((resolve, reject) => {
			const running = this.#running.get(name);
			if (!running) return reject(new Error(`${name} does not run`));
			running.curious.push(resolve);
			this.command(name, { do: "tell", collect });
		});
	}

	/** SIGKILL; starts it again after `ms`. `killed` is called in between. */
	async kill(name: NodeName, ms: number, killed: () => Promise<void>): Promise<void> {
		if (!(await this.crash(name))) return;
		await killed();
		await sleep(ms);
		await this.start([name]);
	}

	/** SIGKILL. @returns whether it ran */
	async crash(name: NodeName): Promise<boolean> {
		const running = this.#running.get(name);
		if (!running) return false;
		this.crashes++;
		this.#harm(name);
		this.#forget(name, running);
		running.child.kill("SIGKILL");
		await running.exited;
		return true;
	}

	/** SIGTERM; starts it again `ms` after its end. */
	async restart(name: NodeName, ms: number): Promise<void> {
		await this.end(name);
		await sleep(ms);
		await this.start([name]);
	}

	/** SIGSTOP for `ms`. */
	async pause(name: NodeName, ms: number): Promise<void> {
		const running = this.#running.get(name);
		if (!running) return;
		running.paused = true;
		running.child.kill("SIGSTOP");
		await sleep(ms);
		running.child.kill("SIGCONT");
		running.paused = false;
	}

	/** Waits until the process is ready. */
	async ready(name: NodeName): Promise<void> {
		const end = Date.now() + START_MS;
		while (!this.#over && this.#running.get(name)?.ready !== true) {
			if (Date.now() > end) throw new Error(`${name} is not ready; see ${name}.log`);
			await sleep(50);
		}
	}

	/** Ends all in good order; those that don't end are noted, and killed. */
	async stop(): Promise<void> {
		this.#over = true;
		await Promise.all(this.nodes.map((name) => this.end(name)));
	}

	/** Kills all that still run. */
	async clear(): Promise<void> {
		this.#over = true;
		for (const [name, running] of this.#running) {
			this.#forget(name, running);
			running.child.kill("SIGKILL");
			await running.exited;
		}
	}

	#spawn(name: NodeName): void {
		if (this.#over) return;
		const { folder, guarantee, delivery, store, seed } = this.#setting;
		const { calm = false, coordinator = {}, heartbeatTimeout, prepareTimeout } = this.#setting;
		const start = (this.#starts.get(name) ?? 0) + 1;
		this.#starts.set(name, start);
		const orders: NodeOrders = {
			name,
			start: `${name} ${start}`,
			folder,
			guarantee,
			delivery,
			store,
			seed,
			calm,
			coordinator,
			...(heartbeatTimeout !== undefined && { heartbeatTimeout }),
			...(prepareTimeout !== undefined && { prepareTimeout }),
			ports: this.#ports.get(name) ?? {},
			servers: this.#serverPorts.get(name) ?? {},
		};
		const child = spawn(process.execPath, ["--expose-gc", NODE_FILE, JSON.stringify(orders)], {
			stdio: ["pipe", "pipe", "pipe"],
		});
		const exited = once(child, "exit");
		const running = { child, exited, ready: false, paused: false, ending: false, curious: [] };
		this.#running.set(name, running);
		const log = createWriteStream(join(folder, `${name}.log`), { flags: "a" });
		child.stderr.pipe(log, { end: false });
		// Writing to a process that was just killed is no error of the run.
		child.stdin.on("error", () => undefined);
		createInterface({ input: child.stdout }).on("line", (line) => {
			this.#heard(name, running, line, log);
		});
		void exited.then(() => this.#ended(name, running));
	}

	#heard(name: NodeName, running: Running, line: string, log: WriteStream): void {
		if (line.startsWith(FIGURES)) {
			running.curious.shift()?.(JSON.parse(line.slice(FIGURES.length)) as Figures);
			return;
		}
		log.write(`${line}\n`);
		if (line.startsWith(PORT)) {
			this.#setting.network.listens(name, Number(line.slice(PORT.length)));
		} else if (line === READY) {
			running.ready = true;
			if (this.#load) this.command(name, { do: "load", on: true });
		}
	}

	#ended(name: NodeName, running: Running): void {
		if (running.ending) return;
		this.#forget(name, running);
		const { exitCode, signalCode } = running.child;
		const how = `ended by itself (${exitCode ?? signalCode})`;
		if (running.ready) this.misbehaviour.push(`${name} ${how}; see ${name}.log`);
		else this.#setting.tell(`${name} ${how} before it was ready; it is started again`);
		setTimeout(() => this.#spawn(name), AGAIN_MS);
	}

	/** SIGTERM; waits for its end. */
	async end(name: NodeName): Promise<void> {
		const running = this.#running.get(name);
		if (!running) return;
		this.#forget(name, running);
		running.child.kill("SIGTERM");
		const ended = await Promise.race([
			running.exited,
			sleep(STOP_MS, undefined, { ref: false }),
		]);
		if (ended && running.child.exitCode === 0) return;
		const how = ended ? `with ${running.child.exitCode}` : `not in ${STOP_MS / 1_000} s`;
		this.misbehaviour.push(`${name} was told to end and did so ${how}; see ${name}.log`);
		running.child.kill("SIGKILL");
		await running.exited;
	}

	#harm(name: NodeName): void {
		this.harmed.add(`${name} ${this.#starts.get(name)}`);
	}

	#forget(name: NodeName, running: Running): void {
		running.ending = true;
		this.#hampered.delete(name);
		this.#running.delete(name);
		this.#setting.network.listens(name, undefined);
	}
}
