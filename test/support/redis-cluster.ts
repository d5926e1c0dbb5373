import { Cluster, type ClusterOptions, Redis } from "ioredis";

import type { ServerKind } from "../../scripts/servers/kind.ts";
import { redis } from "../../scripts/servers/redis.ts";
import { PrivateServer } from "./private-server.ts";
import { until } from "./until.ts";

const SLOTS = 16_384;
const MASTERS = 3;
/** After so long a node that is silent counts as gone. Milliseconds. */
const NODE_TIMEOUT_MS = 1_000;

const node: ServerKind = {
	...redis,
	name: "redis-cluster-node",
	ports: ["client", "bus"],
	async command(place, cache) {
		const { file, args } = await redis.command(place, cache);
		const options = {
			"cluster-enabled": "yes",
			"cluster-node-timeout": NODE_TIMEOUT_MS,
			"cluster-port": place.ports["bus"],
			"repl-diskless-sync-delay": 0,
		};
		const more = Object.entries(options).flatMap(([name, value]) => [
			`--${name}`,
			String(value),
		]);
		return { file, args: [...args, ...more] };
	},
};

/** A Redis Cluster of a test's own: three masters, and a replica of the first one. */
export class RedisCluster {
	readonly #servers: readonly PrivateServer[];
	readonly #clients: readonly Redis[];

	private constructor(servers: readonly PrivateServer[], clients: readonly Redis[]) {
		this.#servers = servers;
		this.#clients = clients;
	}

	static async start(): Promise<RedisCluster> {
		const servers: PrivateServer[] = [];
		for (let i = 0; i <= MASTERS; i++) servers.push(await PrivateServer.start(node));
		const clients = servers.map(({ url }) => {
			const client = new Redis(url, { maxRetriesPerRequest: 0 });
			// A node that is killed is no news to a test.
			client.on("error", () => undefined);
			return client;
		});
		const cluster = new RedisCluster(servers, clients);
		await cluster.#join();
		return cluster;
	}

	/** Another client, as a service has. */
	client(options: ClusterOptions = {}): Cluster {
		const nodes = this.#servers.map(({ port }) => ({ host: "127.0.0.1", port }));
		const client = new Cluster(nodes, { clusterRetryStrategy: () => 100, ...options });
		client.on("error", () => undefined);
		return client;
	}

	/** The URL of one node. */
	get url(): string {
		return this.#servers[0]?.url ?? "";
	}

	/** Something for the braces of a key, so that the first master has it. */
	async prefixOfFirst(start: string): Promise<string> {
		for (let i = 0; ; i++) {
			const slot = Number(await this.#first.call("CLUSTER", "KEYSLOT", `{${start}${i}}`));
			if (slot < Math.floor(SLOTS / MASTERS)) return `${start}${i}`;
		}
	}

	/**
	 * Kills the first master, once its replica has what it has: Redis itself waits for no replica.
	 * @returns once that has taken its place
	 */
	async failOver(): Promise<void> {
		await this.#first.incr(`{${await this.prefixOfFirst("copied-")}}`);
		await this.#first.wait(1, 5_000);
		await this.#servers[0]?.kill();
		const replica = this.#clients[MASTERS] as Redis;
		await until(async () => /^role:master/m.test(await replica.info("replication")));
	}

	/** On one of its masters. */
	async configure(name: string, value: string): Promise<void> {
		await this.#first.config("SET", name, value);
	}

	async dispose(): Promise<void> {
		for (const client of this.#clients) client.disconnect();
		await Promise.all(this.#servers.map((server) => server.dispose()));
	}

	get #first(): Redis {
		return this.#clients[0] as Redis;
	}

	async #join(): Promise<void> {
		const each = Math.floor(SLOTS / MASTERS);
		for (const [i, client] of this.#clients.entries()) {
			await client.call("CLUSTER", "SET-CONFIG-EPOCH", i + 1);
			const last = i === MASTERS - 1 ? SLOTS - 1 : (i + 1) * each - 1;
			if (i < MASTERS) await client.call("CLUSTER", "ADDSLOTSRANGE", i * each, last);
		}
		for (const server of this.#servers.slice(1)) {
			await this.#first.call(
				"CLUSTER",
				"MEET",
				"127.0.0.1",
				server.port,
				server.portOf("bus"),
			);
		}
		await this.#everywhere((told) => told.includes("cluster_known_nodes:4"));
		const id = String(await this.#first.call("CLUSTER", "MYID"));
		await this.#clients[MASTERS]?.call("CLUSTER", "REPLICATE", id);
		await this.#everywhere((told) => told.includes("cluster_state:ok"));
		await until(async () => {
			const told = await this.#clients[MASTERS]?.info("replication");
			return /^master_link_status:up/m.test(told ?? "");
		});
	}

	async #everywhere(holds: (told: string) => boolean): Promise<void> {
		await until(async () => {
			const told = await Promise.all(this.#clients.map((one) => one.call("CLUSTER", "INFO")));
			return told.every((text) => holds(String(text)));
		});
	}
}
