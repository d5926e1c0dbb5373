import type { Service, ServiceBroker } from "moleculer";
import type { Envelope, ItemError, Owner, PlainRoute, Report } from "../../protocol/index.ts";

/** A living instance of a target, as the coordinator sees it. */
export interface TargetInstance extends Owner {
	/** Its service's full name; another than the target's where that is an alias (R4). */
	readonly service: string;
	/** Null for a service without the mixin. */
	readonly storeId: string | null;
	/** Whether it takes messages from a broker. */
	readonly receives: boolean;
	/** Whether it has a store of its own, apart from the other instances' (R3). */
	readonly partitioned: boolean;
}

/** What the coordinator lends to a delivery adapter. */
export interface DeliveryHost {
	readonly broker: ServiceBroker;
	readonly logger: ServiceBroker["logger"];
	/** Living instances of the target, bound to this store where one is given. */
	instances(target: string, storeId: string | null): readonly TargetInstance[];
	/** Milliseconds a call to a consumer, or the broker's confirmation, may take. */
	readonly callTimeout: number;
	/** To be called each time that `available` has changed. */
	availabilityChanged(): void;
}

/** An envelope and whether its target is plain (R25). */
export interface Outgoing {
	readonly envelope: Envelope;
	readonly plain: PlainRoute | false;
}

/** How messages reach their targets. */
export interface Delivery {
	/** For logs and `lottor.coordinators`: what and where, without secrets. */
	readonly description: string;
	/** Whether an accepted message outlives the processes: then `unseen` does not mean lost (R24). */
	readonly durable: boolean;
	/** Largest envelope in bytes (R29). */
	readonly maxBytes: number;
	/** Whether sending makes sense now; else messages wait in the coordinator store. */
	readonly available: boolean;
	/** @returns why the broker can't have a channel of this target, where that is so */
	targetProblem?(target: string): string | undefined;
	/** Does not wait for a broker that can't be reached: `available` tells. */
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
	/**
	 * Messages that the broker still holds for a target, unacknowledged ones included; undefined:
	 * can't tell.
	 * @param storeId the participant store that they are bound to
	 */
	backlog(target: string, storeId: string | null): Promise<number | undefined>;
	/**
	 * Takes messages for a consumer; missing where they come by calls. Does not wait for a broker that
	 * can't be reached, and takes up again what ended by itself.
	 */
	receive?(receiver: Receiver): Promise<Reception>;
}

/** A consumer that takes its messages from a broker. */
export interface Receiver {
	readonly service: Service;
	/** The names that it answers for (R4). */
	readonly targets: readonly string[];
	/** Its participant store where instances have stores of their own (R3); else null. */
	readonly storeId: string | null;
	/** Most messages that it holds at once, unacknowledged, of each target. */
	readonly maxInFlight: number;
	/**
	 * Handles one message. Resolves once it may be acknowledged (R33), or as `keep` when it must not
	 * be: the consumer stops, and it is for somebody else.
	 * @param repeated whether it may have been handed to a consumer before (R23). @default false
	 * @throws LOTTOR_ENVELOPE_INVALID: it is none of Lottor's, and goes to the dead-letter queue
	 */
	handle(envelope: Envelope, repeated?: boolean): Promise<"done" | "keep">;
}

/** Messages being taken from a broker. */
export interface Reception {
	/**
	 * Takes no new ones from now on. Resolves once those that were taken are handled, and acknowledged
	 * or given back. Never rejects.
	 */
	stop(): Promise<void>;
}

export type SendResult =
	/** Handed over; `instance`: to whom, where known; `report`: the end, where it came at once. */
	| { readonly result: "accepted"; readonly instance: Owner | null; readonly report?: Report }
	/** Certainly not sent: back to pending, no attempt used. */
	| {
			readonly result: "refused";
			readonly error: ItemError;
			/** Milliseconds to the next try. @default 1000 */
			readonly delay?: number;
	  }
	/** May have been sent: treated as sent. */
	| {
			readonly result: "unknown";
			readonly instance: Owner | null;
			readonly error: ItemError;
			/** The instance answered, with what is no answer. */
			readonly garbled?: boolean;
			/** Its node has left; whether it ran before, nobody knows. */
			readonly ended?: boolean;
	  };
