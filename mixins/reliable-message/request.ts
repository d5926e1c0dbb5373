import {
	type CallContext,
	encodePayload,
	isRecord,
	LottorError,
	messageOf,
	type PrepareMessage,
	type Special,
	toMs,
} from "../../protocol/index.ts";
import type { AnyContext } from "./core.ts";
import type { TransactionOptions } from "./types.ts";

const MOST_MESSAGES = 1_000;
const GROUP_BYTES = 8 * 1_024 * 1_024;
/** Longest name: target, type, key. */
const NAME_CHARS = 255;
/** Most bytes of the caller's meta that travel with a group: they have to fit into a broker's headers. */
const META_BYTES = 16 * 1_024;

const MESSAGE_FIELDS = new Set([
	"target",
	"type",
	"payload",
	"delay",
	"maxAttempts",
	"orderingKey",
	"deliver",
]);
const OPTION_FIELDS = new Set(["idempotencyKey", "checkAfter", "timeout"]);

/** A transaction's options after validation, in milliseconds. */
export interface TransactionSettings {
	readonly idempotencyKey?: string;
	readonly checkAfter?: number;
	readonly timeout: number;
}

/**
 * Checks the messages of a transaction and turns them into what prepare carries.
 *
 * @param maxPayload bytes
 * @param specials what the broker's serializer can carry besides JSON
 * @throws LOTTOR_INVALID_REQUEST, LOTTOR_INVALID_PAYLOAD, LOTTOR_PAYLOAD_TOO_LARGE,
 *   LOTTOR_TOO_MANY_MESSAGES; `data.field` names the place, e.g. `messages[1].target`
 */
export function readMessages(
	messages: unknown,
	maxPayload: number,
	specials: ReadonlySet<Special>,
): PrepareMessage[] {
	if (!Array.isArray(messages)) throw invalid("messages", "must be an array");
	if (messages.length === 0) throw invalid("messages", "must have at least one message");
	if (messages.length > MOST_MESSAGES) {
		throw new LottorError(
			"LOTTOR_TOO_MANY_MESSAGES",
			`A group has at most ${MOST_MESSAGES} messages, got ${messages.length}`,
			{ field: "messages", limit: MOST_MESSAGES },
		);
	}
	let total = 0;
	return messages.map((message: unknown, index) => {
		const field = `messages[${index}]`;
		const read = readMessage(message, field, specials);
		const bytes = Buffer.byteLength(read.content);
		if (bytes > maxPayload) throw tooLarge(`${field}.payload`, bytes, maxPayload);
		total += bytes;
		if (total > GROUP_BYTES) throw tooLarge("messages", total, GROUP_BYTES);
		return read;
	});
}

/**
 * Checks the options of a transaction.
 *
 * @param workTimeout the mixin's own, in milliseconds
 * @throws LOTTOR_INVALID_REQUEST that names the field
 */
export function readTransactionOptions(
	options: TransactionOptions,
	workTimeout: number,
): TransactionSettings {
	const given: unknown = options;
	if (!isRecord(given)) throw invalid("options", "must be an object");
	refuseUnknown(given, OPTION_FIELDS, "options");
	const { idempotencyKey, checkAfter, timeout } = given;
	return {
		...(idempotencyKey !== undefined && {
			idempotencyKey: name(idempotencyKey, "options.idempotencyKey"),
		}),
		...(checkAfter !== undefined && { checkAfter: time(checkAfter, "options.checkAfter") }),
		timeout: timeout === undefined ? workTimeout : time(timeout, "options.timeout"),
	};
}

/** @throws LOTTOR_INVALID_REQUEST unless it is a Context, null or undefined */
export function checkContext(ctx: unknown): void {
	if (ctx === null || ctx === undefined) return;
	if (!isRecord(ctx) || !isRecord(ctx["meta"])) {
		throw invalid("ctx", "must be a Moleculer Context, or null");
	}
}

/**
 * What of the caller's context reaches the handlers, as JSON text. Meta entries that are not plain
 * JSON, or too large together, stay behind.
 */
export function callContext(ctx: AnyContext | null, source: string): string | undefined {
	if (!ctx) return undefined;
	const meta: Record<string, unknown> = {};
	let bytes = 0;
	for (const [key, value] of Object.entries(ctx.meta)) {
		const text = value === undefined ? undefined : jsonOrNothing(value);
		if (text === undefined) continue;
		const size = Buffer.byteLength(text) + Buffer.byteLength(key);
		if (bytes + size > META_BYTES) continue;
		bytes += size;
		meta[key] = value;
	}
	const context: CallContext = {
		...(ctx.requestID !== null && { requestID: ctx.requestID }),
		...(ctx.tracing !== null && { tracing: ctx.tracing }),
		parentID: ctx.span?.id ?? ctx.id,
		level: ctx.level,
		caller: ctx.service?.fullName ?? source,
		meta,
	};
	return JSON.stringify(context);
}

/** @returns a LOTTOR_INVALID_REQUEST error that names the field */
export function invalid(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_INVALID_REQUEST", `${field} ${problem}`, { field });
}

function readMessage(
	message: unknown,
	field: string,
	specials: ReadonlySet<Special>,
): PrepareMessage {
	if (!isRecord(message)) throw invalid(field, "must be an object");
	refuseUnknown(message, MESSAGE_FIELDS, field);
	const { target, type, payload, delay, maxAttempts, orderingKey, deliver } = message;
	if (deliver !== undefined && deliver !== "action" && deliver !== "channel") {
		throw invalid(`${field}.deliver`, 'must be "action" or "channel" where it is given');
	}
	return {
		target: name(target, `${field}.target`),
		type: name(type, `${field}.type`),
		content: encodePayload(payload, `${field}.payload`, specials),
		...(delay !== undefined && { delay: time(delay, `${field}.delay`, 0) }),
		...(maxAttempts !== undefined && {
			maxAttempts: attempts(maxAttempts, `${field}.maxAttempts`),
		}),
		...(orderingKey !== undefined && {
			orderingKey: name(orderingKey, `${field}.orderingKey`),
		}),
		...(deliver !== undefined && { deliver }),
	};
}

function refuseUnknown(object: object, known: ReadonlySet<string>, field: string): void {
	for (const key of Object.keys(object)) {
		if (!known.has(key)) throw invalid(`${field}.${key}`, "is not known");
	}
}

function name(value: unknown, field: string): string {
	if (typeof value !== "string" || value === "" || value.length > NAME_CHARS) {
		throw invalid(field, `must be a text of 1 to ${NAME_CHARS} characters`);
	}
	return value;
}

function attempts(value: unknown, field: string): number {
	if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) {
		throw invalid(field, "must be a whole number from 1");
	}
	return value;
}

function time(value: unknown, field: string, least = 1): number {
	let ms: number;
	try {
		ms = toMs(value as number | string, field);
	} catch (error) {
		throw invalid(field, `is no duration: ${messageOf(error)}`);
	}
	if (ms < least) throw invalid(field, `must be at least ${least} ms`);
	return ms;
}

function tooLarge(field: string, bytes: number, limit: number): LottorError {
	return new LottorError(
		"LOTTOR_PAYLOAD_TOO_LARGE",
		`${field} has ${bytes} bytes, and at most ${limit} are allowed`,
		{ field, bytes, limit },
	);
}

/** @returns the value's JSON text, or undefined when it is not plain JSON */
function jsonOrNothing(value: unknown): string | undefined {
	try {
		return encodePayload(value, "value");
	} catch {
		return undefined;
	}
}
