import { type CallingOptions, Errors } from "moleculer";
import {
	type CallContext,
	decodePayload,
	type Envelope,
	type Failure,
	isRecord,
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
	const action = `${envelope.target}.${envelope.type}`;
	let report: Report;
	try {
		const params = decodePayload(envelope.content) as Record<string, unknown>;
		await broker.call(action, params, options);
		report = { ...base, result: "consumed" };
	} catch (error) {
		if (isAboutCall(error, action)) {
			if (!(error instanceof Errors.RequestRejectedError)) return notReported(error, null);
			return { result: "unknown", instance: null, error: itemError(error), ended: true };
		}
		report = { ...base, result: "failed", error: failureOf(error) };
	}
	return { result: "accepted", instance: null, report };
}

/**
 * Whether the call itself did not come to its end. What the action's own calls threw is of the same
 * classes, restored from node to node: it is about another action, or another node than the one that
 * says so, and is the action's failure.
 */
function isAboutCall(error: unknown, action: string): boolean {
	const { data, nodeID } = (error ?? {}) as { data?: unknown; nodeID?: unknown };
	const about = isRecord(data) ? data : {};
	if (about["action"] !== action) return false;
	if (
		error instanceof Errors.ServiceNotFoundError ||
		error instanceof Errors.ServiceNotAvailableError
	) {
		return nodeID === undefined || about["nodeID"] === nodeID;
	}
	return (
		error instanceof Errors.RequestTimeoutError ||
		error instanceof Errors.RequestRejectedError ||
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
