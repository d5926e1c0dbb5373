import type { Point } from "../points.ts";

/** The processes, each a Moleculer node of its own: coordinator, producer, consumer. */
export const ROLES = ["lottor", "shop", "stock"] as const;
export type Role = (typeof ROLES)[number];

/** What the message tells its handler to do. */
export interface Order {
	/** Attempts that fail before one succeeds. @default 0 */
	readonly failures?: number;
	/** Fails for good, until the payload is edited. @default false */
	readonly broken?: boolean;
	/** Milliseconds that the handler takes: the report then travels on its own. @default 0 */
	readonly slow?: number;
	/** The producer is the one on a recorded store. @default false */
	readonly recorded?: boolean;
	/** It can tell that this work took effect. @default false */
	readonly resolves?: boolean;
	/** There is a second message, to a target without the mixin. @default false */
	readonly plain?: boolean;
}

/** What a process is told at its start, as JSON in its only argument. */
export interface NodeOrders {
	readonly role: Role;
	readonly folder: string;
	/** Where this process reaches each of the others: ports of the network between them. */
	readonly ports: Readonly<Record<string, number>>;
	/** Points at which it stops, to be killed. */
	readonly armed: readonly Point[];
	/** Messages go over a broker, and not by calls. */
	readonly broker: boolean;
}

/** What a running process can be told, a line of JSON on its stdin. */
export type Command =
	| { readonly do: "arm"; readonly points: readonly Point[] }
	/** The producer starts a transaction, whose work throws if it `fails`. */
	| { readonly do: "order"; readonly order: Order; readonly fails: boolean }
	/** The coordinator stops in an orderly way, the next time that a claim brings something. */
	| { readonly do: "stop" }
	/** A person acts on messages or groups: by the producer's process. */
	| { readonly do: "operate"; readonly action: string; readonly ids: readonly string[] };

/** A process prints it once its services run. */
export const READY = "READY";
/** A process prints it once it stops at the points it was told. */
export const ARMED = "ARMED";
/** A process prints it with the point that it stops at. */
export const AT = "AT ";
/** The producer prints it, with the group that is committed, when a caller was told so. */
export const COMMITTED = "COMMITTED ";
