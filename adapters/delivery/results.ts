import { Errors } from "moleculer";
import { hasCode, type ItemError, messageOf, type Owner } from "../../protocol/index.ts";
import type { SendResult } from "./contract.ts";

/** A call that threw says nothing of the handler (R28): only what surely never left is refused. */
export function notReported(error: unknown, instance: Owner | null): SendResult {
	const surely =
		error instanceof Errors.ServiceNotFoundError ||
		error instanceof Errors.ServiceNotAvailableError ||
		hasCode(error, "LOTTOR_STOPPING");
	return surely
		? { result: "refused", error: itemError(error) }
		: { result: "unknown", instance, error: itemError(error) };
}

/** @returns the error as the answer for one item */
export function itemError(error: unknown): ItemError {
	const { type, code } = (error ?? {}) as { type?: unknown; code?: unknown };
	const name = typeof type === "string" ? type : code;
	return {
		code: typeof name === "string" ? name : "ERROR",
		message: messageOf(error),
		retryable: true,
	};
}
