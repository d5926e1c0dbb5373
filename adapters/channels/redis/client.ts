import type { Cluster, ClusterNode, ClusterOptions, Redis, RedisOptions } from "ioredis";

import { load } from "../failures.ts";

/** A connection to Redis, or to a cluster of it. */
export type Client = Redis | Cluster;

const CONNECT_MS = 5_000;
const RECONNECT_MS = 1_000;

/** What `redis` in the adapter's options may have, beside ioredis' own options. */
export interface RedisConnection extends RedisOptions {
	readonly url?: string;
	readonly cluster?: {
		readonly nodes: ClusterNode[];
		readonly clusterOptions?: ClusterOptions;
	};
	readonly consumerOptions?: ConsumerOptions;
}

export interface ConsumerOptions {
	readonly startID: string;
	readonly minIdleTime: number;
	readonly claimInterval: number;
}

/**
 * Connects at the first try; later losses it mends by itself. Commands fail at once while there is no
 * connection, and are never sent twice.
 *
 * @param failed gets errors of the connection, once each
 */
export async function connectRedis(
	settings: RedisConnection,
	failed: (error: Error) => void,
): Promise<Client> {
	const ioredis = await load("ioredis", () => import("ioredis"));
	const { url, cluster, ...given } = settings;
	const options: RedisOptions = {
		connectTimeout: CONNECT_MS,
		keepAlive: CONNECT_MS,
		retryStrategy: (times) => Math.min(times * 100, RECONNECT_MS),
		...given,
		lazyConnect: true,
		enableOfflineQueue: false,
		maxRetriesPerRequest: 0,
	};
	let client: Client;
	if (cluster) {
		client = new ioredis.Cluster(cluster.nodes, {
			...cluster.clusterOptions,
			lazyConnect: true,
			enableOfflineQueue: false,
			redisOptions: { ...options, ...cluster.clusterOptions?.redisOptions },
		});
	} else {
		client = url === undefined ? new ioredis.Redis(options) : new ioredis.Redis(url, options);
	}
	let cause: Error | undefined;
	client.on("error", (error: Error) => {
		cause = error;
		failed(error);
	});
	try {
		await client.connect();
		return client;
	} catch (error) {
		client.disconnect();
		throw cause ?? error;
	}
}
