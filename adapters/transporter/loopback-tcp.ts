import type { EventEmitter } from "node:events";
import { createServer } from "node:net";
import type { Server, Socket } from "node:net";

import { Transporters } from "moleculer";

/** The only address that is listened on and connected to. */
const HOST = "127.0.0.1";

/** 16 MiB. Moleculer's own limit of 1 MiB would cut the connection on a larger payload. */
const MAX_PACKET_SIZE = 16 * 1024 * 1024;

/** Options of {@link LoopbackTcp}: those of Moleculer's TCP transporter that make sense on one machine. */
export interface LoopbackTcpOptions {
	/**
	 * Port to listen on; 0 takes a free one.
	 *
	 * @default the port that `urls` gives this node, otherwise a free one
	 */
	port?: number;

	/**
	 * Nodes to look for, each `tcp://127.0.0.1:<port>/<nodeID>`, as an array or comma-separated. One that
	 * is up is enough to learn of all others by gossip. The node's own entry names its port.
	 *
	 * @default none: the node waits to be found
	 */
	urls?: string | string[];

	/**
	 * Seconds between two gossip rounds, at least 1: how soon nodes find each other.
	 *
	 * @default 1
	 */
	gossipPeriod?: number;

	/**
	 * Outgoing connections that are kept open.
	 *
	 * @default 32
	 */
	maxConnections?: number;

	/**
	 * Largest packet in bytes that is accepted; a larger one closes the connection it came on.
	 *
	 * @default 16777216 (16 MiB)
	 */
	maxPacketSize?: number;

	/**
	 * Log every gossip packet.
	 *
	 * @default false
	 */
	debug?: boolean;
}

/** The parts of Moleculer's internal TCP reader that are used here; it has no exported type. */
interface TcpReader {
	opts: { port?: number | null };
	logger: Transporters.Base["logger"];
	server: Server | null;
	connected?: boolean;
	listen(): Promise<number>;
	onTcpClientConnected(socket: Socket): void;
}

/** The parts of Moleculer's internal TCP writer that are used here. Emits "error" with a nodeID. */
interface TcpWriter extends EventEmitter {
	send(nodeID: string, type: number, data: Buffer): Promise<void>;
}

/** What of a node the gossip goes by. */
interface GossipNode {
	available: boolean;
	port: number;
	seq: number;
	cpuSeq: number;
}

/**
 * Moleculer's TCP transporter for several processes on one machine, with nothing to install and nothing
 * to be seen from outside: the stock one listens on all interfaces and announces itself by multicast,
 * this one listens on 127.0.0.1, connects to 127.0.0.1 and sends no datagram.
 *
 * A peer that is killed is noticed at once, by its closed connection. One that hangs is not: the TCP
 * transporter has no heartbeats, judge by the node's `lastHeartbeatTime`, which gossip sets.
 *
 * @example
 * export default {
 *   nodeID: "user",   // `urls` name nodes, so their ids must be fixed
 *   transporter: new LoopbackTcp({ urls: "tcp://127.0.0.1:9888/lottor" }),
 * };
 */
export class LoopbackTcp extends Transporters.TCP {
	// Only declared: an initialised field would overwrite what the base constructor stored.
	declare private currentReader: TcpReader | null;

	constructor(opts?: string | LoopbackTcpOptions) {
		super({
			gossipPeriod: 1,
			maxPacketSize: MAX_PACKET_SIZE,
			// Moleculer takes an array of urls too, its types only a string.
			...((typeof opts === "string" ? { urls: opts } : opts) as
				{ urls?: string } | undefined),
			udpDiscovery: false,
		});
	}

	/** The server behind this node, null before the broker's start. */
	get reader(): TcpReader | null {
		return this.currentReader;
	}

	/**
	 * Moleculer makes its reader and calls `listen` on it in one function and offers no option for the
	 * address, so the reader is changed when it is stored.
	 */
	set reader(reader: TcpReader | null) {
		if (reader) reader.listen = () => listenOnLoopback(reader);
		this.currentReader = reader;
	}

