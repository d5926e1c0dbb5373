import { LottorError, messageOf } from "../../protocol/index.ts";

const BUSY = 5;
const LOCKED = 6;
const OUT_OF_MEMORY = 7;
const READONLY = 8;
const IOERR = 10;
const CORRUPT = 11;
const FULL = 13;
const CANTOPEN = 14;
const NOTADB = 26;

/** What to do about each failure that is the file's and not the statement's. */
const ADVICE: Readonly<Record<number, string>> = {
	[OUT_OF_MEMORY]: "the process is out of memory",
	[READONLY]:
		"it is read-only, or was moved away while open: make the file and its folder writable for this process",
	[IOERR]:
		"reading or writing it failed: check the disk and the system log, then start the service again",
	[CORRUPT]:
		"it is corrupt: restore it from a backup or recover it with `sqlite3 <file> .recover`",
	[FULL]: "the disk, or the file's max_page_count, is full: free space, then repeat the call",
	[CANTOPEN]: "it can't be opened: check that its folder exists and is writable for this process",
	[NOTADB]: "it is not a SQLite database: name another file, or move this one away",
};

/** @returns SQLite's primary result code; undefined when SQLite did not raise the error */
export function sqliteCode(error: unknown): number | undefined {
	if (typeof error !== "object" || error === null || !("errcode" in error)) return undefined;
	return typeof error.errcode === "number" ? error.errcode & 0xff : undefined;
}

/** @returns whether another connection holds a lock that is needed */
export function isBusy(error: unknown): boolean {
	const code = sqliteCode(error);
	return code === BUSY || code === LOCKED;
}

/** @returns whether nothing that the file's connections say can be trusted any more */
export function isFatal(error: unknown): boolean {
	const code = sqliteCode(error);
	return code === IOERR || code === CORRUPT || code === NOTADB;
}

/** @returns whether SQLite rolls back more than the statement that raised the error */
export function endsTransaction(error: unknown): boolean {
	const code = sqliteCode(error);
	return code === FULL || code === IOERR || code === OUT_OF_MEMORY;
}

/**
 * @returns the error as callers get it: LOTTOR_STORE_UNAVAILABLE that says what to do when the file
 *   is to blame, else the error itself
 */
export function fileError(error: unknown, path: string): unknown {
	const code = sqliteCode(error);
	const advice = code === undefined ? undefined : ADVICE[code];
	if (advice === undefined) return error;
	return new LottorError(
		"LOTTOR_STORE_UNAVAILABLE",
		`SQLite file ${path} can't be used: ${advice} (${messageOf(error)})`,
		{ path },
		error,
	);
}

/** @returns LOTTOR_STORE_UNUSABLE for a file that must not be started on */
export function unusable(path: string, problem: string, cause?: unknown): LottorError {
	return new LottorError(
		"LOTTOR_STORE_UNUSABLE",
		`SQLite file ${path} can't be started on: ${problem}`,
		{ path },
		cause,
	);
}

/** @returns the error of opening a file, as LOTTOR_STORE_UNUSABLE where the file is to blame */
export function openError(error: unknown, path: string): unknown {
	const code = sqliteCode(error);
	const advice = code === undefined ? undefined : ADVICE[code];
	return advice === undefined ? error : unusable(path, advice, error);
}

/**
 * @returns the error of works whose COMMIT was issued and did not return success (R8): what stands
 *   must be read
 */
export function unclearCommit(error: unknown, path: string): LottorError {
	const advice = ADVICE[sqliteCode(error) ?? 0];
	return new LottorError(
		"LOTTOR_STORE_UNAVAILABLE",
		`SQLite file ${path}: COMMIT did not return success, what stands is not known` +
			(advice === undefined ? "" : `; ${advice}`),
		{ path, commit: "unclear" },
		error,
	);
}

/** @returns whether the error is one of {@link unclearCommit} */
export function isUnclear(error: unknown): boolean {
	return (
		error instanceof LottorError && (error.data as { commit?: unknown }).commit === "unclear"
	);
}
