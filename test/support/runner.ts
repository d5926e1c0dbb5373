import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** The scripts of package.json. */
const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
	scripts: Readonly<Record<string, string>>;
};

/** A process that runs one of package.json's scripts, as npm would. */
export class Runner {
	readonly #child: ChildProcess;
	readonly #ended: Promise<[number | null, NodeJS.Signals | null]>;
	readonly #waiting = new Set<() => void>();
	/** Everything it printed. */
	output = "";
	/** What of it went to stdout. */
	stdout = "";

	/**
	 * @param script its name in package.json
	 * @param env added to the environment
	 * @param args appended to the script's command
	 */
	constructor(script: string, env: Readonly<Record<string, string>> = {}, args = "") {
		const command = scripts[script];
		if (command === undefined) throw new Error(`package.json has no script ${script}`);
		const path = [join(ROOT, "node_modules/.bin"), dirname(process.execPath), process.env.PATH];
		// The scripts end in `exec`: the pid is the program's own, not a shell's.
		this.#child = spawn("sh", ["-c", `${command} ${args}`], {
			cwd: ROOT,
			env: { ...process.env, NODE_OPTIONS: "", ...env, PATH: path.join(delimiter) },
			stdio: ["ignore", "pipe", "pipe"],
		});
		this.#ended = once(this.#child, "close") as Promise<[number | null, NodeJS.Signals | null]>;
		for (const stream of [this.#child.stdout, this.#child.stderr]) {
			if (!stream) continue;
			createInterface({ input: stream }).on("line", (line) => {
				this.output += `${line}\n`;
				if (stream === this.#child.stdout) this.stdout += `${line}\n`;
				for (const look of this.#waiting) look();
			});
		}
	}

	/** Resolves with the match once the output has it; rejects when the process ends before. */
	printed(pattern: RegExp): Promise<RegExpExecArray> {
		return new Promise((resolve, reject) => {
			const look = () => {
				const match = pattern.exec(this.output);
				if (!match) return;
				this.#waiting.delete(look);
				resolve(match);
			};
			this.#waiting.add(look);
			look();
			void this.#ended.then(([code]) => {
				look();
				reject(new Error(`It ended with ${code} before ${pattern}:\n${this.output}`));
			});
		});
	}

	/** The port on which one of its services listens. */
	async port(service: string): Promise<number> {
		const pattern = `${service.toUpperCase()}: API Gateway listening on http://127\\.0\\.0\\.1:(\\d+)`;
		return Number((await this.printed(new RegExp(pattern)))[1]);
	}

	/** Resolves once its broker has started. */
	async started(): Promise<void> {
		await this.printed(/ServiceBroker with \d+ service\(s\) started successfully/);
	}

	/** Sends a signal. @returns how it ended */
	async end(signal: NodeJS.Signals): Promise<[number | null, NodeJS.Signals | null]> {
		this.#child.kill(signal);
		return this.#ended;
	}

	/** @returns how it ended, by itself */
	ended(): Promise<[number | null, NodeJS.Signals | null]> {
		return this.#ended;
	}
}
