import type { Context, Service } from "moleculer";
import type { TxBase } from "../../adapters/participant-store/contract.ts";
import type { MessageDefinition, MessageMap, MessagesSchema, Reliable } from "./types.ts";

type Handler<Params, Tx extends TxBase> = (this: Service, ctx: Context<Params>, tx: Tx) => unknown;

/** Handlers of one service, by type: `Receives` has the payload of each type. */
export type MessageHandlers<Receives extends object, Tx extends TxBase = TxBase> = {
	readonly [Type in keyof Receives & string]:
		MessageDefinition<Receives[Type], Tx> | Handler<Receives[Type], Tx>;
};

/**
 * Types the schema's `messages`: each type of `Receives` must have a handler, no other may, and
 * `ctx.params` is its payload. At run time it hands back what it gets.
 *
 * `messages: defineMessages<Sends["auth"], SqliteTx>({ "grant-role": async (ctx, tx) => { … } })`
 */
export function defineMessages<Receives extends object, Tx extends TxBase = TxBase>(
	messages: MessageHandlers<Receives, Tx>,
): MessagesSchema {
	return messages;
}

/**
 * The `reliable` of a service with the mixin, typed by what it sends: a wrong target, type or payload is a compile
 * error. `reliableOf<Sends, SqliteTx>(this).transaction(ctx, messages, async (tx) => { … })`
 */
export function reliableOf<Sends extends MessageMap, Tx extends TxBase = TxBase>(
	service: Service,
): Reliable<Tx, Sends> {
	return Reflect.get(service, "reliable") as Reliable<Tx, Sends>;
}
