import type { Context, Service } from "moleculer";
import type { DeliverySpec } from "../../adapters/delivery/index.ts";
import type { ParticipantStore, TxBase } from "../../adapters/participant-store/contract.ts";
import type { Clock, Duration, Outcome, Random } from "../../protocol/index.ts";

/** Options of {@link ReliableMessage}. Durations are milliseconds or text such as `"10s"`. */
export interface ReliableMessageOptions {
	/**
	 * Where outcomes and inbox live, best the service's own business database: a URL
	 * (`sqlite:./user.db`, `mongodb://host/user`, `postgres://host/user`, `redis://host`, …), the
	 * service's own connection (a MongoClient, a Knex instance, an ioredis client), `"adapter"` for
	 * that of its moleculer-db adapter, or a store. See docs/stores.md.
	 */
	readonly store: string | object;
	/**
	 * Where messages come from: `"direct"`, by calls of the coordinator; or the broker over which the
	 * coordinators deliver, as a URL (`amqp://`, `kafka://`, `nats://`, `redis://`), options, or an
	 * instance. Calls are taken in any case. @default "direct"
	 */
	readonly delivery?: DeliverySpec;
	/** Messages of one name that are taken from the broker at once, not acknowledged yet. @default 128 */
	readonly maxInFlight?: number;
	/** Former names of this service whose messages it takes, too (R4). @default [] */
	readonly aliases?: readonly string[];
	/** Instances of this service may have stores of their own (R3). @default false */
	readonly partitioned?: boolean;
	/** One deadline over all tries of prepare (R6). @default "5s" */
	readonly prepareTimeout?: Duration;
	/** Time limit of local work (R10). @default "60s" */
	readonly workTimeout?: Duration;
	/** Time limit of a handler, unless its type sets another (R35). @default "30s" */
	readonly handlerTimeout?: Duration;
	/** Handlers of this service that run at once, unless a type sets its own. @default 32 */
	readonly concurrency?: number;
	/** Messages that wait for a handler; above it, sends are refused and come again. @default 1000 */
	readonly maxQueued?: number;
	/** Largest payload in bytes (R29). @default 524288 */
	readonly maxPayload?: number;
	/** How long acknowledged outcomes and inbox rows are kept, and fences (R34). @default "7d" */
	readonly keep?: Duration;
	/** How long a graceful stop waits for running handlers and works. @default "10s" */
	readonly stopTimeout?: Duration;
	/** For tests. @default the machine's */
	readonly clock?: Clock;
	/** For tests. @default the machine's */
	readonly random?: Random;
}

/**
 * The messages that a service may send, by target and type; made by the user to have a wrong
 * target, type or payload refused by the compiler:
 * `interface Sends { auth: { "grant-role": { user: string; role: string } } }`
 */
export type MessageMap = object;

/** One message as the producer gives it to `transaction`. */
export type OutgoingMessage<Map extends MessageMap = Record<string, Record<string, unknown>>> = {
	[Target in keyof Map & string]: {
		[Type in keyof Map[Target] & string]: {
			/** Full name of the target service. */
			readonly target: Target;
			readonly type: Type;
			/** JSON; dates, buffers and big integers too, where the broker's serializer can carry them. */
			readonly payload: Map[Target][Type];
			/** Time between commit and first delivery. @default 0 */
			readonly delay?: Duration;
			/** Limit of attempts, over every policy. */
			readonly maxAttempts?: number;
			/** Messages of one key prefer one partition or instance. A hint. */
			readonly orderingKey?: string;
			/**
			 * For a target without the mixin (R25). `"action"`: its action `<target>.<type>` is called;
			 * `"channel"`: it consumes the broker's channel `tx-<target>`, and reports by `lottor.report`.
			 */
			readonly deliver?: "action" | "channel";
		};
	}[keyof Map[Target] & string];
}[keyof Map & string];

/** Options of one transaction. */
export interface TransactionOptions {
	/** A repeated call with the same key makes no second group: LOTTOR_DUPLICATE_REQUEST. */
	readonly idempotencyKey?: string;
	/** Time from prepare to the first check-back. @default the coordinator's `checkAfter` */
	readonly checkAfter?: Duration;
	/** Time limit of the work. @default the mixin's `workTimeout` */
	readonly timeout?: Duration;
}

