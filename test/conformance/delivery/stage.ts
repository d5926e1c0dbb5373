import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { type BrokerOptions, type Service, ServiceBroker, type ServiceSchema } from "moleculer";

import { type ChannelAdapter, channelAdapter } from "../../../adapters/channels/index.ts";
import type { DeliverySpec } from "../../../adapters/delivery/index.ts";
import { LoopbackTcp } from "../../../adapters/transporter/loopback-tcp.ts";
import type {
	OutgoingMessage,
	ReliableMessageOptions,
} from "../../../mixins/reliable-message/index.ts";
import type { MessageRecord } from "../../../protocol/index.ts";
import type { CoordinatorOptions } from "../../../services/coordinator/index.ts";
import { FaultProxy } from "../../support/fault-proxy.ts";
import { TestCluster } from "../../support/lottor.ts";
import { deferred } from "../../support/mixin-node.ts";
import { PrivateServer } from "../../support/private-server.ts";
import { TcpWays } from "../../support/tcp-ways.ts";
import { until } from "../../support/until.ts";
import type { Subject as Broker } from "../channel-adapter/subjects.ts";
import { consumerSchema, EFFECTS, type PeerSpec } from "./services.ts";
import { type DeliverySubject, specOf } from "./subjects.ts";

const PEER = fileURLToPath(new URL("./peer.ts", import.meta.url));

let stages = 0;

/** Runs of handlers, by message, and what holds them. */
export class Work {
	readonly runs = new Map<string, number>();
	readonly payloads: unknown[] = [];
	readonly #gate = deferred();
	#closed: boolean;

	/** @param closed whether handlers wait until `open` */
	constructor(closed = false) {
		this.#closed = closed;
	}

	open(): void {
		this.#closed = false;
		this.#gate.resolve();
	}

	handler = async (id: string, params: unknown): Promise<void> => {
		this.runs.set(id, (this.runs.get(id) ?? 0) + 1);
		this.payloads.push(params);
		if (this.#closed) await this.#gate.promise;
	};
}

/** One cluster for one case and one way of delivery: a coordinator with the producer `shop`, and consumers. */
export class DeliveryStage {
	readonly subject: DeliverySubject;
	readonly url: string;
	readonly namespace: string;
	readonly cluster = new TestCluster();
	delivery: DeliverySpec;
	readonly #groups: string[] = [];
	readonly #cleanups: (() => Promise<unknown>)[] = [];
	readonly #peers: Peer[] = [];
	#shop: Service | undefined;
	/** The ways between its nodes, where a case plays with them. */
	#ways: TcpWays | undefined;
	#port = 0;

	constructor(subject: DeliverySubject, url: string) {
		this.subject = subject;
		this.url = url;
		this.namespace = `dl${process.pid}-${++stages}-${Date.now()}`;
		this.delivery = specOf(subject.broker, url);
	}

	/** The broker's side of the subject; only for cases that need one. */
	get broker(): Broker {
		if (!this.subject.broker) throw new Error("Direct delivery has no broker");
		return this.subject.broker;
	}

	/** Starts coordinator and producer. */
	async start(options: CoordinatorOptions = {}, more: BrokerOptions = {}): Promise<void> {
		const transporter = this.#ways?.transporter();
		const node = this.cluster.broker(
			"k",
			this.#nodeOptions({ ...more, ...(transporter && { transporter }) }),
		);
		this.cluster.coordinator(node, {
			delivery: this.delivery,
			ackTimeout: 1_000,
			callTimeout: 3_000,
			...options,
		});
		this.#shop = this.cluster.participant(node, "shop");
		await node.start();
		this.#port = transporter?.reader?.opts.port ?? 0;
	}

	/** The same, where consumers are processes of their own. */
	async startForPeers(options: CoordinatorOptions = {}): Promise<void> {
		const transporter = new LoopbackTcp({ port: 0 });
		await this.start(options, { transporter });
		this.#port = transporter.reader?.opts.port ?? 0;
	}

