export * from "./clock.ts";
export * from "./duration.ts";
export * from "./errors.ts";
export * from "./ids.ts";
export * from "./living.ts";
export * from "./records.ts";
export * from "./state-machine.ts";
export * from "./wire.ts";
