import type { BSON } from "mongodb";

/** An answer that says no. */
export class CommandError extends Error {
	readonly code: number;
	readonly codeName: string;
	readonly labels: readonly string[];

	constructor(
		code: number,
		codeName: string,
		message: string,
		labels: readonly string[] = [],
		cause?: unknown,
	) {
		super(message, { cause });
		this.code = code;
		this.codeName = codeName;
		this.labels = labels;
	}

	get reply(): BSON.Document {
		return {
			ok: 0,
			code: this.code,
			codeName: this.codeName,
			errmsg: this.message,
			...(this.labels.length > 0 && { errorLabels: this.labels }),
		};
	}
}

export const WRITE_CONFLICT = 112;

/** PostgreSQL's own states that mean something to a client of MongoDB. */
const OWN_STATES: Readonly<Record<string, readonly [number, string]>> = {
	"40001": [WRITE_CONFLICT, "WriteConflict"],
	"40P01": [WRITE_CONFLICT, "WriteConflict"],
	"55P03": [WRITE_CONFLICT, "WriteConflict"],
	"23505": [11_000, "DuplicateKey"],
	"23P01": [11_000, "DuplicateKey"],
	"57014": [50, "MaxTimeMSExpired"],
	"57P01": [11_600, "InterruptedAtShutdown"],
	"57P02": [11_600, "InterruptedAtShutdown"],
	"57P03": [11_600, "InterruptedAtShutdown"],
};

/** The engine's states `M` and a number to base 36; those that clients look at. */
const ENGINE_STATES: Readonly<Record<number, readonly [number, string]>> = {
	1: [2, "BadValue"],
	3: [9, "FailedToParse"],
	4: [14, "TypeMismatch"],
	6: [20, "IllegalOperation"],
	8: [26, "NamespaceNotFound"],
	9: [27, "IndexNotFound"],
	14: [43, "CursorNotFound"],
	15: [48, "NamespaceExists"],
	22: [66, "ImmutableField"],
	23: [67, "CannotCreateIndex"],
	24: [68, "IndexAlreadyExists"],
	25: [72, "InvalidOptions"],
	26: [73, "InvalidNamespace"],
	27: [85, "IndexOptionsConflict"],
	28: [86, "IndexKeySpecsConflict"],
	30: [115, "CommandNotSupported"],
	42: [263, "OperationNotSupportedInTransaction"],
	47: [10_334, "BSONObjectTooLarge"],
	48: [11_000, "DuplicateKey"],
};

/** @returns MongoDB's code and its name, for an SQLSTATE */
export function codeOf(state: string): readonly [number, string] {
	const own = OWN_STATES[state];
	if (own) return own;
	const engine = state.startsWith("M")
		? ENGINE_STATES[Number.parseInt(state.slice(1), 36)]
		: undefined;
	return engine ?? [1, "InternalError"];
}

/** @returns whether the state says that another one was faster, so that the same may soon succeed */
export function isConflict(state: string): boolean {
	return codeOf(state)[0] === WRITE_CONFLICT;
}

/** @returns the answer to a command that the engine refused or could not be asked */
export function refusal(error: unknown): CommandError {
	if (error instanceof CommandError) return error;
	const { code, message } = error as { code?: unknown; message?: string };
	const text = message ?? String(error);
	const state = typeof code === "string" ? code : "";
	if (/^[0-9A-Z]{5}$/.test(state)) {
		const [number, name] = codeOf(state);
		return new CommandError(number, name, text, [], error);
	}
	// The connection to the engine is gone: what a client of MongoDB sees when its server ends.
	return new CommandError(91, "ShutdownInProgress", text, ["RetryableWriteError"], error);
}

const STATE_CHARACTERS = 5;
const BITS_PER_CHARACTER = 6;

/** The engine packs the SQLSTATE of a write error into a number, six bits a character. */
export function unpackState(packed: number): string {
	return String.fromCharCode(
		...Array.from(
			{ length: STATE_CHARACTERS },
			(_, place) => ((packed >> (BITS_PER_CHARACTER * place)) & 63) + 48,
		),
	);
}
