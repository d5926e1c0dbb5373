import { randomBytes } from "node:crypto";

import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { type Cluster, type ClusterOptions, Redis } from "ioredis";

import { redisParticipantStore } from "../../adapters/participant-store/redis.ts";
import { END_OUTCOME } from "../../adapters/participant-store/redis/scripts.ts";
import { redis } from "../../scripts/servers/redis.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { RedisCluster } from "../support/redis-cluster.ts";
import { withServer } from "../support/servers.ts";
import { type ParticipantBench, participantStoreSuite } from "./participant-store.ts";

withServer(redis, "participant store redis", (url) => {
	participantStoreSuite("redis", {
		guarantee: "recorded",
		shared: true,
		faults: true,
		races: 1_000,
		lateness: 2,
		make: () => bench(url),
	});
});

withServer(redis, "participant store redis cluster", () => {
	describe("on Redis Cluster", () => {
		let cluster: RedisCluster;
		let clients: Cluster[];
		beforeAll(async () => {
			cluster = await RedisCluster.start();
			clients = [];
		}, 60_000);
		afterAll(async () => {
			for (const client of clients) client.disconnect();
			await cluster.dispose();
		});

		const newClient = (options: ClusterOptions = {}) => {
			const client = cluster.client(options);
			clients.push(client);
			return client;
		};

		participantStoreSuite("redis cluster", {
			guarantee: "recorded",
			shared: true,
			// What stands after a connection broke is up to the single server's suite.
			faults: false,
			races: 1_000,
			lateness: 2,
			async make() {
				const prefix = `test-${randomBytes(8).toString("hex")}`;
				const plain = newClient();
				return {
					store: (clock) =>
						redisParticipantStore(newClient(), {
							prefix,
							clock,
							now: () => clock.now(),
						}),
					write: async (_tx, key) => void (await plain.rpush(`${prefix}:business`, key)),
					rows: () => plain.lrange(`${prefix}:business`, 0, -1),
					failCommit: () => undefined,
					close: async () => undefined,
				};
			},
		});

		const owner = { nodeID: "n", instanceID: "i" };
		const request = (id: string) => ({ id, owner, coordinator: "c", timeout: 60_000 });

		it("LOTTOR_STORE_UNUSABLE for the URL of one of its nodes, which has part of the keys only", async () => {
			await expect(redisParticipantStore(cluster.url).open()).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("Cluster"),
			});
		});

		it("LOTTOR_STORE_UNUSABLE when one of its masters is unsafe, also for a client that is not connected yet", async () => {
			await cluster.configure("appendonly", "no");
			const late = newClient({ lazyConnect: true });
			await expect(redisParticipantStore(late).open()).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("appendonly"),
			});
			await cluster.configure("appendonly", "yes");
		});

		it("R19 has the time of the node that has the rows", async () => {
			const store = redisParticipantStore(newClient(), { prefix: "timed" });
			await store.open();
			await store.run(request("timed"), async () => undefined);
			expect(await store.unconfirmed(60_000, 10)).toEqual([]);
			expect(await store.unconfirmed(-60_000, 10)).toHaveLength(1);
			await store.close();
		});

		it("a master that is killed: at most LOTTOR_STORE_UNAVAILABLE, then on by itself with its replica", async () => {
			const prefix = await cluster.prefixOfFirst("failover-");
			const store = redisParticipantStore(newClient(), { prefix });
			const { storeId } = await store.open();
			const kept: string[] = [];
			for (let i = 0; i < 20; i++) {
				const id = `before-${i}`;
				await store.run(request(id), async () => undefined);
				kept.push(id);
			}
			let promoted = false;
			const failing = cluster.failOver().then(() => (promoted = true));
			const refused: unknown[] = [];
			for (let i = 0; !promoted || kept.length === 20; i++) {
				const id = `after-${i}`;
				const result = await store.run(request(id), async () => undefined);
				if (result.state === "committed") kept.push(id);
				else refused.push((result as { error?: { type?: unknown } }).error?.type);
			}
			await failing;
			// The client itself may wait until there is a master again.
			expect(refused.filter((type) => type !== "LOTTOR_STORE_UNAVAILABLE")).toEqual([]);

			expect(await store.open()).toMatchObject({ storeId });
			const stands = await store.resolve(kept);
			expect(stands).toEqual(kept.map(() => ({ result: "committed" })));
			await store.close();
		}, 60_000);
	});
});

async function bench(server: string): Promise<ParticipantBench> {
	const prefix = `test-${randomBytes(8).toString("hex")}`;
	const { hostname, port } = new URL(server);
	const proxy = await FaultProxy.start({ host: hostname, port: Number(port) });
	const url = new URL(server);
	url.port = String(proxy.port);
	url.searchParams.set("prefix", prefix);
	const plain = new Redis(server);

	return {
		store: (clock) => redisParticipantStore(url.href, { clock, now: () => clock.now() }),
		write: async (_tx, key) => void (await plain.rpush(`${prefix}:business`, key)),
		rows: () => plain.lrange(`${prefix}:business`, 0, -1),
		failCommit: (when) => void proxy.cutAt(END_OUTCOME.sha, when),
		close: async () => {
			await plain.del(...(await plain.keys(`*${prefix}*`)), "none");
			plain.disconnect();
			await proxy.close();
		},
	};
}
