import type { ServiceBroker } from "moleculer";

const TRANSACTIONS = "moleculer.lottor.transaction.total";
const MESSAGES = "moleculer.lottor.message.total";

/** How a transaction ended, for the metric. */
export type TransactionResult =
	"committed" | "rolledBack" | "notPrepared" | "fenced" | "unknown" | "conflict";

/** The mixin's counters in Moleculer's metrics. */
export interface Metrics {
	/** One transaction of a service has ended. */
	transaction(service: string, result: TransactionResult): void;
	/** A handler has ended for one message. */
	message(service: string, type: string, result: string): void;
}

/**
 * Registers the counters, unless another service of the broker did: registering twice would set
 * them to zero.
 */
export function makeMetrics(broker: ServiceBroker): Metrics {
	if (!broker.isMetricsEnabled()) {
		return { transaction: () => undefined, message: () => undefined };
	}
	const { metrics } = broker;
	const counters = [
		{
			name: TRANSACTIONS,
			labelNames: ["service", "result"],
			description: "Transactions ended",
		},
		{
			name: MESSAGES,
			labelNames: ["service", "type", "result"],
			description: "Messages handled",
		},
	];
	for (const counter of counters) {
		if (!metrics.hasMetric(counter.name)) metrics.register({ type: "counter", ...counter });
	}
	return {
		transaction: (service, result) => {
			metrics.increment(TRANSACTIONS, { service, result });
		},
		message: (service, type, result) => {
			metrics.increment(MESSAGES, { service, type, result });
		},
	};
}
