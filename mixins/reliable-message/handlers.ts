import type { Context } from "moleculer";
import type { TxBase } from "../../adapters/participant-store/contract.ts";
import {
	decodePayload,
	type Envelope,
	LottorError,
	readCallContext,
} from "../../protocol/index.ts";
import type { Core, HandlerScope } from "./core.ts";
import type { MessageType } from "./messages.ts";
import type { IncomingMessage } from "./types.ts";

/**
 * Runs the handler of one message inside the inbox's transaction. Everything that can be wrong
 * with the message is found here, behind the inbox: a copy of a consumed message must be known as
 * consumed, even when the service would refuse it today.
 *
 * @throws whatever the handler throws; LOTTOR_HANDLER_MISSING, LOTTOR_INVALID_PAYLOAD,
 *   ValidationError
 */
export async function runHandler(
	core: Core,
	type: MessageType | undefined,
	envelope: Envelope,
	tx: TxBase,
): Promise<void> {
	const { service, scopes, broker } = core;
	if (!type) {
		throw new LottorError(
			"LOTTOR_HANDLER_MISSING",
			`${service.fullName} has no handler for messages of type "${envelope.type}"`,
			{ message: envelope.id },
		);
	}
	const params = readPayload(envelope);
	await type.validate(params);
	const ctx = makeContext(core, envelope, params, type.timeout);
	const scope: HandlerScope = { tx, open: true };
	scopes.set(ctx, scope);
	const span = broker.isTracingEnabled()
		? ctx.startSpan(`message '${envelope.target}.${envelope.type}'`, {
				type: "custom",
				service,
				tags: { message: envelope.id, group: envelope.group, attempt: envelope.attempt },
			})
		: undefined;
	try {
		await type.handler.call(service, ctx, tx);
	} catch (error) {
		if (error instanceof Error) span?.setError(error);
		throw error;
	} finally {
		scope.open = false;
		if (span) ctx.finishSpan(span);
	}
}

function readPayload(envelope: Envelope): unknown {
	try {
		return decodePayload(envelope.content);
	} catch (error) {
		throw new LottorError(
			"LOTTOR_INVALID_PAYLOAD",
			`The payload of message ${envelope.id} is no JSON text`,
			{ message: envelope.id, field: "content" },
			error,
		);
	}
}

function makeContext(core: Core, envelope: Envelope, params: unknown, timeout: number): Context {
	const { broker, service } = core;
	const { requestID, parentID, level, tracing, caller, meta } = readCallContext(envelope.context);
	const ctx = new broker.ContextFactory(broker);
	ctx.service = service;
	ctx.setParams(params, false);
	ctx.meta = meta ?? {};
	ctx.options = { timeout, meta: ctx.meta };
	// Calls out of the handler get what is left of its time.
	ctx.startHrTime = process.hrtime();
	ctx.requestID = requestID ?? ctx.requestID;
	ctx.parentID = parentID ?? null;
	ctx.level = (level ?? 0) + 1;
	ctx.tracing = tracing ?? null;
	ctx.caller = caller ?? envelope.source;
	const message: IncomingMessage = {
		id: envelope.id,
		group: envelope.group,
		type: envelope.type,
		source: envelope.source,
		attempt: envelope.attempt,
		revision: envelope.revision,
		createdAt: envelope.createdAt,
		orderingKey: envelope.orderingKey,
	};
	ctx.locals["message"] = Object.freeze(message);
	return ctx;
}
