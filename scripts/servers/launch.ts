import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";

import type { Place, ServerKind } from "./kind.ts";
import { freePort, waitFor } from "./tools.ts";

const START_MS = 120_000;

/** Takes the ports that the kind needs, those of an earlier start where they are still free. */
export async function takePorts(
	kind: ServerKind,
	earlier: Readonly<Record<string, number>> = {},
): Promise<Record<string, number>> {
	const ports: Record<string, number> = {};
	for (const name of kind.ports) {
		const wanted = earlier[name];
		ports[name] = await (wanted === undefined
			? freePort()
			: freePort(wanted).catch(() => freePort()));
	}
	return ports;
}

/**
 * Starts a server and waits until it answers. It writes to `server.log` in its folder.
 *
 * @param background whether it outlives this process
 * @throws with the end of its log when it ended or is not ready in time
 */
export async function launch(
	kind: ServerKind,
	place: Place,
	cache: string,
	background: boolean,
): Promise<ChildProcess & { readonly pid: number }> {
	mkdirSync(place.folder, { recursive: true });
	const { file, args, env } = await kind.command(place, cache);
	const log = join(place.folder, "server.log");
	const out = openSync(log, "a");
	const child = spawn(file, args, {
		cwd: place.folder,
		env: { ...process.env, LC_ALL: "C.UTF-8", ...env },
		stdio: ["ignore", out, out],
		detached: background,
	});
	closeSync(out);

	let ended = "";
	child.once("error", (error) => (ended = error.message));
	child.once("exit", (code, signal) => (ended ||= `it ended with ${String(code ?? signal)}`));
	const up = await waitFor(async () => ended !== "" || kind.ready(place), START_MS);
	if (!up || ended !== "" || child.pid === undefined) {
		child.kill("SIGKILL");
		const tail = readFileSync(log, "utf8").split("\n").slice(-15).join("\n");
		throw new Error(`${kind.name} did not start: ${ended || "not ready in time"}\n${tail}`);
	}
	if (background) child.unref();
	return child as ChildProcess & { readonly pid: number };
}
