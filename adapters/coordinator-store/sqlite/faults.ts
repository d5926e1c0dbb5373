import { type ErrorCode, LottorError, messageOf } from "../../../protocol/index.ts";

/** Primary result codes of SQLite that are told apart here. */
const BUSY = 5;
const LOCKED = 6;
const NOMEM = 7;
const READONLY = 8;
const IOERR = 10;
const CORRUPT = 11;
const FULL = 13;
const CANTOPEN = 14;
const PROTOCOL = 15;
const TOOBIG = 18;
const CONSTRAINT = 19;
const MISMATCH = 20;
const NOTADB = 26;

/** What to do about it, by primary result code. */
const ADVICE: Readonly<Record<number, string>> = {
	[BUSY]: "another process holds its write lock; it goes on by itself once that one lets go",
	[LOCKED]: "another connection holds its write lock; it goes on by itself once that one lets go",
	[NOMEM]: "the process is out of memory; give it more or lower the load",
	[READONLY]: "the file is read-only; make the file and its folder writable for this user",
	[IOERR]:
		"the disk failed; check it, then restart the coordinator: it trusts only what it reads anew",
	[CORRUPT]: "the file is damaged; restore it from a backup or move it away to begin anew",
	[FULL]: "the disk is full; free space, it goes on by itself then",
	[CANTOPEN]: "the file can't be opened; check that its folder exists and is writable",
	[PROTOCOL]: "its lock could not be taken; it is tried again at the next call",
	[NOTADB]: "the file is not an SQLite database; name another file or move this one away",
};

/** @returns SQLite's primary result code, or undefined when the error is not SQLite's */
export function resultCode(error: unknown): number | undefined {
	if (typeof error !== "object" || error === null) return undefined;
	if (!("code" in error) || error.code !== "ERR_SQLITE_ERROR") return undefined;
	return "errcode" in error && typeof error.errcode === "number"
		? error.errcode & 0xff
		: undefined;
}

/** @returns whether another connection has the lock, so that the same call may soon succeed */
export function isBusy(error: unknown): boolean {
	const code = resultCode(error);
	return code === BUSY || code === LOCKED;
}

/** @returns whether the connection must not be trusted until the file is opened anew */
export function isFatal(error: unknown): boolean {
	const code = resultCode(error);
	return code === IOERR || code === CORRUPT || code === NOTADB;
}

/** @returns whether the fault lies in the values of one call, and not in the database */
export function isOwnFault(error: unknown): boolean {
	const code = resultCode(error);
	return code === undefined || code === TOOBIG || code === CONSTRAINT || code === MISMATCH;
}

/** @returns the error of a call that may or may not have happened */
export function unavailable(file: string, error: unknown): LottorError {
	return storeError("LOTTOR_STORE_UNAVAILABLE", file, error);
}

/** @returns the error of a file that must not be worked on */
export function unusable(file: string, error: unknown): LottorError {
	return storeError("LOTTOR_STORE_UNUSABLE", file, error);
}

function storeError(type: ErrorCode, file: string, error: unknown): LottorError {
	const advice = ADVICE[resultCode(error) ?? -1];
	return new LottorError(
		type,
		`Coordinator store ${file}: ${advice ?? messageOf(error)}`,
		{ file },
		error,
	);
}
