import type { ServiceBroker } from "moleculer";

// Node finds no named exports in this package.
import channels from "@moleculer/channels";

/** What the adapters of `@moleculer/channels` have in common, as far as the hardened ones build on it. */
export interface StockAdapter {
	opts: Record<string, unknown>;
	broker: ServiceBroker;
	logger: ServiceBroker["logger"];
	serializer: { serialize(value: unknown): Buffer; deserialize(body: Buffer): unknown };
	init(broker: ServiceBroker, logger: ServiceBroker["logger"]): void;
	addPrefixTopic(name: string): string;
	parseMessageHeaders(raw: unknown): Record<string, unknown> | null;
}

export type StockClass = new (options?: object) => StockAdapter;

const stock = channels.Adapters as unknown as Record<
	"Redis" | "AMQP" | "Kafka" | "NATS",
	StockClass
>;

export const { Redis: StockRedis, AMQP: StockAmqp, Kafka: StockKafka, NATS: StockNats } = stock;
