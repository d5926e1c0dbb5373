import { AmqpDriver, type AmqpSettings } from "./amqp/driver.ts";
import type { ChannelAdapter, ChannelOptions } from "./contract.ts";
import { type ChannelAdapterClass, harden } from "./harden.ts";
import { StockAmqp } from "./stock.ts";

/**
 * RabbitMQ. Options are those of the stock adapter, or a URL, several of them separated by `;`: an
 * exchange for each channel, a queue `<group>.<channel>` for each group.
 */
export const AmqpChannelAdapter: ChannelAdapterClass = harden(StockAmqp, {
	options: (given) => (typeof given === "string" ? { amqp: { url: given } } : given),
	describe(options) {
		const { url = "amqp://localhost" } = (options as ChannelOptions & AmqpSettings).amqp ?? {};
		const urls = [url].flat().flatMap((one) => one.split(";"));
		return `RabbitMQ at ${urls.map((one) => new URL(one.trim()).host).join(", ")}`;
	},
	driver: (host) => new AmqpDriver(host),
});

export type AmqpChannelAdapter = ChannelAdapter;
