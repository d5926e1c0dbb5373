import { Errors } from "moleculer";

import {
	ERRORS,
	type ErrorCode,
	type ItemAnswer,
	LottorError,
	messageOf,
} from "../../protocol/index.ts";
import type { Done } from "./api/index.ts";

/** An error as HTTP tells it. */
export interface Problem {
	readonly status: number;
	/** A LOTTOR_ code, or one of moleculer-web's for what is wrong with the request itself. */
	readonly code: string;
	readonly message: string;
	readonly data: Readonly<Record<string, unknown>>;
}

/** A request that HTTP itself refuses, before any coordinator is asked. */
export class RequestRefused extends Errors.MoleculerClientError {
	constructor(status: number, code: string, message: string, data: Record<string, unknown> = {}) {
		super(message, status, code, data);
	}
}

/** @returns a LOTTOR_INVALID_REQUEST that names the field */
export function invalidField(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_INVALID_REQUEST", `${field} ${problem}`, { field });
}

const NO_COORDINATOR: readonly unknown[] = [
	"SERVICE_NOT_FOUND",
	"SERVICE_NOT_AVAILABLE",
	"REQUEST_TIMEOUT",
	"REQUEST_REJECTED",
];

/** @returns what to answer for whatever was thrown */
export function problemOf(thrown: unknown): Problem {
	const error = (typeof thrown === "object" && thrown !== null ? thrown : {}) as {
		readonly type?: unknown;
		readonly code?: unknown;
		readonly status?: unknown;
		readonly expose?: unknown;
		readonly data?: unknown;
	};
	const data = dataOf(error.data);
	const message = messageOf(thrown);
	const type = typeof error.type === "string" ? error.type : "";
	if (isLottorCode(type)) return { status: ERRORS[type].status, code: type, message, data };
	if (NO_COORDINATOR.includes(type)) {
		const code: ErrorCode = "LOTTOR_NO_COORDINATOR";
		return {
			status: ERRORS[code].status,
			code,
			message: `No coordinator answers: ${message}`,
			data,
		};
	}
	if (type === "VALIDATION_ERROR") {
		return {
			status: 422,
			code: "LOTTOR_INVALID_REQUEST",
			message,
			data: { fields: error.data },
		};
	}
	// body-parser tells an HTTP status, Moleculer's errors carry it as their code.
	const status = error.status ?? error.code;
	if (typeof status === "number" && status >= 400 && status < 500) {
		return { status, code: BODY_CODES[type] ?? (type || "BAD_REQUEST"), message, data };
	}
	return {
		status: 500,
		code: "INTERNAL_ERROR",
		message: "Something failed; see the log.",
		data: {},
	};
}

const BODY_CODES: Readonly<Record<string, string>> = {
	"entity.parse.failed": "INVALID_REQUEST_BODY",
	"entity.too.large": "PAYLOAD_TOO_LARGE",
};

/** @returns the one answer of a call, for the caller; throws the error that it stands for */
export function doneOf(
	answers: readonly ItemAnswer[],
	what: "group" | "message",
	id: string,
): Done {
	const [answer] = answers;
	if (!answer) throw new Error(`The coordinator gave no answer for ${id}`);
	const error = errorOf(answer, what, id);
	if (error) throw error;
	const result = answer.result === "already" ? "already" : "ok";
	return { id, result, ...(answer.state !== undefined && { state: answer.state }) };
}

/** @returns the error that an item's answer stands for, or undefined when it went well */
export function errorOf(answer: ItemAnswer, what: "group" | "message", id: string) {
	if (answer.result === "ok" || answer.result === "already") return undefined;
	const about = { [what]: id, ...(answer.state === undefined ? {} : { state: answer.state }) };
	const { error } = answer;
	if (error && isLottorCode(error.code)) {
		return new LottorError(error.code, error.message, { ...error.data, ...about });
	}
	const code = codeOf(answer.result, what);
	return new LottorError(code, error?.message ?? ERRORS[code].summary, about);
}

function codeOf(result: ItemAnswer["result"], what: "group" | "message"): ErrorCode {
	if (result === "invalid") return "LOTTOR_INVALID_REQUEST";
	if (result !== "unknown") return "LOTTOR_ILLEGAL_TRANSITION";
	return what === "group" ? "LOTTOR_GROUP_UNKNOWN" : "LOTTOR_MESSAGE_UNKNOWN";
}

function isLottorCode(code: string): code is ErrorCode {
	return Object.hasOwn(ERRORS, code);
}

function dataOf(data: unknown): Record<string, unknown> {
	if (typeof data !== "object" || data === null || Array.isArray(data)) return {};
	return data as Record<string, unknown>;
}
