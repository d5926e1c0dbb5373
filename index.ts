export * from "./adapters/coordinator-store/index.ts";
export type * from "./adapters/delivery/index.ts";
export { directDelivery } from "./adapters/delivery/index.ts";
export * from "./adapters/participant-store/index.ts";
export { openSqliteFile } from "./adapters/sqlite/index.ts";
export type { SqliteFile, SqliteReader, SqliteRow, SqliteTx } from "./adapters/sqlite/index.ts";
export { LoopbackTcp } from "./adapters/transporter/loopback-tcp.ts";
export type { LoopbackTcpOptions } from "./adapters/transporter/loopback-tcp.ts";
export { SignedCalls, type SignedCallsOptions } from "./middlewares/signed-calls.ts";
export * from "./mixins/reliable-message/index.ts";
export { ERRORS, hasCode, LottorError } from "./protocol/index.ts";
export type {
	Clock,
	Duration,
	ErrorCode,
	GroupRecord,
	GroupState,
	Guarantee,
	MessageRecord,
	MessageState,
	Random,
} from "./protocol/index.ts";
export * from "./services/coordinator/index.ts";
