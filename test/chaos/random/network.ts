import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

const HOST = "127.0.0.1";

interface Packet {
	readonly at: number;
	readonly deliver: () => void;
}

/** The way from one node to another: a port of its own that leads to wherever the other listens. */
class Link {
	readonly #server: Server;
	readonly #target: () => number | undefined;
	readonly #sockets = new Set<Socket>();
	/** First in, first out, whatever the delay was when a packet came: the order of a stream stays. */
	#underway: Packet[] = [];
	#timer: NodeJS.Timeout | undefined;
	#delay = 0;
	#held = 0;

	constructor(target: () => number | undefined) {
		this.#target = target;
		this.#server = createServer((socket) => this.#accept(socket));
	}

	/** @returns the port */
	async listen(): Promise<number> {
		this.#server.listen({ port: 0, host: HOST });
		await once(this.#server, "listening");
		return (this.#server.address() as AddressInfo).port;
	}

	close(): void {
		this.#server.close();
		this.cut();
	}

	get isOpen(): boolean {
		return this.#sockets.size > 0;
	}

	/** Closes every connection; what was on the way is lost. */
	cut(): void {
		this.#underway = [];
		for (const socket of this.#sockets) socket.destroy();
	}

	/** Nothing arrives any more, and nobody is told. */
	hold(): void {
		this.#held++;
	}

	release(dies: boolean): void {
		if (dies) this.cut();
		this.#held--;
		this.#pump();
	}

	/** @param delay milliseconds added to each packet */
	slow(delay: number): void {
		this.#delay += delay;
	}

	#accept(socket: Socket): void {
		const port = this.#target();
		if (port === undefined) {
			socket.destroy();
			return;
		}
		const far = connect({ port, host: HOST });
		this.#join(socket, far);
		this.#join(far, socket);
	}

	#join(from: Socket, to: Socket): void {
		this.#sockets.add(from);
		from.setNoDelay(true);
		from.on("data", (chunk) => this.#carry(() => to.write(chunk)));
		// The close that follows an error is what counts.
		from.on("error", () => undefined);
		from.on("close", () => {
			this.#sockets.delete(from);
			this.#carry(() => to.destroy());
		});
	}

	#carry(deliver: () => void): void {
		this.#underway.push({ at: Date.now() + this.#delay, deliver });
		this.#pump();
	}

	#pump(): void {
		clearTimeout(this.#timer);
		while (this.#held === 0) {
			const [first] = this.#underway;
			if (!first) return;
			const wait = first.at - Date.now();
			if (wait > 0) {
				this.#timer = setTimeout(() => this.#pump(), wait);
				return;
			}
			this.#underway.shift();
			first.deliver();
		}
	}
}

/**
 * The network between the processes, and from them to servers: each reaches each other one through
 * a link that can fail.
 */
export class Network<Name extends string> {
	readonly #links = new Map<string, Link>();
	readonly #ports = new Map<Name, number>();

	/**
	 * @param to whom each of the nodes reaches
	 * @returns for each node, the ports by which it reaches them
	 */
	async open(
		names: readonly Name[],
		to: readonly Name[] = names,
	): Promise<Map<Name, Record<string, number>>> {
		const all = new Map<Name, Record<string, number>>();
		for (const from of names) {
			const ports: Record<string, number> = {};
			for (const other of to) {
				if (from === other) continue;
				const link = new Link(() => this.#ports.get(other));
				this.#links.set(`${from} ${other}`, link);
				ports[other] = await link.listen();
			}
			all.set(from, ports);
		}
		return all;
	}

	/** A node or server listens on this port now; undefined: on none. */
	listens(name: Name, port: number | undefined): void {
		if (port === undefined) this.#ports.delete(name);
		else this.#ports.set(name, port);
	}

	/** Whether there is a connection between them. */
	isOpen(a: Name, b: Name): boolean {
		let open = false;
		this.#both(a, b, (link) => (open ||= link.isOpen));
		return open;
	}

	cut(a: Name, b: Name): void {
		this.#both(a, b, (link) => link.cut());
	}

	hold(a: Name, b: Name): void {
		this.#both(a, b, (link) => link.hold());
	}

	release(a: Name, b: Name, dies: boolean): void {
		this.#both(a, b, (link) => link.release(dies));
	}

	slow(a: Name, b: Name, delay: number): void {
		this.#both(a, b, (link) => link.slow(delay));
	}

	close(): void {
		for (const link of this.#links.values()) link.close();
	}

	#both(a: Name, b: Name, what: (link: Link) => void): void {
		for (const name of [`${a} ${b}`, `${b} ${a}`]) {
			const link = this.#links.get(name);
			if (link) what(link);
		}
	}
}
