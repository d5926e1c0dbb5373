import {
	type AskAnswer,
	type CheckAnswer,
	type Failure,
	type FenceAnswer,
	HIGHEST_COUNT,
	isRecord,
	isWhole,
	LONGEST_MS,
	LottorError,
	type MessageRecord,
	type ParticipantStatus,
	type RetryTimes,
	STACK_LIMIT,
} from "../../protocol/index.ts";

/** Longest text that is believed to be a reason. */
const LONGEST_WHY = 1_000;
const LONGEST_CODE = 255;

/**
 * Reads one answer of a participant, which may be broken or hostile.
 * @returns undefined when it is no answer: then nothing is known
 */
export type Reader<Item, Answer> = (answer: unknown, item: Item) => Answer | undefined;

export const readCheck: Reader<unknown, CheckAnswer> = (answer) => {
	if (!isRecord(answer)) return undefined;
	const { result, why } = answer;
	const said = typeof why === "string" ? { why: why.slice(0, LONGEST_WHY) } : {};
	switch (result) {
		case "committed":
		case "rolledBack":
		case "running":
		case "unknown":
		case "none":
			return { result, ...said };
		default:
			return undefined;
	}
};

/** A failure must be the one of the message that was asked about. */
export const readAsk: Reader<Pick<MessageRecord, "id">, AskAnswer> = (answer, { id }) => {
	if (!isRecord(answer)) return undefined;
	const { result, revision, report } = answer;
	switch (result) {
		case "running":
		case "unseen":
		case "none":
			return { result };
		case "consumed":
			return isWhole(revision, 0, HIGHEST_COUNT) ? { result, revision } : undefined;
		case "failed":
			if (report === null) return { result, report };
			return readFailedReport(report, id);
		default:
			return undefined;
	}
};

function readFailedReport(report: unknown, id: string): AskAnswer | undefined {
	if (!isRecord(report) || report["id"] !== id) return undefined;
	const { attempt, revision } = report;
	if (!isWhole(attempt, 1, HIGHEST_COUNT) || !isWhole(revision, 0, HIGHEST_COUNT)) {
		return undefined;
	}
	if (!isRecord(report["error"])) return undefined;
	const times = report["policy"] === undefined ? undefined : readPolicy(report["policy"]);
	if (times === "wrong") return undefined;
	return {
		result: "failed",
		report: {
			id,
			receipt: "",
			storeId: null,
			attempt,
			revision,
			result: "failed",
			error: failureOf(report["error"]),
			...(times && { policy: times }),
		},
	};
}

export const readFence: Reader<unknown, FenceAnswer> = (answer) => {
	if (!isRecord(answer)) return undefined;
	const { result, revision } = answer;
	switch (result) {
		case "fenced":
		case "busy":
		case "none":
			return { result };
		case "consumed":
			return isWhole(revision, 0, HIGHEST_COUNT) ? { result, revision } : undefined;
		default:
			return undefined;
	}
};

export const readStatus: Reader<unknown, ParticipantStatus> = (answer) => {
	if (!isRecord(answer) || !isWhole(answer["running"], 0, HIGHEST_COUNT)) return undefined;
	const texts = [answer["version"], answer["moleculer"], answer["serializer"]];
	if (!texts.every((text) => typeof text === "string")) return undefined;
	const { transporter } = answer;
	if (transporter !== null && typeof transporter !== "string") return undefined;
	return answer as unknown as ParticipantStatus;
};

/** @returns why a consumption failed, as a consumer told it; texts are cut */
export function failureOf(given: Record<string, unknown>): Failure {
	const { code, message, stack, retryable } = given;
	return {
		code: textOf(code, "ERROR").slice(0, LONGEST_CODE),
		message: textOf(message, "").slice(0, STACK_LIMIT),
		retryable: retryable === true,
		...(typeof stack === "string" ? { stack: stack.slice(0, STACK_LIMIT) } : {}),
	};
}

/** @throws LOTTOR_INVALID_REQUEST naming the field */
export function policyOf(given: unknown): RetryTimes {
	const found = readPolicy(given);
	if (found !== "wrong") return found;
	throw new LottorError(
		"LOTTOR_INVALID_REQUEST",
		"Field policy must have whole numbers retries, delay and maxDelay, and a factor of 1 or more",
		{ field: "policy" },
	);
}

function readPolicy(given: unknown): RetryTimes | "wrong" {
	if (!isRecord(given)) return "wrong";
	const { retries, delay, factor, maxDelay } = given;
	if (!isWhole(retries, 0, HIGHEST_COUNT)) return "wrong";
	if (!isWhole(delay, 0, LONGEST_MS) || !isWhole(maxDelay, 0, LONGEST_MS)) return "wrong";
	if (typeof factor !== "number" || !Number.isFinite(factor) || factor < 1) return "wrong";
	return { retries, delay, factor, maxDelay };
}

function textOf(value: unknown, missing: string): string {
	if (typeof value === "string") return value;
	return typeof value === "number" || typeof value === "boolean" ? String(value) : missing;
}
