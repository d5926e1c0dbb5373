import { randomBytes } from "node:crypto";

import { Redis } from "ioredis";

import { redisParticipantStore } from "../../adapters/participant-store/redis.ts";
import { END_OUTCOME } from "../../adapters/participant-store/redis/scripts.ts";
import { redis } from "../../scripts/servers/redis.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
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
