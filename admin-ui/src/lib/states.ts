import type { GroupState, MessageState } from "../../../protocol/records.ts";

export type AnyState = GroupState | MessageState;

/** How much a state asks of the reader; chooses its colours. */
export type Tone = "good" | "going" | "idle" | "warn" | "bad" | "off";

/** The shape beside a state's name, so that it is told apart without colours. */
export type Shape =
	"ring" | "half" | "check" | "back" | "question" | "cross" | "clock" | "arrow" | "bar";

export interface Look {
	readonly tone: Tone;
	readonly shape: Shape;
}

export const LOOKS: Readonly<Record<AnyState, Look>> = {
	prepared: { tone: "idle", shape: "ring" },
	committed: { tone: "going", shape: "half" },
	completed: { tone: "good", shape: "check" },
	rolledBack: { tone: "off", shape: "back" },
	inDoubt: { tone: "warn", shape: "question" },
	held: { tone: "idle", shape: "ring" },
	pending: { tone: "going", shape: "clock" },
	delivering: { tone: "going", shape: "arrow" },
	consumed: { tone: "good", shape: "check" },
	failed: { tone: "bad", shape: "cross" },
	discarded: { tone: "off", shape: "bar" },
};
