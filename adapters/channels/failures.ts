import { LottorError, messageOf } from "../../protocol/index.ts";

/** It is certain that the broker did not get the message. */
export function unavailable(what: string, cause?: unknown): LottorError {
	// kafkajs says what is wrong with a topic only there.
	const { errors } = (cause ?? {}) as { errors?: unknown };
	const causes = Array.isArray(errors) ? errors : [cause];
	const why = cause === undefined ? what : `${what}: ${causes.map(messageOf).join("; ")}`;
	return new LottorError("LOTTOR_CHANNEL_UNAVAILABLE", why, {}, cause);
}

/** The broker refuses the message for its size, however often it is sent. */
export function tooLarge(channel: string, limits: string, cause: unknown): LottorError {
	return new LottorError(
		"LOTTOR_PAYLOAD_TOO_LARGE",
		`'${channel}' takes no message of this size: raise ${limits}, or make the payload smaller, and send it again`,
		{ channel },
		cause,
	);
}

/** The broker may have got the message and has not confirmed it. */
export function unconfirmed(what: string, cause?: unknown): LottorError {
	return new LottorError("LOTTOR_CHANNEL_UNCONFIRMED", what, {}, cause);
}

/** Loads a client library. @throws with what to do where it is missing */
export async function load<T>(name: string, importing: () => Promise<T>): Promise<T> {
	try {
		return await importing();
	} catch (error) {
		if ((error as { code?: unknown }).code !== "ERR_MODULE_NOT_FOUND") throw error;
		throw new LottorError(
			"LOTTOR_INVALID_OPTIONS",
			`The package ${name} is missing: install it with "npm install ${name}"`,
			{},
			error,
		);
	}
}

const LONGEST_TEXT = 1_000;

/** Headers that tell in the dead-letter queue what happened. */
export function errorHeaders(error: unknown, now: number): Record<string, string> {
	const thrown = (typeof error === "object" && error !== null ? error : {}) as {
		name?: unknown;
		code?: unknown;
		type?: unknown;
	};
	const headers: Record<string, string> = {
		"x-error-message": printable(messageOf(error)),
		"x-error-timestamp": String(now),
	};
	for (const name of ["name", "code", "type"] as const) {
		const value = thrown[name];
		if (typeof value === "string" || typeof value === "number") {
			headers[`x-error-${name}`] = printable(String(value));
		}
	}
	return headers;
}

/** Brokers differ in what a header may hold; this fits all. */
function printable(text: string): string {
	return text.replace(/[^\x20-\x7e]+/g, " ").slice(0, LONGEST_TEXT);
}
