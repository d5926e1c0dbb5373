export { isUnclear } from "./sqlite-errors.ts";
export { openedElsewhere, openSqliteFile, SqliteFile } from "./sqlite-file.ts";
export type { SqliteFileOptions, WriteOptions } from "./sqlite-file.ts";
export type { SqliteReader, SqliteRow, SqliteTx } from "./sqlite-tx.ts";
