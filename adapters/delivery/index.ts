import { invalidOptions } from "../../protocol/index.ts";
import type { Delivery } from "./contract.ts";
import { directDelivery } from "./direct.ts";

export type * from "./contract.ts";
export { directDelivery };

/** `"direct"`, or an instance of a delivery adapter. */
export type DeliverySpec = string | Delivery;

/**
 * Finds a delivery adapter.
 *
 * @param spec see {@link DeliverySpec}
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function resolveDelivery(spec: DeliverySpec, field: string): Delivery {
	if (spec === "direct") return directDelivery();
	if (typeof spec === "object" && typeof spec.send === "function") return spec;
	throw invalidOptions(field, 'must be "direct" or an instance of a delivery adapter');
}
