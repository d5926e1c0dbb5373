import { LoopbackTcp } from "../../adapters/transporter/loopback-tcp.ts";
import { FaultProxy } from "./fault-proxy.ts";

/** The ways between nodes that call each other by TCP, all of which are cut, slowed or closed at once. */
export class TcpWays {
	readonly #proxies: FaultProxy[] = [];
	#open = true;

	/** A transporter whose node is reached by a way of its own. */
	transporter(urls: string[] = []): LoopbackTcp {
		return new BehindProxy((port) => this.#to(port), urls);
	}

	/** Takes connections again. */
	async open(): Promise<void> {
		this.#open = true;
		await Promise.all(this.#proxies.map((proxy) => proxy.open()));
	}

	/** Refuses connections, and resets those that are open. */
	async close(): Promise<void> {
		this.#open = false;
		await Promise.all(this.#proxies.map((proxy) => proxy.close()));
	}

	/** Loses everything from now on, and tells nobody. */
	blackhole(): void {
		for (const proxy of this.#proxies) proxy.blackhole();
	}

	/** Ends the blackhole. Connections that lost something are reset. */
	mend(): void {
		for (const proxy of this.#proxies) proxy.mend();
	}

	async #to(port: number): Promise<number> {
		const proxy = await FaultProxy.start({ host: "127.0.0.1", port });
		this.#proxies.push(proxy);
		if (!this.#open) await proxy.close();
		return proxy.port;
	}
}

class BehindProxy extends LoopbackTcp {
	readonly #proxied: (port: number) => Promise<number>;

	constructor(proxied: (port: number) => Promise<number>, urls: string[]) {
		super({ port: 0, urls });
		this.#proxied = proxied;
	}

	/** The port that the node announces is the proxy's. */
	override async startTcpServer(): Promise<void> {
		await super.startTcpServer();
		const { reader } = this;
		if (reader) reader.opts.port = await this.#proxied(reader.opts.port ?? 0);
	}
}
