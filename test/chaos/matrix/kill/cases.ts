import type { Point } from "../points.ts";
import type { Order, Role } from "./words.ts";

/** A kill: which process, and where it stands at that moment. */
export interface Kill {
	readonly role: Role;
	readonly point: Point;
}

/** One transaction in which one process is killed, or one after another. */
export interface Case {
	readonly kills: readonly Kill[];
	readonly order: Order;
	/** The local work throws. */
	readonly fails?: boolean;
	/** What a person does to a message that failed. @default "edit" */
	readonly person?: "edit" | "discard";
	/** The person has a group in doubt asked about again before deciding. */
	readonly rechecks?: boolean;
	/** The person leaves a note in the audit log. */
	readonly notes?: boolean;
	/** The coordinator is stopped in an orderly way while it claims work. */
	readonly stops?: boolean;
	/** Messages go over a broker. @default by calls */
	readonly broker?: boolean;
}

interface Rest extends Omit<Case, "kills" | "order"> {
	readonly order?: Order;
	/** What is killed first, so that the other process comes by its point. */
	readonly first?: Kill;
}

/** One case for each point of a call. */
function at(role: Role, call: string, rest: Rest = {}, more: readonly string[] = []): Case[] {
	const { order = {}, first, ...other } = rest;
	return ["before", ...more, "after"].map((where) => {
		const kill = { role, point: `${call}:${where}` as Point };
		return { kills: first ? [first, kill] : [kill], order, ...other };
	});
}

const WORK = ["begun", "done"] as const;
const BROKEN: Order = { broken: true };
/** Leaves a committed row that no coordinator was told of. */
const UNTOLD: Kill = { role: "shop", point: "participant.run:after" };
/** Leaves a prepared group whose work never began. */
const UNBEGUN: Kill = { role: "shop", point: "participant.run:before" };
/** Leaves a message that is stored as sent and was not. */
const UNSENT: Kill = { role: "lottor", point: "delivery.send:before" };
/** Leaves a message whose consumer is gone. */
const GONE: Kill = { role: "stock", point: "participant.consume:before" };

/** Leaves a recorded work that was begun, and of which nobody can tell how it ended. */
const UNKNOWN: Kill = { role: "shop", point: "participant.run:begun" };
/** Leaves a recorded work that is done, and not noted as such. */
const UNNOTED: Kill = { role: "shop", point: "participant.run:done" };

/** Kills of one process out of three, at every point of the registry. */
export const CASES: readonly Case[] = [
	...at("shop", "lottor.prepare"),
	...at("shop", "participant.run", {}, WORK),
	...at("shop", "lottor.commit"),
	...at("shop", "lottor.rollback", { fails: true }),
	...at("shop", "participant.confirm"),
	...at("shop", "participant.open", { first: UNTOLD }),
	...at("shop", "participant.resolve", { first: UNBEGUN }),
	...at("lottor", "coordinator.insert"),
	...at("lottor", "coordinator.decide"),
	...at("lottor", "delivery.send"),
	...at("lottor", "reliable.consume"),
	...at("lottor", "coordinator.apply"),
	...at("lottor", "coordinator.open", { first: UNSENT }),
	...at("lottor", "coordinator.claim", { first: UNSENT }),
	...at("lottor", "reliable.check", { first: UNBEGUN }),
	...at("lottor", "reliable.ask", { first: UNSENT }),
	...at("lottor", "coordinator.wake", { first: GONE }),
	...at("lottor", "reliable.fence", { order: BROKEN, person: "discard" }),
	...at("stock", "participant.consume", {}, WORK),
	...at("stock", "participant.fail", { order: { failures: 1 } }),
	...at("stock", "lottor.report", { order: { slow: 200 } }),
	...at("stock", "participant.settled"),
	...at("stock", "participant.open", { first: GONE }),
	...at("stock", "participant.fence", { order: BROKEN, person: "discard" }),
	...at("shop", "participant.force", {
		first: UNNOTED,
		order: { recorded: true, resolves: true },
	}),
	...at("lottor", "coordinator.record", { order: BROKEN }),
	...at("lottor", "coordinator.release", { order: { failures: 1 }, stops: true }),
	...at("lottor", "plain.call", { order: { plain: true } }),
	...at("lottor", "delivery.send", { broker: true }),
	...at("lottor", "channel.publish", { broker: true }),
	...at("stock", "participant.consume", { broker: true }, WORK),
	...at("stock", "channel.ack", { broker: true }),
	...at("shop", "lottor.groups.rollback", { first: UNKNOWN, order: { recorded: true } }),
	...at("shop", "lottor.groups.commit", { first: UNNOTED, order: { recorded: true } }),
	...at("shop", "lottor.groups.recheck", {
		first: UNNOTED,
		order: { recorded: true },
		rechecks: true,
	}),
	...at("shop", "lottor.audit.add", { order: BROKEN, notes: true }),
	...at("shop", "lottor.messages.discard", { order: BROKEN, person: "discard" }),
	...at("shop", "lottor.messages.edit", { order: BROKEN }),
	...at("shop", "lottor.messages.retry", { order: BROKEN }),
	// Each start begins with it; by now there is something to purge.
	...at("lottor", "coordinator.purge", { first: UNSENT }),
	...at("shop", "participant.purge", { first: UNTOLD }),
];
