import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Network } from "../../random/network.ts";
import { PORT } from "../../random/words.ts";
import type { Point } from "../points.ts";
import {
	ARMED,
	AT,
	type Command,
	COMMITTED,
	type NodeOrders,
	READY,
	type Role,
	ROLES,
} from "./words.ts";

const NODE_FILE = new URL("./node.ts", import.meta.url).pathname;
const POLL_MS = 20;

interface Running {
	readonly child: ChildProcess;
	readonly exited: Promise<unknown>;
	ready: boolean;
	armed: boolean;
	at: string | undefined;
}

/** A coordinator, a producer and a consumer, each a process that can be killed where it stands. */
export class Trio {
	/** Groups of which a caller was told that they are committed. */
	readonly committed: string[] = [];
	/** What no process should ever do. */
	readonly misbehaviour: string[] = [];
	kills = 0;
	readonly #folder: string;
	readonly #broker: boolean;
	readonly #network = new Network<Role>();
	readonly #running = new Map<Role, Running>();
	#ports = new Map<Role, Record<string, number>>();

	/** @param broker whether messages go over a broker */
	constructor(folder: string, broker: boolean) {
		this.#folder = folder;
		this.#broker = broker;
	}

	async start(limit: number): Promise<void> {
		this.#ports = await this.#network.open(ROLES);
		for (const role of ROLES) this.#spawn(role, []);
		for (const role of ROLES)
			await this.#until(limit, () => this.#of(role).ready, `${role} is ready`);
	}

	/** The process stops at the point when it comes by. */
	async arm(role: Role, points: readonly Point[], limit: number): Promise<void> {
		this.#of(role).armed = false;
		this.command(role, { do: "arm", points });
		await this.#until(limit, () => this.#of(role).armed, `${role} is armed`);
	}

	command(role: Role, command: Command): void {
		this.#of(role).child.stdin?.write(`${JSON.stringify(command)}\n`);
	}

	isAt(role: Role, point: Point): boolean {
		return this.#of(role).at === point;
	}

	/** SIGKILL, and a new start, which may be armed from its first moment. */
	async kill(role: Role, armed: readonly Point[]): Promise<void> {
		const running = this.#of(role);
		this.#running.delete(role);
		running.child.kill("SIGKILL");
		await running.exited;
		this.kills++;
		this.#network.listens(role, undefined);
		this.#spawn(role, armed);
	}

	async ready(role: Role, limit: number): Promise<void> {
		await this.#until(limit, () => this.#of(role).ready, `${role} is ready`);
	}

	/** Kills all that still run. */
	async clear(): Promise<void> {
		for (const [role, { child, exited }] of this.#running) {
			this.#running.delete(role);
			child.kill("SIGKILL");
			await exited;
		}
		this.#network.close();
	}

	#of(role: Role): Running {
		const running = this.#running.get(role);
		if (!running) throw new Error(`${role} does not run`);
		return running;
	}

	#spawn(role: Role, armed: readonly Point[]): void {
		const orders: NodeOrders = {
			role,
			folder: this.#folder,
			ports: this.#ports.get(role) ?? {},
			armed,
			broker: this.#broker,
		};
		const child = spawn(process.execPath, [NODE_FILE, JSON.stringify(orders)], {
			stdio: ["pipe", "pipe", "pipe"],
		});
		const running: Running = {
			child,
			exited: once(child, "exit"),
			ready: false,
			armed: false,
			at: undefined,
		};
		this.#running.set(role, running);
		const log = createWriteStream(join(this.#folder, `${role}.log`), { flags: "a" });
		child.stderr.pipe(log, { end: false });
		// Writing to a process that was just killed is no error of the run.
		child.stdin.on("error", () => undefined);
		createInterface({ input: child.stdout }).on("line", (line) => {
			log.write(`${line}\n`);
			if (this.#running.get(role) === running) this.#heard(role, running, line);
		});
		void running.exited.then(() => {
			if (this.#running.get(role) !== running) return;
			const { exitCode, signalCode } = child;
			this.misbehaviour.push(`${role} ended by itself (${exitCode ?? signalCode})`);
		});
	}

	#heard(role: Role, running: Running, line: string): void {
		if (line.startsWith(PORT)) this.#network.listens(role, Number(line.slice(PORT.length)));
		else if (line.startsWith(AT)) running.at = line.slice(AT.length);
		else if (line.startsWith(COMMITTED)) this.committed.push(line.slice(COMMITTED.length));
		else if (line === READY) running.ready = true;
		else if (line === ARMED) running.armed = true;
	}

	async #until(limit: number, test: () => boolean, what: string): Promise<void> {
		const end = Date.now() + limit;
		while (!test()) {
			if (Date.now() > end) throw new Error(`it did not come to it that ${what}`);
			await sleep(POLL_MS);
		}
	}
}
