import type { CoordinatorStore } from "../../../adapters/coordinator-store/index.ts";
import type { Delivery } from "../../../adapters/delivery/index.ts";
import type { ParticipantStore } from "../../../adapters/participant-store/index.ts";
import type { PARTICIPANT_ACTIONS } from "../../../protocol/index.ts";
import type { Post } from "./file-broker.ts";

/**
 * What a crash at a call can change: `write` and `send` have fault points before and after; `work`
 * is a write that runs the user's code within, and has points around that as well; `read` changes
 * nothing, which a test tries; `end` is the last call of an orderly stop.
 */
type Kind = "write" | "work" | "send" | "read" | "end";

type MethodOf<T> = {
	[Name in keyof T]-?: NonNullable<T[Name]> extends (...args: never[]) => unknown ? Name : never;
}[keyof T];

/** Every call of every contract by its kind: a new one does not compile before it is listed. */
export const CONTRACTS = {
	coordinator: {
		open: "write",
		close: "end",
		now: "read",
		insert: "write",
		decide: "write",
		claim: "write",
		release: "write",
		apply: "write",
		wake: "write",
		get: "read",
		payloads: "read",
		context: "read",
		timeline: "read",
		list: "read",
		listMessages: "read",
		countGroups: "read",
		countMessages: "read",
		facets: "read",
		failures: "read",
		activity: "read",
		record: "write",
		audits: "read",
		stats: "read",
		purge: "write",
	} satisfies Record<MethodOf<CoordinatorStore>, Kind>,
	participant: {
		open: "write",
		close: "end",
		run: "work",
		resolve: "write",
		force: "write",
		confirm: "write",
		unconfirmed: "read",
		consume: "work",
		fail: "write",
		fence: "write",
		look: "read",
		settled: "write",
		unsettled: "read",
		purge: "write",
	} satisfies Record<MethodOf<ParticipantStore>, Kind>,
	delivery: {
		start: "read",
		stop: "end",
		send: "send",
		backlog: "read",
		receive: "read",
		targetProblem: "read",
	} satisfies Record<MethodOf<Delivery>, Kind>,
	channel: {
		publish: "send",
		ack: "send",
	} satisfies Record<keyof Post, Kind>,
	/** The action of a target without the mixin (R25). */
	plain: { call: "send" },
	reliable: {
		consume: "send",
		check: "send",
		ask: "send",
		fence: "send",
		status: "read",
	} satisfies Record<keyof typeof PARTICIPANT_ACTIONS, Kind>,
	lottor: {
		prepare: "send",
		commit: "send",
		rollback: "send",
		report: "send",
		"messages.retry": "send",
		"messages.edit": "send",
		"messages.discard": "send",
		"groups.commit": "send",
		"groups.rollback": "send",
		"groups.recheck": "send",
		"groups.list": "read",
		"groups.get": "read",
		"groups.timeline": "read",
		"messages.list": "read",
		failures: "read",
		facets: "read",
		activity: "read",
		"audit.list": "read",
		"audit.add": "send",
		settings: "read",
		stats: "read",
		clients: "read",
		coordinators: "read",
		health: "read",
	},
} as const satisfies Record<string, Record<string, Kind>>;

export type Contract = keyof typeof CONTRACTS;

/** A fault point: `<contract>.<call>:<where>`. */
export type Point = `${Contract}.${string}:${"before" | "after" | "begun" | "done"}`;

/** @returns what kind of call this is; undefined for one that no contract lists */
export function kindOf(contract: Contract, call: string): Kind | undefined {
	const calls: Readonly<Record<string, Kind>> = CONTRACTS[contract];
	return Object.hasOwn(calls, call) ? calls[call] : undefined;
}

/** @returns every fault point that must be hit */
export function allPoints(): Point[] {
	const points: Point[] = [];
	for (const [contract, calls] of Object.entries(CONTRACTS)) {
		for (const [call, kind] of Object.entries<Kind>(calls)) {
			const name = `${contract as Contract}.${call}` as const;
			if (kind === "write" || kind === "send" || kind === "work") {
				points.push(`${name}:before`, `${name}:after`);
			}
			if (kind === "work") points.push(`${name}:begun`, `${name}:done`);
		}
	}
	return points;
}