	/**
	 * Nodes tell each other who is gone by name and sequence number, and Moleculer begins at 1 again
	 * with each start: what is still told of a process that was killed would count against the next
	 * one of its name, and have it taken for gone while it works. So each start begins above the last.
	 */
	override connect(): Promise<void> {
		const local = this.nodes.localNode as unknown as GossipNode;
		local.seq = Math.max(local.seq, Date.now());
		return super.connect();
	}

	/**
	 * A connection that is refused at the port of a process that is gone says nothing of the next one
	 * of its name, which may be known by the time the refusal arrives: it is not taken for gone, and
	 * gets the packet.
	 */
	override startTcpServer(): Promise<void> {
		const listening = super.startTcpServer();
		const { writer } = this as unknown as { writer: TcpWriter };
		const isFormer = ({ port }: { port?: number }, nodeID: string) =>
			port !== undefined && port !== (this.nodes.get(nodeID) as GossipNode | undefined)?.port;

		const [disconnected] = writer.listeners("error");
		writer.removeAllListeners("error");
		writer.on("error", (error: { port?: number }, nodeID: string) => {
			if (!isFormer(error, nodeID)) disconnected?.(error, nodeID);
		});
		const send = writer.send.bind(writer);
		writer.send = (nodeID, type, data) =>
			send(nodeID, type, data).catch((error: { port?: number }) => {
				if (isFormer(error, nodeID)) return send(nodeID, type, data);
				throw error;
			});
		return listening;
	}

	/**
	 * A node is heard of by the number of its CPU figure, which Moleculer raises only when the figure
	 * changes: on a machine at rest, or at its limit, nobody would be heard of any more.
	 */
	override sendGossipRequest(): void {
		const local = this.nodes.localNode as unknown as GossipNode;
		// By the time, so that each start's numbers are above the last's.
		local.cpuSeq = Math.max(local.cpuSeq + 1, Date.now());
		super.sendGossipRequest();
	}

	/**
	 * A node that comes back under its name usually has another port, and Moleculer keeps the old one:
	 * it would be looked for there until its entry is forgotten, ten minutes later. Telling it that it
	 * is held for gone makes it answer at once with all it offers.
	 */
	override processGossipHello(message: Buffer, socket: Socket): void {
		super.processGossipHello(message, socket);
		const hello = this.readHello(message);
		const node = hello && (this.nodes.get(hello.sender) as GossipNode | undefined);
		if (!node || node.available) return;
		node.port = hello.port;
		const offline = node.seq > 0 ? { [hello.sender]: node.seq } : {};
		this.sendGossipToRandomEndpoint({ offline }, [node as never]);
	}

	/** @returns undefined for a packet that can't be read, of which Moleculer has warned by now */
	private readHello(message: Buffer): { sender: string; port: number } | undefined {
		try {
			const packet: { payload?: unknown } = this.deserialize("GOSSIP_HELLO", message);
			return packet.payload as { sender: string; port: number };
		} catch {
			return undefined;
		}
	}

	/** Every node is on this machine, whatever host name or addresses it tells. */
	override getNodeAddress(): string {
		return HOST;
	}
}

/** What `reader.listen` does, except for the address. Resolves with the port once connections are accepted. */
function listenOnLoopback(reader: TcpReader): Promise<number> {
	return new Promise((resolve, reject) => {
		const server = createServer((socket) => {
			reader.onTcpClientConnected(socket);
		});
		reader.server = server;

		// Stays after the start, too: without a listener a later error would end the process.
		server.on("error", (err) => {
			reader.logger.error(`TCP server error on ${HOST}.`, err);
			reject(err);
		});

		server.listen({ port: reader.opts.port ?? 0, host: HOST, exclusive: true }, () => {
			const { port } = server.address() as { port: number };
			reader.opts.port = port;
			reader.connected = true;
			reader.logger.info(`TCP server is listening on ${HOST}:${port}`);
			resolve(port);
		});
	});
}
