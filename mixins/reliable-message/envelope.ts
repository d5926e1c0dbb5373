import {
	type Envelope,
	type ErrorCode,
	HIGHEST_COUNT,
	isRecord,
	isWhole,
	type ItemError,
	LottorError,
	parseMessageId,
	WIRE_VERSION,
} from "../../protocol/index.ts";

const TEXTS = ["id", "group", "source", "target", "type", "receipt", "coordinator"] as const;
const LEAST = { attempt: 1, revision: 0, createdAt: 0, sentAt: 0 } as const;
const LONGEST_NAME = 255;
/** Milliseconds since 1970 that a Date can be made of. */
const LATEST = 8.64e15;

/**
 * Checks what came as an envelope.
 *
 * @param names the names that this service answers for (R4)
 * @param storeId the participant store behind it (R3)
 * @throws LOTTOR_INVALID_REQUEST that names the field, LOTTOR_STORE_MISMATCH
 */
export function readEnvelope(item: unknown, names: ReadonlySet<string>, storeId: string): Envelope {
	if (!isRecord(item)) throw wrong("envelope", "must be an object");
	if (item["v"] !== WIRE_VERSION) throw wrong("v", `must be ${WIRE_VERSION}`);
	for (const field of TEXTS) {
		const value = item[field];
		if (typeof value !== "string" || value === "" || value.length > LONGEST_NAME) {
			throw wrong(field, `must be a text of 1 to ${LONGEST_NAME} characters`);
		}
	}
	for (const [field, least] of Object.entries(LEAST)) {
		const most = field === "attempt" || field === "revision" ? HIGHEST_COUNT : LATEST;
		if (!isWhole(item[field], least, most)) {
			throw wrong(field, `must be a whole number from ${least} to ${most}`);
		}
	}
	if (typeof item["content"] !== "string") throw wrong("content", "must be JSON text");
	const envelope = item as unknown as Envelope;
	if (parseMessageId(envelope.id)?.group !== envelope.group) {
		throw wrong("id", "must be a message id of the group");
	}
	if (!names.has(envelope.target)) {
		throw wrong("target", `is ${envelope.target}, which this service does not answer for`);
	}
	if (envelope.storeId !== storeId) {
		throw new LottorError(
			"LOTTOR_STORE_MISMATCH",
			`Message ${envelope.id} is bound to store ${envelope.storeId}, and this service has ${storeId}`,
			{ message: envelope.id },
		);
	}
	return envelope;
}

/** @returns the error as it is answered for one item of a batch */
export function itemError(error: LottorError): ItemError {
	const data = isRecord(error.data) ? error.data : {};
	return { code: error.type, message: error.message, retryable: error.retryable, data };
}

/** @returns the answer's error of this code */
export function refusal(code: ErrorCode, message: string): ItemError {
	return itemError(new LottorError(code, message));
}

function wrong(field: string, problem: string): LottorError {
	return new LottorError("LOTTOR_INVALID_REQUEST", `${field} ${problem}`, { field });
}
