import { connect } from "node:net";

import type { DeliverySpec } from "../../../adapters/delivery/index.ts";
import { SQLITE } from "./words.ts";

const HOST = "127.0.0.1";

/**
 * @param delivery `direct`, or the broker's URL
 * @param port by which the broker is reached; none: its own
 */
export function deliveryOver(delivery: string, port: number | undefined): DeliverySpec {
	if (port === undefined) return delivery;
	if (!delivery.startsWith("kafka:")) return over(delivery, port);
	// The server tells its own address; every connection is led over the network all the same.
	const socketFactory = ({ onConnect }: { onConnect: () => void }) =>
		connect({ host: HOST, port }, onConnect);
	return { kafka: { url: delivery, socketFactory } };
}

/**
 * @param store `sqlite`, or the URL of the coordinators' store
 * @param port by which it is reached; none: its own
 */
export function storeOver(store: string, port: number | undefined): string {
	return port === undefined || store === SQLITE ? store : over(store, port);
}

function over(url: string, port: number): string {
	const led = new URL(url);
	led.port = String(port);
	return led.href;
}
