import type { Context, Service, ServiceSchema } from "moleculer";
import {
	type AskAnswer,
	type CheckAnswer,
	type ConsumeAnswer,
	type FenceAnswer,
	HIGHEST_COUNT,
	isRecord,
	isWhole,
	itemsOf,
	LottorError,
	parseMessageId,
	PARTICIPANT_ACTIONS,
	type ParticipantStatus,
} from "../../protocol/index.ts";
import { exemptFromHooks } from "./hooks.ts";
import { mergedMessages } from "./messages.ts";
import { readOptions } from "./options.ts";
import { Participant } from "./participant.ts";
import type { MessagesSchema, ReliableMessageOptions } from "./types.ts";

export { defineMessages, reliableOf } from "./typed.ts";
export type { MessageHandlers } from "./typed.ts";
export type {
	IncomingMessage,
	MessageDefinition,
	MessageMap,
	MessagesSchema,
	OutgoingMessage,
	Reliable,
	ReliableMessageOptions,
	ResolvedAs,
	RetryPolicy,
	TransactionOptions,
	UnresolvedGroup,
} from "./types.ts";

declare module "moleculer" {
	// The parameters must be those of Moleculer's own declaration.
	// eslint-disable-next-line @typescript-eslint/no-unused-vars
	interface ServiceSchema<TSettings, TMethods, TVars, TThis> {
		/** Handlers of reliable messages, by type; needs the mixin `ReliableMessage`. */
		messages?: MessagesSchema;
	}
}

type BatchContext = Context<unknown>;

/** Nothing that a broker sets for all actions may repeat, refuse or cache these. */
const ACTION = {
	visibility: "public",
	cache: false,
	bulkhead: { enabled: false },
	circuitBreaker: { enabled: false },
	retryPolicy: { enabled: false },
} as const;

/**
 * Makes a service a producer of reliable messages and, with a `messages` section in its schema,
 * their consumer. The service gets `this.reliable` (see {@link Reliable}; typed by {@link reliableOf}
 * or by a service type of one's own) and the actions `reliable.consume`, `.check`, `.ask`, `.fence` and `.status`, which only coordinators call.
 *
 * @param options at least `store`; see {@link ReliableMessageOptions} for the defaults
 * @returns a mixin for the schema's `mixins`
 * @throws LOTTOR_INVALID_OPTIONS whose `data.field` names the option, e.g.
 *   `ReliableMessage.prepareTimeout`. Starting the service throws LOTTOR_STORE_UNUSABLE or
 *   LOTTOR_STORE_UNAVAILABLE where the store can't be opened
 */
export function ReliableMessage(options: ReliableMessageOptions): Partial<ServiceSchema> {
	const settings = readOptions(options);
	// Not on the schema: Moleculer deep-clones it, and sends what it holds to other nodes.
	const participants = new WeakMap<Service, Participant>();
	const participantOf = (service: Service): Participant => {
		const participant = participants.get(service);
		if (!participant) throw new LottorError("LOTTOR_STOPPING", "The service is not running");
		return participant;
	};

	async function started(this: Service): Promise<void> {
		this.metadata["lottor"] = await participantOf(this).start();
	}

	function stopped(this: Service): Promise<void> {
		return participantOf(this).stop();
	}

	function receive(this: Service): Promise<void> {
		return participantOf(this).receive();
	}

	return {
		actions: {
			[PARTICIPANT_ACTIONS.consume]: {
				...ACTION,
				async handler(this: Service, ctx: BatchContext): Promise<ConsumeAnswer[]> {
					const { consumer, reports } = participantOf(this).answering();
					const items = itemsOf(ctx.params, 0);
					reports.acknowledged(readSettled(ctx.params));
					return consumer.consume(items);
				},
			},
			[PARTICIPANT_ACTIONS.check]: {
				...ACTION,
				async handler(this: Service, ctx: BatchContext): Promise<CheckAnswer[]> {
					return participantOf(this).answering().answers.check(itemsOf(ctx.params));
				},
			},
			[PARTICIPANT_ACTIONS.ask]: {
				...ACTION,
				async handler(this: Service, ctx: BatchContext): Promise<AskAnswer[]> {
					return participantOf(this).answering().answers.ask(itemsOf(ctx.params));
				},
			},
			[PARTICIPANT_ACTIONS.fence]: {
				...ACTION,
				async handler(this: Service, ctx: BatchContext): Promise<FenceAnswer[]> {
					return participantOf(this).answering().answers.fence(itemsOf(ctx.params));
				},
			},
			[PARTICIPANT_ACTIONS.status]: {
				...ACTION,
				async handler(this: Service, ctx: BatchContext): Promise<ParticipantStatus[]> {
					return itemsOf(ctx.params).map(() => participantOf(this).status());
				},
			},
		},

		merged(this: Service, schema: ServiceSchema) {
			const messages = mergedMessages(this.originalSchema);
			if (Object.keys(messages).length > 0) schema.messages = messages;
			nameActions(schema);
			exemptFromHooks(schema);
			startAfterMixins(schema, this.originalSchema, started);
			stopFirst(schema, stopped);
			schema.started = [schema.started ?? [], receive].flat();
		},

		created(this: Service) {
			const participant = new Participant(this, settings);
			participants.set(this, participant);
			Object.assign(this, { reliable: participant.reliable });
		},

		started,

		stopped,
	} as Partial<ServiceSchema>;
}

/** Coordinators call `<full name>.reliable.consume`, also where the service drops its prefix. */
function nameActions(schema: ServiceSchema): void {
	const { $noServiceNamePrefix, $noVersionPrefix } = schema.settings ?? {};
	if ($noServiceNamePrefix !== true) return;
	const version = $noVersionPrefix === true ? undefined : schema.version;
	const prefix =
		version === undefined ? "" : `${typeof version === "number" ? "v" : ""}${version}.`;
	for (const name of Object.values(PARTICIPANT_ACTIONS)) {
		const action = schema.actions?.[name];
		if (isRecord(action)) action["name"] = `${prefix}${schema.name}.${name}`;
	}
}

/**
 * Moleculer starts the last of the mixins first. This one may need what another one connects, as
 * moleculer-db does, and the service's own `started` may need this one.
 */
function startAfterMixins(
	schema: ServiceSchema,
	original: ServiceSchema | undefined,
	started: (this: Service) => Promise<void>,
): void {
	if (!Array.isArray(schema.started)) return;
	const own: unknown[] = [original?.started].flat();
	const others = schema.started.filter((handler) => handler !== started);
	schema.started = [
		...others.filter((handler) => !own.includes(handler)),
		started,
		...others.filter((handler) => own.includes(handler)),
	];
}

/**
 * Moleculer stops mixins last. This one must stop first: handlers that still run, and what is left
 * to tell, need the connections that the service's own `stopped` closes.
 */
function stopFirst(schema: ServiceSchema, stopped: (this: Service) => Promise<void>): void {
	if (!Array.isArray(schema.stopped)) return;
	const others = schema.stopped.filter((handler) => handler !== stopped);
	schema.stopped = [...others, stopped];
}

/** Reports that came with an answer to the coordinator, and are stored by now. */
function readSettled(params: unknown): { id: string; attempt: number }[] {
	const settled = isRecord(params) ? params["settled"] : undefined;
	if (!Array.isArray(settled)) return [];
	return settled.filter(
		(one: unknown): one is { id: string; attempt: number } =>
			isRecord(one) &&
			parseMessageId(one["id"]) !== undefined &&
			isWhole(one["attempt"], 1, HIGHEST_COUNT),
	);
}
