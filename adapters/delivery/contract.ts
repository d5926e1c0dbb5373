import type { ServiceBroker } from "moleculer";
import type { Envelope, ItemError, Owner, Report } from "../../protocol/index.ts";

/** A living instance of a target, as the coordinator sees it. */
export interface TargetInstance extends Owner {
	/** Its service's full name; another than the target's where that is an alias (R4). */
	readonly service: string;
	/** Null for a service without the mixin. */
	readonly storeId: string | null;
}

/** What the coordinator lends to a delivery adapter. */
export interface DeliveryHost {
	readonly broker: ServiceBroker;
	readonly logger: ServiceBroker["logger"];
	/** Living instances of the target, bound to this store where one is given. */
	instances(target: string, storeId: string | null): readonly TargetInstance[];
	/** Milliseconds a call to a consumer may take. */
	readonly callTimeout: number;
}

/** An envelope and whether its target is plain (R25). */
export interface Outgoing {
	readonly envelope: Envelope;
	readonly plain: boolean;
}

/** How messages reach their targets. */
export interface Delivery {
	/** For logs and `lottor.coordinators`: what and where, without secrets. */
	readonly description: string;
	/** Whether an accepted message outlives the processes: then `unseen` does not mean lost (R24). */
	readonly durable: boolean;
	/** Largest envelope in bytes (R29). */
	readonly maxBytes: number;
	start(host: DeliveryHost): Promise<void>;
	stop(): Promise<void>;
	/**
	 * Sends. Never rejects; the results come one by one, in any order, each as soon as it is known.
	 * @param settled called once for each item, with its place; resolves with whether the report
	 *   that came with the result is stored
	 */
	send(
		items: readonly Outgoing[],
		settled: (place: number, result: SendResult) => Promise<boolean>,
	): Promise<void>;
	/** Messages that the broker still holds for a target, unacknowledged ones included; undefined: can't tell. */
	backlog(target: string): Promise<number | undefined>;
}

export type SendResult =
	/** Handed over; `instance`: to whom, where known; `report`: the end, where it came at once. */
	| { readonly result: "accepted"; readonly instance: Owner | null; readonly report?: Report }
	/** Certainly not sent: back to pending, no attempt used. */
	| { readonly result: "refused"; readonly error: ItemError }
	/** May have been sent: treated as sent. */
	| { readonly result: "unknown"; readonly instance: Owner | null; readonly error: ItemError };
