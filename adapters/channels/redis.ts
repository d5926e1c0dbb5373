import type { ChannelAdapter, ChannelOptions } from "./contract.ts";
import { type ChannelAdapterClass, harden } from "./harden.ts";
import type { RedisConnection } from "./redis/client.ts";
import { RedisDriver } from "./redis/driver.ts";
import { StockRedis } from "./stock.ts";

/** Time after which a consumer that gives no sign of life loses its messages to another one. */
const MIN_IDLE_MS = 10_000;
const CLAIM_MS = 1_000;

interface RedisSettings extends ChannelOptions {
	readonly redis?: Record<string, unknown>;
}

/**
 * Redis Streams. Options are those of the stock adapter, or a URL; `redis.consumerOptions.minIdleTime`
 * is the time after which the messages of a dead consumer go to a living one (10 s by default; what a
 * living one handles is never taken from it, however long that takes).
 */
export const RedisChannelAdapter: ChannelAdapterClass = harden(StockRedis, {
	options(given) {
		const { redis, ...options }: RedisSettings =
			typeof given === "string" ? { redis: { url: given } } : given;
		const own: Record<string, unknown> =
			typeof redis === "string" ? { url: redis } : { ...redis };
		return {
			...options,
			redis: {
				...own,
				consumerOptions: {
					startID: "0",
					minIdleTime: MIN_IDLE_MS,
					claimInterval: CLAIM_MS,
					...(own["consumerOptions"] as object | undefined),
				},
			},
		};
	},
	describe(options) {
		const { url, host, port, cluster } = options["redis"] as RedisConnection;
		if (cluster) return "Redis Cluster";
		if (typeof url === "string") return `Redis at ${new URL(url).host}`;
		return `Redis at ${host ?? "localhost"}:${port ?? 6_379}`;
	},
	driver: (host) => new RedisDriver(host),
});

export type RedisChannelAdapter = ChannelAdapter;
