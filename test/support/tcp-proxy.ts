import { connect, createServer, type Server, type Socket } from "node:net";

import { freePort } from "../../scripts/servers/tools.ts";

/**
 * A way to a server that can be cut: what is sent then gets lost without a sound, as on a network
 * that is down. Connections that were open during a cut are reset when it ends.
 */
export class TcpProxy {
	readonly #target: number;
	readonly #sockets = new Set<Socket>();
	#server: Server | undefined;
	#port = 0;
	#cut = false;

	constructor(target: number) {
		this.#target = target;
	}

	get port(): number {
		return this.#port;
	}

	/** Takes connections, on the same port as before. */
	async open(): Promise<void> {
		const server = createServer((near) => this.#join(near));
		this.#server = server;
		this.#port ||= await freePort();
		await new Promise<void>((resolve, reject) => {
			server.once("error", reject);
			server.listen(this.#port, "127.0.0.1", () => resolve());
		});
	}

	/** Refuses connections, and resets those that are open. */
	async close(): Promise<void> {
		const server = this.#server;
		this.#server = undefined;
		this.#reset();
		await new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
	}

	/** Loses everything from now on. */
	cut(): void {
		this.#cut = true;
	}

	/** Ends a cut. */
	mend(): void {
		this.#cut = false;
		this.#reset();
	}

	#reset(): void {
		for (const socket of this.#sockets) socket.resetAndDestroy();
		this.#sockets.clear();
	}

	#join(near: Socket): void {
		this.#sockets.add(near);
		near.on("error", () => near.destroy());
		if (this.#cut) {
			near.resume();
			return;
		}
		const far = connect({ port: this.#target, host: "127.0.0.1", noDelay: true });
		this.#sockets.add(far);
		for (const [from, to] of [
			[near, far],
			[far, near],
		] as const) {
			from.setNoDelay(true);
			from.on("data", (data) => {
				if (!this.#cut && !to.destroyed) to.write(data);
			});
			from.on("error", () => to.destroy());
			from.on("close", () => {
				this.#sockets.delete(from);
				if (!this.#cut) to.destroy();
			});
		}
	}
}
