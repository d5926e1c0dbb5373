import { connect, createServer, type Server, type Socket } from "node:net";

import { freePort } from "../../scripts/servers/tools.ts";

/** A statement at which a connection is cut: before the server has it, or before its answer is back. */
interface Cut {
	readonly at: Buffer;
	readonly when: "before" | "after";
	readonly done: () => void;
}

/** A way to a server on this machine that can be cut, slowed to a halt, or closed. */
export class FaultProxy {
	readonly #target: { readonly host: string; readonly port: number };
	readonly #sockets = new Set<Socket>();
	readonly #swallowed = new Set<Socket>();
	#server: Server | undefined;
	#port = 0;
	#blackhole = false;
	#cut: Cut | undefined;

	private constructor(target: { readonly host: string; readonly port: number }) {
		this.#target = target;
	}

	static async start(target: { readonly host: string; readonly port: number }) {
		const proxy = new FaultProxy(target);
		await proxy.open();
		return proxy;
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
			server.listen(this.#port, "127.0.0.1", resolve);
		});
	}

	/** Refuses connections, and resets those that are open. */
	async close(): Promise<void> {
		const server = this.#server;
		this.#server = undefined;
		for (const socket of this.#sockets) socket.resetAndDestroy();
		await new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
	}

	/**
	 * Resets the connection that next sends these bytes: with `before` the server never gets them,
	 * with `after` it does, and its answer is lost.
	 * @returns when that has happened
	 */
	cutAt(bytes: string, when: "before" | "after"): Promise<void> {
		return new Promise((done) => (this.#cut = { at: Buffer.from(bytes), when, done }));
	}

	/** Loses everything from now on, both ways, and tells nobody. */
	blackhole(): void {
		this.#blackhole = true;
	}

	/** Ends the blackhole. Connections that lost something are reset. */
	mend(): void {
		this.#blackhole = false;
		for (const socket of this.#swallowed) socket.resetAndDestroy();
		this.#swallowed.clear();
	}

	/** Connections that are open now lose everything for good, and nobody is told; new ones work. */
	strand(): void {
		for (const socket of this.#sockets) this.#swallowed.add(socket);
	}

	#join(near: Socket): void {
		const far = connect({ ...this.#target, noDelay: true });
		near.setNoDelay(true);
		let deaf = false;
		const reset = () => {
			near.resetAndDestroy();
			far.resetAndDestroy();
		};
		const lost = () => {
			if (this.#blackhole) this.#swallowed.add(near).add(far);
			return this.#swallowed.has(near);
		};
		near.on("data", (data) => {
			if (lost()) return;
			const cut = this.#cut;
			if (cut && data.includes(cut.at)) {
				this.#cut = undefined;
				if (cut.when === "before") {
					reset();
					cut.done();
					return;
				}
				deaf = true;
				// The server's answer tells that it is done.
				far.once("data", () => {
					reset();
					cut.done();
				});
			}
			far.write(data);
		});
		far.on("data", (data) => {
			if (!deaf && !lost()) near.write(data);
		});
		for (const [one, other] of [
			[near, far],
			[far, near],
		] as const) {
			this.#sockets.add(one);
			one.on("error", () => one.destroy());
			one.on("close", () => {
				this.#sockets.delete(one);
				if (!lost()) other.destroy();
			});
		}
	}
}
