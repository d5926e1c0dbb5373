import { setTimeout as sleep } from "node:timers/promises";

import { Discoverers, type Registry, Transporters } from "moleculer";

import { hasCode, LottorError, messageOf } from "../../protocol/index.ts";
import type {
	Member,
	MemberRegistry,
	NodeInfo,
	Phase,
	Presence,
	ServiceAddress,
	Site,
} from "./contract.ts";
import { instancesOf } from "./instances.ts";
import { Liveness } from "./liveness.ts";

const METRIC = "moleculer.discoverer.registry.requests.total";

/** Between two attempts to join, in ms. */
const JOIN_PAUSE = 1_000;
/** How long peers wait for the news of a change while the registry takes its time, in ms. */
const PUBLISH_GRACE = 500;
/** How long a leaving node waits for the registry, in ms. */
const WITHDRAW_LIMIT = 2_000;

/** Moleculer's internals that are used here and have no exported type. */
interface TransitInternals {
	tx: { makeBalancedSubscriptions(): Promise<void> };
	opts: { disableVersionCheck?: boolean };
	messageHandler(cmd: string, packet: { payload?: Heartbeat }): Promise<boolean>;
	publish(packet: { type: string; target: string | null; payload: object }): Promise<void>;
	sendPing(nodeID?: string): Promise<void>;
	sendNodeInfo(info: unknown, nodeID: string): Promise<void>;
	discoverNode(nodeID: string): Promise<void>;
}

interface NodeInternals {
	readonly id: string;
	readonly instanceID: string | null;
	readonly available: boolean;
	readonly local: boolean;
}

interface BrokerInternals {
	readonly started: boolean;
	readonly PROTOCOL_VERSION: string;
}

type RemoteNode = ReturnType<Discoverers.Base["processRemoteNodeInfo"]>;

/** What a heartbeat says besides that its sender lives. */
interface Heartbeat {
	readonly sender?: string;
	readonly cpu?: number;
	readonly seq?: number;
	readonly instanceID?: string;
}

/** What the base needs of the options. */
export interface BaseOptions {
	readonly heartbeatInterval?: number | undefined;
	readonly heartbeatTimeout?: number | undefined;
	readonly address?: string | undefined;
	readonly services?: Readonly<Record<string, ServiceAddress>> | undefined;
}

/**
 * Moleculer's discovery with a registry beside the transporter. The registry has one record for each
 * node and decides who owns a nodeID; heartbeats go over the transporter and decide who is alive. So
 * nodes that hear each other go on working while the registry is away, and no record of a node that
 * has died is ever taken for a node.
 */
export abstract class RegistryDiscoverer extends Discoverers.Base {
	declare opts: {
		heartbeatInterval: number;
		heartbeatTimeout: number;
		disableHeartbeatChecks: boolean;
	};

	readonly #options: BaseOptions;
	readonly #open: (site: Site) => MemberRegistry;
	#members!: MemberRegistry;
	#alive!: Liveness;

	/** Whether this node has joined since its start: it may beat and answer. */
	#joined = false;
	#leaving = false;
	/** Whether the record in the registry is this node's, as far as is known. */
	#holds = false;
	#watching = false;
	#wasUp = false;
	/** Whether the registry failed when it was last used. */
	#failing = false;

	/** Counts the changes to publish, and those that are published. */
	#changes = 0;
	#published = 0;
	#publishing: Promise<void> | undefined;
	#tending: Promise<void> | undefined;

	/** Another process with this nodeID, and when it was last heard, by `performance.now()`. */
	#double = { instanceID: "", at: Number.NEGATIVE_INFINITY };
	#seen: Presence | undefined;
	readonly #expected = new Map<string, Heartbeat>();
	readonly #discovering = new Map<string, Promise<void>>();

	protected constructor(options: BaseOptions, open: (site: Site) => MemberRegistry) {
		const { heartbeatInterval, heartbeatTimeout } = options;
		super({
			...(heartbeatInterval !== undefined && { heartbeatInterval }),
			...(heartbeatTimeout !== undefined && { heartbeatTimeout }),
		});
		this.#options = options;
		this.#open = open;
	}

