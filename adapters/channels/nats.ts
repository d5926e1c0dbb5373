import type { DeliverPolicy } from "nats";

import type { ChannelAdapter, ChannelOptions } from "./contract.ts";
import { type ChannelAdapterClass, harden } from "./harden.ts";
import { NatsDriver, type NatsSettings } from "./nats/driver.ts";
import { StockNats } from "./stock.ts";

const ALL = "all" as DeliverPolicy;
/** Time after which a consumer that gives no sign of life loses its messages to another one. */
const ACK_WAIT_MS = 10_000;

/**
 * NATS JetStream. Options are those of the stock adapter, or a URL with several hosts separated by
 * commas: a stream for each channel, a durable pull consumer for each group.
 */
export const NatsChannelAdapter: ChannelAdapterClass = harden(StockNats, {
	options(given) {
		const { nats = {}, ...options }: ChannelOptions & NatsSettings =
			typeof given === "string" ? { nats: { url: given } } : given;
		const { url, connectionOptions, consumerOptions, ...rest } = nats;
		return {
			...options,
			nats: {
				...rest,
				connectionOptions: { ...(url && ofUrl(url)), ...connectionOptions },
				consumerOptions: {
					...consumerOptions,
					// The stock adapter would begin with what comes after the first subscription.
					config: {
						deliver_policy: ALL,
						ack_wait: ACK_WAIT_MS * 1e6,
						...consumerOptions?.config,
					},
				},
			},
		};
	},
	describe(options) {
		const { servers = "localhost:4222" } =
			(options as ChannelOptions & NatsSettings).nats?.connectionOptions ?? {};
		return `NATS at ${[servers].flat().join(", ")}`;
	},
	driver: (host) => new NatsDriver(host),
});

export type NatsChannelAdapter = ChannelAdapter;

function ofUrl(url: string) {
	const urls = url.split(",").map((one) => new URL(one.includes("://") ? one : `nats://${one}`));
	const { username = "", password = "" } = urls.find((one) => one.username !== "") ?? {};
	const login =
		password === "" && username !== ""
			? { token: decodeURIComponent(username) }
			: { user: decodeURIComponent(username), pass: decodeURIComponent(password) };
	return {
		servers: urls.map(({ host }) => host),
		...(username !== "" && login),
		...(urls.some(({ protocol }) => protocol === "tls:") && { tls: {} }),
	};
}
