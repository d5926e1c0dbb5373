export { LoopbackTcp } from "./adapters/transporter/loopback-tcp.ts";
export type { LoopbackTcpOptions } from "./adapters/transporter/loopback-tcp.ts";