	override init(registry: Registry): void {
		super.init(registry);
		this.#refuseUnfitBroker();
		const { nodeID, instanceID, namespace } = this.broker;
		this.#alive = new Liveness(this.opts.heartbeatTimeout * 1_000, this.#checkPeriod);
		this.#members = this.#open({
			nodeID,
			instanceID,
			namespace,
			address: this.#address(),
			heartbeatTimeoutMs: this.opts.heartbeatTimeout * 1_000,
			counted: () => void this.broker.metrics.increment(METRIC),
			present: (nodes) => this.#present(nodes),
			troubled: (error) => this.#failed(error),
		});
		this.broker.localBus.on("$node.pong", ({ nodeID }: { nodeID: string }) => {
			this.#answered(nodeID);
		});
		this.#listenForDouble();
	}

	override registerMoleculerMetrics(): void {
		this.broker.metrics.register({
			name: METRIC,
			type: "counter",
			rate: true,
			description: "Number of requests to the registry of discovery",
		});
	}

	override disableHeartbeat(): void {
		throw unfit(
			"registry.discoverer",
			"needs heartbeats, which this transporter does not have; use NATS, Redis, AMQP, MQTT or Kafka",
		);
	}

	override startHeartbeatTimers(): void {
		super.startHeartbeatTimers();
		// Moleculer looks once in a whole time-out, so a dead node could stay for two of them.
		clearInterval(this.checkNodesTimer);
		this.#alive.resume();
		this.checkNodesTimer = setInterval(() => this.checkRemoteNodes(), this.#checkPeriod);
		this.checkNodesTimer.unref();
	}

	override checkRemoteNodes(): void {
		if (this.opts.disableHeartbeatChecks) return;
		const nodes = (this.registry.nodes.toArray() as unknown as NodeInternals[])
			.filter(({ local, available }) => available && !local)
			.map(({ id }) => id);
		for (const id of this.#alive.silent(nodes)) {
			this.logger.warn(`No heartbeat of node '${id}' within the time-out.`);
			this.#expected.delete(id);
			this.registry.nodes.disconnected(id, true);
		}
	}

	override async sendHeartbeat(): Promise<void> {
		if (!this.#joined || this.#leaving) return;
		const { cpu, seq } = this.localNode as unknown as { cpu: number; seq: number };
		const payload = { cpu, seq, instanceID: this.broker.instanceID };
		await this.#send((transit) =>
			transit.publish({ type: "HEARTBEAT", target: null, payload }),
		);
		void this.#tend();
	}

	override heartbeatReceived(nodeID: string, payload: Heartbeat): void {
		if (nodeID === this.broker.nodeID) return;
		this.#alive.beaten(nodeID);
		this.#expected.set(nodeID, payload);
		super.heartbeatReceived(nodeID, payload);
	}

	override processRemoteNodeInfo(nodeID: string, info: Record<string, unknown>): RemoteNode {
		const known = this.registry.nodes.get(nodeID);
		if (nodeID === this.broker.nodeID) return known;
		if (this.#alive.hasLeft(nodeID, String(info["instanceID"]))) return known;
		this.#alive.heard(nodeID);
		return super.processRemoteNodeInfo(nodeID, info);
	}

	/** Gets what a living node tells of itself: from the registry, else from the node. */
	override discoverNode(nodeID: string): Promise<void> {
		const running = this.#discovering.get(nodeID);
		if (running) return running;
		const discovery = this.#discover(nodeID)
			.catch((error: unknown) => {
				// Nobody waits for this; the node's next heartbeat makes it be tried again.
				this.logger.warn(`Node '${nodeID}' was not discovered: ${messageOf(error)}`);
			})
			.finally(() => this.#discovering.delete(nodeID));
		this.#discovering.set(nodeID, discovery);
		return discovery;
	}

	/** Called when the transporter is connected, and each time that it is again. */
	override async discoverAllNodes(): Promise<void> {
		this.#leaving = false;
		if (!this.#joined) {
			await this.#join();
			// Stopped while it waited: Moleculer must not go on with the start.
			if (this.#isLeaving()) return new Promise(() => undefined);
			this.#joined = true;
			await this.#tell();
			if (!this.#watching) this.#members.watch();
			this.#watching = true;
		}
		await this.#send((transit) => transit.sendPing());
	}

	/** @param nodeID the node that asked; without it, the services have changed */
	override async sendLocalNodeInfo(nodeID?: string): Promise<void> {
		if (nodeID !== undefined) {
			const info = this.broker.getLocalNodeInfo();
			return this.#send((transit) => transit.sendNodeInfo(info, nodeID));
		}
		if (this.broker.options.disableBalancer) await this.#transit.tx.makeBalancedSubscriptions();
		if (!this.#joined || this.#leaving) return;
		await Promise.race([this.#tell(), sleep(PUBLISH_GRACE, undefined, { ref: false })]);
		await this.beat();
	}

	override async localNodeDisconnected(): Promise<void> {
		this.#leaving = true;
		// One that never joined must not say goodbye for the one whose nodeID it wanted.
		if (this.#joined) await super.localNodeDisconnected();
		await this.#withdraw();
	}

	override remoteNodeDisconnected(nodeID: string, isUnexpected: boolean): void {
		const node = this.registry.nodes.get(nodeID) as NodeInternals | undefined;
		if (!isUnexpected && node?.instanceID) this.#alive.left(nodeID, node.instanceID);
		this.#expected.delete(nodeID);
		super.remoteNodeDisconnected(nodeID, isUnexpected);
	}

	override async stop(): Promise<void> {
		this.#leaving = true;
		await super.stop();
		await this.#withdraw();
		this.#joined = false;
		this.#wasUp = false;
		this.#watching = false;
		this.#seen = undefined;
		await this.#members.close();
	}

	/** Between two looks for nodes that are silent, in ms. */
	get #checkPeriod(): number {
		return Math.min(1_000, this.opts.heartbeatInterval * 250);
	}

	get #transit(): TransitInternals {
		return this.transit as unknown as TransitInternals;
	}

	get #broker(): BrokerInternals {
		return this.broker;
	}

	/** Sends a packet. What gets lost is made good by later heartbeats. */
	async #send(act: (transit: TransitInternals) => Promise<void>): Promise<void> {
		try {
			await act(this.#transit);
		} catch (error) {
			this.logger.debug(`A packet was not sent: ${messageOf(error)}`);
		}
	}

	/** Apart, since the compiler takes the flag for unchanged across an await. */
	#isLeaving(): boolean {
		return this.#leaving;
	}

	#refuseUnfitBroker(): void {
		const field = "registry.discoverer";
		const tx: unknown = (this.transit as { tx?: unknown } | undefined)?.tx;
		if (!tx) {
			throw unfit(
				field,
				"needs a transporter, since heartbeats and calls go over it; set `transporter`",
			);
		}
		if (tx instanceof Transporters.TCP) this.disableHeartbeat();
		const { heartbeatInterval: interval, heartbeatTimeout: timeout } = this.opts;
		if (!(interval > 0))
			throw unfit("heartbeatInterval", "must be above 0 for this discoverer");
		if (!(timeout > interval)) {
			throw unfit("heartbeatTimeout", "must be longer than heartbeatInterval");
		}
	}

	/** Moleculer drops packets that bear the own nodeID before a discoverer sees them. */
	#listenForDouble(): void {
		const transit = this.#transit;
		const handle = transit.messageHandler.bind(transit);
		const { nodeID, instanceID } = this.broker;
		transit.messageHandler = (cmd, packet) => {
			const beat = cmd === "HEARTBEAT" ? packet.payload : undefined;
			if (cmd === "DISCONNECT" && packet.payload?.sender === nodeID) {
				this.#double.at = Number.NEGATIVE_INFINITY;
			}
			if (beat?.sender === nodeID && beat.instanceID && beat.instanceID !== instanceID) {
				this.#double = { instanceID: beat.instanceID, at: performance.now() };
				if (this.#joined) this.#holds = false;
			}
			return handle(cmd, packet);
		};
	}

	/** Takes the nodeID in the registry; waits for the registry, ends the process where it is refused. */
	async #join(): Promise<void> {
		const patience = this.opts.heartbeatTimeout * 1_000;
		const began = performance.now();
		let takeOver = false;
		let told = false;
		while (!this.#leaving) {
			try {
				const holder = await this.#members.claim(this.#self(), takeOver);
				this.#recovered();
				// Where no heartbeat comes from the holder, the record is what a dead one left behind. A
				// living one may have lost its record with the registry's data; it gets it back.
				const isDouble = this.#double.at >= began - patience;
				if (isDouble && (holder || !this.#joined)) {
					if (!holder) await this.#members.withdraw();
					return this.#refuseDouble();
				}
				if (!holder) return this.#hold();
				const waited = performance.now() - began;
				takeOver = holder.instanceID === this.broker.instanceID || waited > patience;
				if (!told)
					this.logger.info("NodeID is taken; waiting to hear whether its owner lives.");
				told = true;
			} catch (error) {
				this.#failed(error);
				if (
					hasCode(error, "LOTTOR_REGISTRY_REFUSED") ||
					hasCode(error, "LOTTOR_INVALID_OPTIONS")
				) {
					if (!this.#joined) this.broker.fatal(messageOf(error), error as Error, true);
				}
			}
			await sleep(JOIN_PAUSE, undefined, { ref: !this.#joined });
		}
	}

	#hold(): void {
		this.#holds = true;
		this.#changes++;
		this.#recovered();
	}

	#refuseDouble(): void {
		const { nodeID, namespace } = this.broker;
		const where = namespace === "" ? "" : ` in namespace '${namespace}'`;
		const text = `NodeID '${nodeID}' belongs to another living node${where}. Use unique nodeIDs.`;
		const data = { nodeID, holder: this.#double.instanceID };
		this.#leaving = true;
		this.broker.fatal(text, new LottorError("LOTTOR_NODE_ID_TAKEN", text, data), true);
	}

	#self(): Member {
		const { nodeID, instanceID } = this.broker;
		return { nodeID, instanceID, seq: (this.localNode as unknown as { seq: number }).seq };
	}

	/** Keeps the records alive and brings them in line; after a loss, joins again. */
	#tend(): Promise<void> {
		this.#tending ??= this.#tendOnce().finally(() => (this.#tending = undefined));
		return this.#tending;
	}

	async #tendOnce(): Promise<void> {
		if (!this.#joined || this.#leaving) return;
		try {
			this.#holds &&= await this.#members.keepAlive();
			this.#recovered();
		} catch (error) {
			return this.#failed(error);
		}
		if (this.#isLeaving()) return;
		if (!this.#holds) {
			this.logger.warn(`${this.#members.title} has lost this node. It registers again.`);
			await this.#join();
			if (!this.#isLeaving()) await this.#send((transit) => transit.sendPing());
		}
		if (this.#published !== this.#changes)
			await this.#publish().catch((e: unknown) => this.#failed(e));
	}

	/** Publishes a change; what fails is made good by the next heartbeat. */
	async #tell(): Promise<void> {
		// Asking for the own INFO is what counts `seq` up.
		this.broker.getLocalNodeInfo();
		this.#changes++;
		try {
			await this.#publish();
		} catch (error) {
			this.#failed(error);
		}
	}

	#publish(): Promise<void> {
		this.#publishing ??= this.#publishAll().finally(() => (this.#publishing = undefined));
		return this.#publishing;
	}

	async #publishAll(): Promise<void> {
		while (this.#published !== this.#changes && this.#holds && !this.#leaving) {
			const changes = this.#changes;
			const info = {
				...this.broker.getLocalNodeInfo(),
				ver: this.#broker.PROTOCOL_VERSION,
				sender: this.broker.nodeID,
			} as unknown as NodeInfo;
			const { namespace } = this.broker;
			const { services } = this.#options;
			const instances = instancesOf(info, { namespace, address: this.#address(), services });
			this.#holds &&= await this.#members.publish({
				self: this.#self(),
				info,
				instances,
				phase: this.#phase(),
			});
			if (this.#holds) this.#published = changes;
			this.#recovered();
		}
	}

	#address(): string {
		const { ipList } = this.localNode as unknown as { ipList?: readonly string[] };
		return this.#options.address ?? ipList?.[0] ?? "127.0.0.1";
	}

	#phase(): Phase {
		if (this.#broker.started) this.#wasUp = true;
		else return this.#wasUp ? "stopping" : "starting";
		return "up";
	}

	async #withdraw(): Promise<void> {
		if (!this.#holds) return;
		this.#holds = false;
		const withdrawn = Promise.resolve(this.#publishing)
			.catch(() => undefined)
			.then(() => this.#members.withdraw());
		const late = sleep(WITHDRAW_LIMIT, "late", { ref: false });
		try {
			if ((await Promise.race([withdrawn, late])) === "late")
				throw new Error("it took too long");
		} catch (error) {
			withdrawn.catch(() => undefined);
			this.logger.warn(
				`This node could not be taken out of ${this.#members.title}: ${messageOf(error)}. Its records expire.`,
			);
		}
	}

	async #discover(nodeID: string): Promise<void> {
		const info = this.#failing ? undefined : await this.#read(nodeID);
		if (info?.sender === nodeID && Array.isArray(info.services) && this.#isCurrent(info)) {
			this.processRemoteNodeInfo(nodeID, info);
			return;
		}
		await this.#send((transit) => transit.discoverNode(nodeID));
	}

	async #read(nodeID: string): Promise<NodeInfo | undefined> {
		try {
			return await this.#members.read(nodeID);
		} catch (error) {
			this.#failed(error);
			return undefined;
		}
	}

	/** Whether what the registry has is at least as new as the node's last heartbeat. */
	#isCurrent(info: NodeInfo): boolean {
		const { PROTOCOL_VERSION } = this.#broker;
		if (info.ver !== PROTOCOL_VERSION && !this.#transit.opts.disableVersionCheck) return false;
		const { instanceID = info.instanceID, seq = 0 } = this.#expected.get(info.sender) ?? {};
		return info.instanceID === instanceID && info.seq >= seq;
	}

	/** A node that answered lives, so it can be discovered at once. */
	#answered(nodeID: string): void {
		if (nodeID === this.broker.nodeID || this.#leaving) return;
		this.#alive.heard(nodeID);
		const node = this.registry.nodes.get(nodeID) as NodeInternals | undefined;
		if (!node?.available) void this.discoverNode(nodeID);
	}

	/** Asks nodes whose record is new or other than before whether they live. */
	#present(nodes: Presence): void {
		this.#recovered();
		const before = this.#seen;
		this.#seen = nodes;
		if (!before || this.#leaving) return;
		const { nodeID } = this.broker;
		for (const [id, mark] of nodes) {
			if (id !== nodeID && before.get(id) !== mark)
				void this.#send((transit) => transit.sendPing(id));
		}
		if (before.has(nodeID) && !nodes.has(nodeID)) {
			this.#holds = false;
			void this.#tend();
		}
	}

	#failed(error: unknown): void {
		if (this.#leaving) return;
		const { title } = this.#members;
		const text = `${title} cannot be used: ${messageOf(error)}${causeOf(error)}`;
		if (this.#failing) this.logger.debug(text);
		else this.logger.error(`${text}. It is tried again; nodes that hear each other go on.`);
		this.#failing = true;
		const type = hasCode(error, "LOTTOR_REGISTRY_REFUSED")
			? "registryRefused"
			: "registryFailed";
		void this.broker.broadcastLocal("$discoverer.error", { error, module: "discoverer", type });
	}

	#recovered(): void {
		if (this.#failing) this.logger.info(`${this.#members.title} can be used again.`);
		this.#failing = false;
	}
}

function unfit(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_INVALID_OPTIONS", `Option ${field} ${problem}`, { field });
}

function causeOf(error: unknown): string {
	const data: unknown = error instanceof LottorError ? error.data : undefined;
	const text = (data as { cause?: unknown } | undefined)?.cause;
	return typeof text === "string" && text !== "" ? ` (${text})` : "";
}
