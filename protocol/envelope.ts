import { createHash } from "node:crypto";
import { LottorError, messageOf } from "./errors.ts";
import { parseMessageId } from "./ids.ts";
import type { Signer } from "./signatures.ts";
import { type CallContext, type Envelope, WIRE_VERSION } from "./wire.ts";

/** An envelope without its payload: what travels as headers over a broker. */
export type EnvelopeHead = Omit<Envelope, "content">;

/** Headers of a message over a broker; `docs/delivery.md` has what each means. */
const NAMES = {
	v: "lottor-version",
	id: "lottor-id",
	group: "lottor-group",
	source: "lottor-source",
	target: "lottor-target",
	type: "lottor-type",
	attempt: "lottor-attempt",
	revision: "lottor-revision",
	receipt: "lottor-receipt",
	coordinator: "lottor-coordinator",
	storeId: "lottor-store",
	createdAt: "lottor-created",
	sentAt: "lottor-sent",
	orderingKey: "lottor-key",
	context: "lottor-context",
} as const satisfies Record<keyof EnvelopeHead, string>;

const CONTENT_TYPE = "content-type";
const TRACE_PARENT = "traceparent";
const SIGNATURE = "lottor-signature";

/** Content types by the class of Moleculer's serializer. */
const CONTENT_TYPES: Readonly<Record<string, string>> = {
	JSONSerializer: "application/json",
	JSONExtSerializer: "application/json;variant=moleculer-ext",
	MsgPackSerializer: "application/msgpack",
	NotepackSerializer: "application/msgpack;variant=notepack",
	CborSerializer: "application/cbor",
};

/** @returns the content type of what a Moleculer serializer writes */
export function contentTypeOf(serializer: object): string {
	const name = serializer.constructor.name;
	return CONTENT_TYPES[name] ?? `application/octet-stream;variant=${escape(name)}`;
}

/**
 * Writes the envelope's headers: ASCII text only, since no more can be relied upon in all brokers.
 * Other characters are percent-encoded, as in URLs.
 */
export function toHeaders(head: EnvelopeHead, contentType: string): Record<string, string> {
	const headers: Record<string, string> = {};
	for (const [field, name] of Object.entries(NAMES)) {
		const value = head[field as keyof EnvelopeHead];
		if (value !== null) headers[name] = escape(String(value));
	}
	headers[CONTENT_TYPE] = contentType;
	const trace = traceParent(head.context);
	if (trace !== undefined) headers[TRACE_PARENT] = trace;
	return headers;
}

/**
 * Reads the envelope's headers, strictly: a message that does not say all of it is not Lottor's.
 *
 * @param headers as the broker's client gives them: texts or buffers
 * @param contentType what this node's serializer reads
 * @throws LOTTOR_ENVELOPE_INVALID whose `data.field` names the header
 */
export function fromHeaders(headers: unknown, contentType: string): EnvelopeHead {
	if (typeof headers !== "object" || headers === null) throw invalid("headers", "are missing");
	const version = text(headers, "v");
	if (version !== String(WIRE_VERSION)) {
		throw invalid(NAMES.v, `is ${version}, and this is version ${WIRE_VERSION}`);
	}
	const written = raw(headers, CONTENT_TYPE);
	if (written !== contentType) {
		throw invalid(
			CONTENT_TYPE,
			`is ${written ?? "missing"}, and this broker's serializer reads ${contentType}`,
		);
	}
	const head: EnvelopeHead = {
		v: WIRE_VERSION,
		id: text(headers, "id"),
		group: text(headers, "group"),
		source: text(headers, "source"),
		target: text(headers, "target"),
		type: text(headers, "type"),
		attempt: whole(headers, "attempt", 1),
		revision: whole(headers, "revision", 0),
		receipt: text(headers, "receipt"),
		coordinator: text(headers, "coordinator"),
		storeId: textOrNull(headers, "storeId"),
		createdAt: whole(headers, "createdAt", 0),
		sentAt: whole(headers, "sentAt", 0),
		orderingKey: textOrNull(headers, "orderingKey"),
		context: text(headers, "context"),
	};
	if (parseMessageId(head.id)?.group !== head.group) {
		throw invalid(NAMES.id, "must be a message id of the group");
	}
	return head;
}

