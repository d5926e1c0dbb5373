import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { mainPort, type Place, type ServerKind } from "../../scripts/servers/kind.ts";
import { launch, takePorts } from "../../scripts/servers/launch.ts";
import { cacheFolder } from "../../scripts/servers/tools.ts";

/** A server of a test's own, which it may stop and start again. */
export class PrivateServer {
	readonly #kind: ServerKind;
	readonly #place: Place;
	#process: ChildProcess | undefined;

	private constructor(kind: ServerKind, place: Place) {
		this.#kind = kind;
		this.#place = place;
	}

	/** @param password what clients must prove to know; none leaves it open */
	static async start(kind: ServerKind, password?: string): Promise<PrivateServer> {
		const folder = mkdtempSync(join(tmpdir(), `lottor-${kind.name}-`));
		const server = new PrivateServer(kind, {
			folder,
			ports: await takePorts(kind),
			password,
		});
		await server.start();
		if (password !== undefined) await kind.protect?.(server.#place);
		return server;
	}

	get url(): string {
		return this.#kind.url(this.#place);
	}

	/** Where its data are. */
	get folder(): string {
		return this.#place.folder;
	}

	get port(): number {
		return mainPort(this.#kind, this.#place);
	}

	/** Another of its ports, by the name that its kind gives it. */
	portOf(name: string): number {
		const port = this.#place.ports[name];
		if (port === undefined) throw new Error(`${this.#kind.name} has no port "${name}"`);
		return port;
	}

	/** Starts it on its ports, with the data that it had. */
	async start(): Promise<void> {
		this.#process = await launch(this.#kind, this.#place, cacheFolder(), false);
	}

	/** Ends it without a chance to say goodbye. */
	async kill(): Promise<void> {
		const child = this.#process;
		this.#process = undefined;
		if (!child || child.exitCode !== null || child.signalCode !== null) return;
		const exited = once(child, "exit");
		child.kill("SIGKILL");
		await exited;
	}

	/** Ends it and removes its data. */
	async dispose(): Promise<void> {
		await this.kill();
		rmSync(this.#place.folder, { recursive: true, force: true });
	}
}
