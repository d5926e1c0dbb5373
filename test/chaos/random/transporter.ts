import { LoopbackTcp } from "../../../adapters/transporter/loopback-tcp.ts";
import { PORT } from "./words.ts";

type Node = ReturnType<LoopbackTcp["getNode"]>;

/** The loopback transporter, connecting to each node through the port that the network gave it. */
export class ChaosTcp extends LoopbackTcp {
	readonly #ports: Readonly<Record<string, number>>;

	constructor(ports: Readonly<Record<string, number>>) {
		const urls = Object.entries(ports).map(([name, port]) => `tcp://127.0.0.1:${port}/${name}`);
		super({ port: 0, urls });
		this.#ports = ports;
	}

	override async startTcpServer(): Promise<void> {
		await super.startTcpServer();
		console.log(`${PORT}${this.reader?.opts.port}`);
	}

	override getNode(nodeID: string): Node {
		const node = super.getNode(nodeID);
		const port = this.#ports[nodeID];
		if (port === undefined) return node;
		// The real node keeps its real port, which gossip passes on.
		return Object.create(node, { port: { value: port } }) as Node;
	}
}