	/** Starts a consumer on a node of its own. */
	async consumer(
		nodeID: string,
		names: string | readonly string[],
		work: Work,
		options: Partial<ReliableMessageOptions> & { node?: BrokerOptions; file?: string } = {},
	): Promise<ServiceBroker> {
		const { node: more = {}, file, ...mixin } = options;
		const transporter = this.#ways?.transporter([`tcp://127.0.0.1:${this.#port}/k`]);
		const node = this.cluster.broker(
			nodeID,
			this.#nodeOptions({ ...more, ...(transporter && { transporter }) }),
		);
		for (const name of [names].flat()) {
			await this.cluster.database(file ?? name, EFFECTS);
			node.createService(
				consumerSchema(this.#consumer(name, file), work.handler, mixin) as ServiceSchema,
			);
		}
		await node.start();
		return node;
	}

	/** Starts a consumer in a process of its own. */
	async peer(nodeID: string, name: string, mood: PeerSpec["mood"]): Promise<Peer> {
		await this.cluster.database(name, EFFECTS);
		const spec: PeerSpec = {
			nodeID,
			namespace: this.namespace,
			port: this.#port,
			consumer: this.#consumer(name),
			mood,
		};
		const child = spawn(process.execPath, ["--no-warnings", PEER, JSON.stringify(spec)], {
			stdio: ["pipe", "pipe", "inherit"],
		});
		const peer = new Peer(child);
		this.#peers.push(peer);
		this.#cleanups.push(() => peer.kill());
		return peer;
	}

	/** Commits groups of one message each. @returns their ids */
	async send(target: string, count: number, more: object = {}): Promise<string[]> {
		const ids = await Promise.all(
			Array.from({ length: count }, () => this.sendGroup([{ target, ...more }])),
		);
		return ids;
	}

	/** Commits one group. */
	async sendGroup(messages: readonly object[]): Promise<string> {
		if (!this.#shop) throw new Error("not started");
		const outgoing = messages.map((message) => ({ type: "t", payload: {}, ...message }));
		const id = await this.cluster
			.reliable<Record<string, Record<string, unknown>>>(this.#shop)
			.transaction(null, outgoing as OutgoingMessage[], (tx) => tx.group);
		this.#groups.push(id);
		return id;
	}

	async messages(id: string): Promise<readonly MessageRecord[]> {
		return (await this.cluster.view(id)).group.messages;
	}

	/** Resolves once the first message of each group is so. */
	async reached(ids: readonly string[], so: (message: MessageRecord) => boolean): Promise<void> {
		for (const id of ids) {
			await until(async () => (await this.messages(id)).slice(0, 1).every(so));
		}
	}

	/**
	 * What every case ends with: all that was committed took effect exactly once.
	 * @param names the consumers that keep effects
	 * @param files where they keep them, when not under their names
	 */
	async exactlyOnce(names: readonly string[], files = names): Promise<void> {
		await this.ended();
		const sent: string[] = [];
		for (const id of this.#groups) {
			for (const message of await this.messages(id)) {
				if (names.includes(message.target)) sent.push(message.id);
			}
		}
		const effects: string[] = [];
		for (const file of files) {
			const rows = await this.cluster.rows(file, "SELECT message FROM effects");
			effects.push(...rows.map((row) => String(row["message"])));
		}
		const once = new Set(effects);
		const lost = sent.filter((id) => !once.has(id)).length;
		const doubled = effects.length - once.size;
		if (lost + doubled > 0 || effects.length !== sent.length) {
			throw new Error(
				`${sent.length} sent, ${effects.length} effects, ${lost} lost, ${doubled} doubled`,
			);
		}
	}

	/** Resolves once all groups are completed. */
	async ended(): Promise<void> {
		for (const id of this.#groups) await this.cluster.reached(id, "completed");
	}

	/** The full name of a channel on the broker. */
	channel(name: string): string {
		return `${this.namespace}.${name}`;
	}

	/** An adapter of the test's own, to send what it likes. */
	async adapter(): Promise<ChannelAdapter> {
		const broker = new ServiceBroker({ namespace: this.namespace, logger: false });
		const adapter = channelAdapter(this.delivery as string);
		adapter.init(broker, broker.logger);
		await adapter.connect();
		this.#cleanups.push(() => adapter.disconnect());
		return adapter;
	}

	/** A broker of this case's own, over which it delivers from now on. */
	async ownServer(): Promise<PrivateServer> {
		const server = await PrivateServer.start(this.broker.kind);
		this.#cleanups.push(() => server.dispose());
		this.delivery = specOf(this.broker, server.url);
		return server;
	}

	/**
	 * The way that messages go can be cut from now on: to the broker, or between the nodes.
	 * For before anything has started.
	 */
	async proxied(): Promise<Way> {
		if (!this.subject.broker) {
			const ways = (this.#ways = new TcpWays());
			this.#cleanups.push(() => ways.close());
			return ways;
		}
		const port = Number(/:(\d+)$/.exec(this.url)?.[1]);
		const proxy = await FaultProxy.start({ host: "127.0.0.1", port });
		this.#cleanups.push(() => proxy.close());
		const url = this.url.replace(`:${port}`, `:${proxy.port}`);
		this.delivery = specOf(this.broker, url, this.broker.over?.(proxy.port));
		return proxy;
	}

	/** Another cluster on the same server, under another namespace. */
	beside(): DeliveryStage {
		const other = new DeliveryStage(this.subject, this.url);
		this.#cleanups.push(() => other.end());
		return other;
	}

	/** @throws when a consumer's process had an unhandled rejection; Jest itself looks for those of this one */
	async end(): Promise<void> {
		await this.cluster.stop();
		for (const cleanup of this.#cleanups.splice(0).reverse()) {
			await cleanup().catch(() => undefined);
		}
		const unhandled = this.#peers.flatMap((peer) => peer.unhandled);
		if (unhandled.length > 0) throw new Error(unhandled.join("\n"));
	}

	#consumer(name: string, database = name) {
		const file = join(this.cluster.folder, `${database}.db`);
		return { name, file, delivery: this.delivery };
	}

	#nodeOptions(more: BrokerOptions): BrokerOptions {
		return {
			namespace: this.namespace,
			transporter: "Fake",
			registry: { stopDelay: 0 },
			transit: { serviceChangedDebounceTime: 0 } as object,
			...more,
		};
	}
}

/** A way that can be cut. */
export type Way = Pick<FaultProxy, "open" | "close" | "blackhole" | "mend">;

/** A consumer's process. */
export class Peer {
	readonly #child: ChildProcess;
	readonly #lines: string[] = [];

	constructor(child: ChildProcess) {
		this.#child = child;
		if (child.stdout) {
			createInterface({ input: child.stdout }).on("line", (line) => this.#lines.push(line));
		}
	}

	/** Resolves once one of its handlers has written its effect. */
	async handling(): Promise<void> {
		await until(() => this.#lines.some((line) => line.startsWith("IN ")));
	}

	/** Rejections that nobody in it looked at. */
	get unhandled(): string[] {
		return this.#lines.filter((line) => line.startsWith("UNHANDLED "));
	}

	/** Resolves once it has ended. */
	get ended(): Promise<unknown> {
		const { exitCode, signalCode } = this.#child;
		return exitCode === null && signalCode === null
			? once(this.#child, "exit")
			: Promise.resolve();
	}

	/** Ends it without a chance to say goodbye. */
	async kill(): Promise<void> {
		if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
		const exited = once(this.#child, "exit");
		this.#child.kill("SIGKILL");
		await exited;
	}
}
