import type { ChannelOptions } from "../../../adapters/channels/index.ts";
import type { DeliverySpec } from "../../../adapters/delivery/index.ts";
import { SUBJECTS as BROKERS, type Subject as Broker } from "../channel-adapter/subjects.ts";

/** A way of delivery under test. */
export interface DeliverySubject {
	readonly name: string;
	/** Undefined for direct calls. */
	readonly broker: Broker | undefined;
}

export const SUBJECTS: readonly DeliverySubject[] = [
	{ name: "direct", broker: undefined },
	...BROKERS.map((broker) => ({ name: broker.name, broker })),
];

/** The key of an adapter's options, by the server's name. */
const KEYS: Readonly<Record<string, string>> = { rabbitmq: "amqp" };

/** @returns the option `delivery`, which makes the adapter notice soon that a consumer is gone */
export function specOf(
	broker: Broker | undefined,
	url: string,
	over?: ChannelOptions,
): DeliverySpec {
	if (!broker) return "direct";
	const key = KEYS[broker.kind.name] ?? broker.kind.name;
	const own = { ...(broker.hasty[key] as object), ...(over?.[key] as object | undefined), url };
	return { [key]: own };
}
