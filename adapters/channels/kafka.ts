import type { ChannelAdapter, ChannelOptions } from "./contract.ts";
import { type ChannelAdapterClass, harden } from "./harden.ts";
import { KafkaDriver, type KafkaSettings } from "./kafka/driver.ts";
import { StockKafka } from "./stock.ts";

/**
 * Kafka. Options are those of the stock adapter, or a URL `kafka://user:password@host:port,host:port`
 * with the parameters `ssl=true` and `sasl=plain`, `scram-sha-256` or `scram-sha-512`: a topic for
 * each channel, a consumer group `<group>:<channel>` for each group. `kafka.topicOptions` has
 * `numPartitions` (8 by default: so many instances of a service share a channel) and
 * `replicationFactor` (by default the server's) of topics that it makes.
 */
export const KafkaChannelAdapter: ChannelAdapterClass = harden(StockKafka, {
	options(given) {
		const { kafka = {}, ...options }: ChannelOptions & KafkaSettings =
			typeof given === "string" ? { kafka: { url: given } } : given;
		const { url, ...rest } = kafka;
		return { ...options, kafka: { ...(url && ofUrl(url)), ...rest } };
	},
	describe(options) {
		const { brokers = ["localhost:9092"] } =
			(options as ChannelOptions & KafkaSettings).kafka ?? {};
		return `Kafka at ${Array.isArray(brokers) ? brokers.join(", ") : "brokers found at run time"}`;
	},
	driver: (host) => new KafkaDriver(host),
});

export type KafkaChannelAdapter = ChannelAdapter;

function ofUrl(text: string): NonNullable<KafkaSettings["kafka"]> {
	// A URL has one host only; they are cut out first.
	const match = /^(kafka:\/\/(?:[^@/]*@)?)([^@/?]+)(.*)$/.exec(text);
	if (!match) throw new TypeError("The URL has no host");
	const [, scheme = "", hosts = "", rest = ""] = match;
	const url = new URL(`${scheme}host${rest}`);
	const mechanism = url.searchParams.get("sasl") ?? "plain";
	return {
		brokers: hosts.split(",").map((host) => (host.includes(":") ? host : `${host}:9092`)),
		...(url.searchParams.get("ssl") === "true" && { ssl: true }),
		...(url.username !== "" && {
			sasl: {
				mechanism: mechanism as "plain",
				username: decodeURIComponent(url.username),
				password: decodeURIComponent(url.password),
			},
		}),
	};
}