/** What the mixin puts on the service as `this.reliable`. */
export interface Reliable<
	Tx extends TxBase = TxBase,
	Map extends MessageMap = Record<string, Record<string, unknown>>,
> {
	/**
	 * Runs `work` as the local transaction that the messages are tied to: prepares the group, runs
	 * the work once, then commits or rolls back.
	 *
	 * @param ctx the caller's context; its meta, requestID and tracing reach the handlers. Inside a
	 *   message handler, pass its ctx: the work then joins the handler's transaction (R11)
	 * @param messages 1 to 1,000 messages
	 * @param work the local transaction; `tx.group` is the group's id
	 * @returns what `work` returned, once it is committed locally; the coordinator is told in the background
	 * @throws whatever `work` threw (then nothing is delivered); LOTTOR_NO_COORDINATOR,
	 *   LOTTOR_PREPARE_FAILED, LOTTOR_STOPPING (work did not run); LOTTOR_FENCED,
	 *   LOTTOR_DUPLICATE_REQUEST; LOTTOR_WORK_TIMEOUT; LOTTOR_OUTCOME_UNKNOWN and
	 *   LOTTOR_OUTCOME_CONFLICT (the work may have, or has, taken effect);
	 *   LOTTOR_INVALID_REQUEST, LOTTOR_INVALID_PAYLOAD, LOTTOR_PAYLOAD_TOO_LARGE,
	 *   LOTTOR_TOO_MANY_MESSAGES, LOTTOR_UNKNOWN_TARGET.
	 *   `error.data.group` is the group's id where the error is an object that can carry it
	 */
	transaction<T>(
		this: void,
		ctx: Context<unknown, object> | null,
		messages: readonly OutgoingMessage<Map>[],
		work: (tx: Tx) => Promise<T> | T,
		options?: TransactionOptions,
	): Promise<T>;
	/** Resolves once every commit, rollback and report known here is acknowledged. */
	flushed(this: void): Promise<void>;
	/** The participant store. */
	readonly store: ParticipantStore<Tx>;
}

/** Retries of a message type, in the words of Moleculer's own `retryPolicy`. */
export interface RetryPolicy {
	/** @default true; false: the first failure is final */
	readonly enabled?: boolean;
	/** Tries after the first. @default 11 */
	readonly retries?: number;
	/** Before the first retry. @default "1s" */
	readonly delay?: Duration;
	/** @default 2 */
	readonly factor?: number;
	/** @default "5m" */
	readonly maxDelay?: Duration;
	/** Whether an error is worth a retry. @default its `retryable`, if it has one; else true, but not for validation errors */
	readonly check?: (error: unknown) => boolean;
}

/** What a handler finds in `ctx.locals.message`. */
export interface IncomingMessage {
	readonly id: string;
	readonly group: string;
	readonly type: string;
	readonly source: string;
	/** From 1. */
	readonly attempt: number;
	readonly revision: number;
	readonly createdAt: number;
	readonly orderingKey: string | null;
}

/** One type of message in the schema's `messages`. */
export interface MessageDefinition<Params = unknown, Tx extends TxBase = TxBase> {
	/** fastest-validator schema of the payload, as in actions. */
	readonly params?: Record<string, unknown>;
	readonly retryPolicy?: RetryPolicy;
	/** @default the mixin's `handlerTimeout` */
	readonly timeout?: Duration;
	/** Handlers of this type that run at once. @default the mixin's `concurrency` */
	readonly concurrency?: number;
	/** `ctx.params` is the payload; everything durable must go through `tx`. */
	handler(this: Service, ctx: Context<Params>, tx: Tx): unknown;
}

/** The schema's `messages`: a handler, or a definition, by type. */
export type MessagesSchema = Record<
	string,
	MessageDefinition<never, never> | MessageDefinition["handler"]
>;

/** What `resolveTransaction`, the service's own method, is told of a group. */
export interface UnresolvedGroup {
	readonly id: string;
	readonly createdAt: number;
	readonly messages: readonly {
		readonly target: string;
		readonly type: string;
		readonly payload: unknown;
	}[];
}

/** What `resolveTransaction` answers. */
export type ResolvedAs = Outcome | "unknown";
