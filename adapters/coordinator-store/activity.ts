import type { GroupRecord, MessageRecord } from "../../protocol/index.ts";
import { type Activity, ACTIVITY_MS, type ActivityStep, latencyBound } from "./contract.ts";

/** Something that happened, as activity counts it. */
export type Happened = Pick<Activity, "what" | "part">;

/** @returns the begin of the minute or day */
export function beginOf(time: number, step: ActivityStep): number {
	return time - (time % ACTIVITY_MS[step]);
}

/** @returns what it is that a group came into another state */
export function groupCame({ state, source, createdAt }: GroupRecord, at: number): Happened[] {
	const came: Happened[] = [{ what: state, part: source }];
	if (state !== "completed") return came;
	return [...came, { what: "latency", part: String(latencyBound(at - createdAt)) }];
}

/** @returns what it is that a message came into another state, if anything that is counted */
export function messageCame({ state, target }: MessageRecord): Happened[] {
	return state === "consumed" || state === "failed" ? [{ what: state, part: target }] : [];
}
