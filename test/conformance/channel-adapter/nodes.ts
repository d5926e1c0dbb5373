import channels from "@moleculer/channels";
import { type BrokerOptions, ServiceBroker, type ServiceSchema } from "moleculer";

import { type ChannelAdapter, channelAdapter } from "../../../adapters/channels/index.ts";
import type { ChannelOptions, PublishOptions } from "../../../adapters/channels/index.ts";

/** A node with channels. */
export interface ChannelNode {
	readonly broker: ServiceBroker;
	readonly adapter: ChannelAdapter;
	readonly send: (channel: string, payload: unknown, options?: PublishOptions) => Promise<void>;
}

type Sending = ServiceBroker & {
	sendToChannel(channel: string, payload: unknown, options?: PublishOptions): Promise<void>;
};

/** Makes a node that is not started. */
export function makeNode(
	spec: { nodeID: string; namespace: string } & BrokerOptions,
	adapter: ChannelAdapter,
	services: readonly ServiceSchema[] = [],
): ChannelNode {
	const broker = new ServiceBroker({
		logger: false,
		metrics: true,
		...spec,
		middlewares: [channels.Middleware({ adapter } as never)],
	});
	for (const schema of services) broker.createService(schema);
	return {
		broker,
		adapter,
		// A broker that is stopped has lost the method's `this`.
		send: (channel, payload, options) =>
			(broker as Sending).sendToChannel(channel, payload, options),
	};
}

/** A service that consumes one channel. */
export function consumer(
	name: string,
	channel: string,
	handler: (payload: never, raw: unknown) => unknown,
	options: object = {},
): ServiceSchema {
	return { name, channels: { [channel]: { ...options, handler } } } as ServiceSchema;
}

export function hardened(url: string, options: ChannelOptions = {}): ChannelAdapter {
	return channelAdapter(url, { maxInFlight: 10, retryDelay: 20, ...options });
}
