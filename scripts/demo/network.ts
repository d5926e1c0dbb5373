import type { BrokerOptions } from "moleculer";

import { resolveDiscoverer } from "../../adapters/discoverer/index.ts";
import type { LoopbackTcp } from "../../adapters/transporter/loopback-tcp.ts";

/** How the demo's processes find and reach each other; as JSON, handed to each process. */
export interface Network {
	/** TCP on this machine where it is left out. */
	readonly transporter?: string | undefined;
	readonly discoverer?: string | undefined;
	/** What delivers messages: the option `delivery`. */
	readonly delivery: string;
	/** Keeps this run apart from others that use the same servers. */
	readonly namespace: string;
}

/** The environment variable that has it; not an argument, which everybody on the machine can read. */
export const NETWORK = "LOTTOR_DEMO_NETWORK";

/** @param loopback the transporter where there is no other */
export function overNetwork(
	{ transporter, discoverer, namespace }: Network,
	loopback: LoopbackTcp,
): Pick<
	BrokerOptions,
	"namespace" | "transporter" | "registry" | "heartbeatInterval" | "heartbeatTimeout"
> {
	if (transporter === undefined) return { namespace, transporter: loopback };
	return {
		namespace,
		// Moleculer's types do not know transporters by URL.
		transporter: transporter as never,
		// A killed process shall not keep the one who watches waiting for long.
		heartbeatInterval: 1,
		heartbeatTimeout: 3,
		registry: discoverer === undefined ? {} : { discoverer: resolveDiscoverer(discoverer) },
	};
}
