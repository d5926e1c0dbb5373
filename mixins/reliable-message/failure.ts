import {
	type Failure,
	hasCode,
	isRecord,
	LottorError,
	messageOf,
	type RetryTimes,
	STACK_LIMIT,
} from "../../protocol/index.ts";

const MESSAGE_CHARS = 2_000;

/** How failures of one type of message are judged. */
export interface FailurePolicy {
	readonly policy: RetryTimes | undefined;
	readonly check: ((error: unknown) => boolean) | undefined;
}

/**
 * What of a thrown value is reported. `retryable` is the policy's `check`, else the error's own
 * `retryable`, else true; validation errors are not.
 */
export function toFailure(thrown: unknown, check?: FailurePolicy["check"]): Failure {
	const error = asError(thrown);
	const { type, code, name, stack } = error;
	return {
		code: [type, code, name].map(asCode).find((text) => text !== "") ?? "Error",
		message: messageOf(error).slice(0, MESSAGE_CHARS),
		...(typeof stack === "string" && { stack: stack.slice(0, STACK_LIMIT) }),
		retryable: isRetryable(error, thrown, check),
	};
}

function asCode(value: unknown): string {
	return typeof value === "string" || typeof value === "number" ? String(value) : "";
}

function asError(thrown: unknown): Record<string, unknown> {
	// By shape: errors of another realm (node:sqlite's under a test runner) are not instanceof Error.
	if (isRecord(thrown) && typeof thrown["message"] === "string") return thrown;
	const text = `A handler threw what is no Error: ${describe(thrown)}`;
	return new LottorError("LOTTOR_HANDLER_FAILED", text) as unknown as Record<string, unknown>;
}

function isRetryable(
	error: Record<string, unknown>,
	thrown: unknown,
	check: FailurePolicy["check"],
): boolean {
	if (check) {
		try {
			return check(thrown);
		} catch {
			return true;
		}
	}
	if (error["name"] === "ValidationError" || error["type"] === "VALIDATION_ERROR") return false;
	if (hasCode(error, "LOTTOR_INVALID_PAYLOAD")) return false;
	return typeof error["retryable"] === "boolean" ? error["retryable"] : true;
}

function describe(thrown: unknown): string {
	try {
		return typeof thrown === "string" ? thrown : (JSON.stringify(thrown) ?? String(thrown));
	} catch {
		return typeof thrown;
	}
}
