import { parseArgs } from "node:util";

import { messageOf } from "../protocol/index.ts";
import type { ServerKind } from "./servers/kind.ts";
import { KINDS } from "./servers/kinds.ts";
import { Running } from "./servers/running.ts";
import { cacheFolder } from "./servers/tools.ts";

const HELP = `npm run servers -- <up|down|status|env> [names…]

Real servers for tests and benchmarks, on 127.0.0.1 and private ports, in the background.

  up      installs what is missing, starts what does not run and waits until it answers
  down    ends what runs, and removes its data
  status  tells what runs
  env     prints NAME=value for each server that runs

names: ${KINDS.map(({ name }) => name).join(" ")}; all of them where none is given`;

const USAGE_ERROR = 2;

const cache = cacheFolder();
const running = new Running(cache);

const COMMANDS: Record<string, (kind: ServerKind) => Promise<void>> = {
	async up(kind) {
		const start = Date.now();
		if (!kind.installed(cache)) await kind.install(cache);
		await running.up(kind);
		const seconds = ((Date.now() - start) / 1_000).toFixed(1);
		console.log(`${kind.name} is up: ${String(running.url(kind))} (${seconds} s)`);
	},
	async down(kind) {
		await running.down(kind);
		console.log(`${kind.name} is down`);
	},
	async status(kind) {
		const note = running.alive(kind);
		const state = note ? `up, pid ${note.pid}, ${String(running.url(kind))}` : "down";
		console.log(`${kind.name.padEnd(10)} ${state}`);
	},
	async env(kind) {
		const url = running.url(kind);
		if (url) console.log(`${kind.variable}=${url}`);
	},
};

async function main(): Promise<number> {
	const { positionals } = parseArgs({ allowPositionals: true });
	const [command = "", ...names] = positionals;
	const unknown = names.find((name) => !KINDS.some((kind) => kind.name === name));
	const act = COMMANDS[command];
	if (!act || unknown !== undefined) {
		console.error(unknown === undefined ? HELP : `There is no server "${unknown}"\n\n${HELP}`);
		return USAGE_ERROR;
	}
	for (const kind of KINDS.filter(({ name }) => names.length === 0 || names.includes(name))) {
		await act(kind);
	}
	return 0;
}

process.exitCode = await main().catch((error: unknown) => {
	console.error(messageOf(error));
	return 1;
});
