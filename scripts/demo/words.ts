/** The demo's processes. */
export const NODES = ["coordinator", "producer", "consumer", "bank"] as const;
export type NodeName = (typeof NODES)[number];

/** Where a process can be made to stop, or to misbehave, once. */
export type FaultPoint = "in-work" | "after-commit" | "before-send" | "send-twice" | "in-handler";

/** What a process prints once it has started. */
export const READY = "READY";

/** What a process prints, with the point and the group, when it has come to where it is killed. */
export const FAULT = "FAULT";

/** Names of the services that only consume. */
export const CONSUMERS = ["stock", "mail", "points"] as const;
export type Consumer = (typeof CONSUMERS)[number];

/** What each process offers, besides the way to its faults. */
export const SERVICES: Readonly<Record<NodeName, readonly string[]>> = {
	coordinator: ["lottor"],
	producer: ["user", "shop"],
	consumer: ["auth", ...CONSUMERS],
	bank: ["bank"],
};