/**
 * Signs a message, where the cluster has a secret (see `SignedCalls`): everything that a consumer
 * believes, which is all headers but `traceparent`, and the body.
 *
 * @param headers of {@link toHeaders}
 * @param body as it is sent
 */
export function signed(
	headers: Readonly<Record<string, string>>,
	body: Uint8Array,
	signer: Signer,
): Record<string, string> {
	return { ...headers, [SIGNATURE]: signer.sign("envelope", ...partsOf(headers), body) };
}

/**
 * Checks the signature of a message that came over a broker, to which others may have written.
 *
 * @param headers as the broker's client gives them: texts or buffers
 * @param body as it came
 * @throws LOTTOR_SIGNATURE_INVALID
 */
export function checkSignature(headers: object, body: Uint8Array, signer: Signer): void {
	const given = raw(headers, SIGNATURE);
	if (signer.fits(signer.sign("envelope", ...partsOf(headers), body), given)) return;
	throw new LottorError(
		"LOTTOR_SIGNATURE_INVALID",
		`A message came with ${given === undefined ? "no" : "a wrong"} signature`,
		{ field: SIGNATURE },
	);
}

function partsOf(headers: object): string[] {
	return [...Object.values(NAMES), CONTENT_TYPE].map((name) => raw(headers, name) ?? "");
}

/** The W3C trace context of the caller, from Moleculer's ids. */
function traceParent(context: string): string | undefined {
	let said: CallContext;
	try {
		said = JSON.parse(context) as CallContext;
	} catch {
		return undefined;
	}
	const { requestID, parentID, tracing } = said;
	if (requestID === undefined) return undefined;
	const span = hex(parentID ?? requestID, 16);
	return `00-${hex(requestID, 32)}-${span}-${tracing === false ? "00" : "01"}`;
}

/** The id's own hex digits where it has enough, as a UUID has; else digits that follow from it. */
function hex(id: string, digits: number): string {
	const own = id.replaceAll("-", "").toLowerCase();
	const usable =
		/^[0-9a-f]+$/.test(own) && own.length >= digits && /[1-9a-f]/.test(own.slice(0, digits));
	return (usable ? own : createHash("sha256").update(id).digest("hex")).slice(0, digits);
}

/** Percent-encodes what is not visible ASCII, and the percent sign. */
function escape(value: string): string {
	return value.replace(/[^\x21-\x24\x26-\x7e]+/g, (part) =>
		[...Buffer.from(part)]
			.map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`)
			.join(""),
	);
}

function raw(headers: object, name: string): string | undefined {
	const value: unknown = Object.hasOwn(headers, name) ? Reflect.get(headers, name) : undefined;
	if (typeof value === "string") return value;
	if (value instanceof Uint8Array) return Buffer.from(value).toString("utf8");
	return undefined;
}

function textOrNull(headers: object, field: keyof EnvelopeHead): string | null {
	const name = NAMES[field];
	if (!Object.hasOwn(headers, name)) return null;
	const value = raw(headers, name);
	if (value === undefined || value === "") throw invalid(name, "must be a text");
	try {
		return decodeURIComponent(value);
	} catch (error) {
		throw invalid(name, `is not percent-encoded: ${messageOf(error)}`);
	}
}

function text(headers: object, field: keyof EnvelopeHead): string {
	const value = textOrNull(headers, field);
	if (value === null) throw invalid(NAMES[field], "is missing");
	return value;
}

function whole(headers: object, field: keyof EnvelopeHead, least: number): number {
	const value = text(headers, field);
	const number = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
	if (!Number.isSafeInteger(number) || number < least) {
		throw invalid(NAMES[field], `must be a whole number from ${least}`);
	}
	return number;
}

function invalid(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_ENVELOPE_INVALID", `Header ${field} ${problem}`, { field });
}
