import { hasCode, LottorError, messageOf } from "../../../protocol/index.ts";

/**
 * Why a command failed. `gone`: the server or the way to it, so that it may have happened; `locked`:
 * somebody else has the document; `ended`: the transaction is over; `login`: the server is there and
 * refuses us.
 */
export type Trouble = "gone" | "locked" | "duplicate" | "ended" | "denied" | "login" | "statement";

const DUPLICATE = new Set([11_000, 11_001]);
/** Lock time-out, time limit of the command, write conflict. */
const LOCKED = new Set([24, 50, 112]);
/** No such transaction, too old, past its lifetime. */
const ENDED = new Set([225, 251, 290]);
const LOGIN = new Set([18, 8_000]);
const UNAUTHORIZED = 13;
/** Not reachable, no primary, shutting down, interrupted, write concern not reached in time. */
const GONE = new Set([
	6, 7, 64, 79, 89, 91, 100, 136, 189, 262, 317, 358, 9_001, 10_107, 11_600, 11_602, 13_435,
	13_436,
]);

interface MongoFault {
	readonly code?: unknown;
	readonly errorLabels?: readonly string[];
	hasErrorLabel?(label: string): boolean;
}

export function trouble(error: unknown): Trouble {
	const { code } = (error ?? {}) as MongoFault;
	// The driver itself found nobody to ask, or lost whom it asked.
	if (typeof code !== "number") return "gone";
	if (DUPLICATE.has(code)) return "duplicate";
	if (LOCKED.has(code)) return "locked";
	if (ENDED.has(code)) return "ended";
	if (LOGIN.has(code)) return "login";
	if (code === UNAUTHORIZED) return "denied";
	return GONE.has(code) ? "gone" : "statement";
}

/** @returns whether this is an error of the driver, or of the server behind it */
export function isDriverError(error: unknown): boolean {
	const name = (error as { name?: unknown } | null)?.name;
	return typeof name === "string" && name.startsWith("Mongo");
}

/** @returns whether the driver found no server to ask */
export function isNotFound(error: unknown): boolean {
	return (error as { name?: unknown } | null)?.name === "MongoServerSelectionError";
}

/** @returns the error as callers get it */
export function storeError(place: string, error: unknown): unknown {
	if (error instanceof LottorError) return error;
	const why = messageOf(error);
	switch (trouble(error)) {
		case "gone":
		case "ended":
		case "login":
			return new LottorError(
				"LOTTOR_STORE_UNAVAILABLE",
				`${place} can't be reached: ${why}`,
				{ place },
				error,
			);
		case "locked":
			return new LottorError(
				"LOTTOR_STORE_BUSY",
				`${place}: a document was not free in time (${why})`,
				{ place },
			);
		default:
			return error;
	}
}

export function unusable(place: string, problem: string): LottorError {
	return new LottorError("LOTTOR_STORE_UNUSABLE", `${place} can't be started on: ${problem}`, {
		place,
	});
}

/** @returns the error of a start as callers get it: what time does not mend is not waited for */
export function openError(place: string, error: unknown): unknown {
	const isUnavailable = hasCode(error, "LOTTOR_STORE_UNAVAILABLE");
	const cause: unknown = isUnavailable ? (error as LottorError).cause : error;
	if (!isDriverError(cause)) return error;
	const why = messageOf(cause);
	switch (trouble(cause)) {
		case "login":
			return unusable(
				place,
				`it refuses the login: check user, password and database (${why})`,
			);
		case "denied":
			return unusable(
				place,
				`its collections can't be made or used: give this user the role readWrite on the database (${why})`,
			);
		case "statement":
			return unusable(place, why);
		default:
			return storeError(place, cause);
	}
}

/** What the server said no to inside an answer that says `ok`. */
export class WriteRefused extends Error {
	readonly code: number;

	constructor(code: number, message: string) {
		super(message);
		this.name = "MongoWriteRefused";
		this.code = code;
	}
}

/** @throws what the answer to a write says of its failure */
export function mustHaveWritten(answer: Record<string, unknown>): void {
	const { writeErrors, writeConcernError } = answer as {
		writeErrors?: readonly { code: number; errmsg?: string }[];
		writeConcernError?: { code: number; errmsg?: string };
	};
	const refused = writeErrors?.[0];
	if (refused) throw new WriteRefused(Number(refused.code), refused.errmsg ?? "write refused");
	if (!writeConcernError) return;
	// Stored at the primary, but not known to last: it may or may not have happened.
	throw new LottorError(
		"LOTTOR_STORE_UNAVAILABLE",
		`The write was not acknowledged by a majority in time (${writeConcernError.errmsg ?? writeConcernError.code})`,
	);
}
