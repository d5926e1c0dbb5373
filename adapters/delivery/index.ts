import { channelDelivery, type ChannelSpec } from "./channels/index.ts";
import type { Delivery } from "./contract.ts";
import { directDelivery } from "./direct.ts";

export type { ChannelSpec } from "./channels/index.ts";
export type * from "./contract.ts";
export { channelDelivery, directDelivery };

/** `"direct"`, by calls; a message broker; or an instance of a delivery adapter. */
export type DeliverySpec = ChannelSpec | Delivery;

/**
 * Finds a delivery adapter.
 *
 * @param spec see {@link DeliverySpec}
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function resolveDelivery(spec: DeliverySpec, field: string): Delivery {
	if (spec === "direct") return directDelivery();
	return isDelivery(spec) ? spec : channelDelivery(spec, field);
}

function isDelivery(spec: unknown): spec is Delivery {
	return typeof spec === "object" && spec !== null && "send" in spec && "durable" in spec;
}
