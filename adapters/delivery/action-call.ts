import { type CallingOptions, Errors } from "moleculer";
import {
	type CallContext,
	decodePayload,
	type Envelope,
	type Failure,
	messageOf,
	type Report,
	STACK_LIMIT,
} from "../../protocol/index.ts";
import type { DeliveryHost, SendResult } from "./contract.ts";
import { itemError, notReported } from "./results.ts";

/**
 * Delivers to a plain action, `<target>.<type>` (R25): the call's end is the report. The action finds
 * the message's id and attempt in `ctx.meta.lottor`. Never rejects.
 */
export async function callAction(
	{ broker, callTimeout }: Pick<DeliveryHost, "broker" | "callTimeout">,
	envelope: Envelope,
): Promise<SendResult> {
	const context = JSON.parse(envelope.context) as CallContext;
	const options: CallingOptions = {
		timeout: callTimeout,
		retries: 0,
		meta: { ...context.meta, lottor: { id: envelope.id, attempt: envelope.attempt } },
		...(context.requestID === undefined ? {} : { requestID: context.requestID }),
	};
	const base = {
		id: envelope.id,
		receipt: envelope.receipt,
		storeId: null,
		attempt: envelope.attempt,
		revision: envelope.revision,
	};
	let report: Report;
	try {
		const params = decodePayload(envelope.content) as Record<string, unknown>;
		await broker.call(`${envelope.target}.${envelope.type}`, params, options);
		report = { ...base, result: "consumed" };
	} catch (error) {
		if (error instanceof Errors.RequestRejectedError)
			return { result: "unknown", instance: null, error: itemError(error), ended: true };
		if (isTransport(error)) return notReported(error, null);
		report = { ...base, result: "failed", error: failureOf(error) };
	}
	return { result: "accepted", instance: null, report };
}

function isTransport(error: unknown): boolean {
	return (
		error instanceof Errors.ServiceNotFoundError ||
		error instanceof Errors.ServiceNotAvailableError ||
		error instanceof Errors.RequestTimeoutError ||
		error instanceof Errors.RequestSkippedError ||
		error instanceof Errors.QueueIsFullError
	);
}

function failureOf(error: unknown): Failure {
	const thrown = (typeof error === "object" && error !== null ? error : {}) as {
		type?: unknown;
		retryable?: unknown;
		stack?: unknown;
	};
	const invalid = error instanceof Errors.ValidationError;
	return {
		code: typeof thrown.type === "string" ? thrown.type : "ERROR",
		message: messageOf(error),
		retryable: !invalid && thrown.retryable !== false,
		...(typeof thrown.stack === "string" ? { stack: thrown.stack.slice(0, STACK_LIMIT) } : {}),
	};
}
