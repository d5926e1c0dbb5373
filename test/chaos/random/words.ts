import type { Guarantee } from "../../../protocol/index.ts";
import type { CoordinatorOptions } from "../../../services/coordinator/index.ts";

/** The processes of a chaos run, each a Moleculer node of its own. */
export const NODES = ["k1", "k2", "p1", "p2", "p3", "c1", "c2", "c3"] as const;
/** A chaos run's, and coordinators of other runs. */
export type NodeName = (typeof NODES)[number] | "k3" | "k4";

/** The message broker, and the coordinators' store where it is no file. */
export type ServerName = "broker" | "store";
/** Whatever a process has a connection to. */
export type Peer = NodeName | ServerName;

/** Those that share the coordinators' store (R31). */
export const COORDINATORS: readonly NodeName[] = ["k1", "k2", "k3", "k4"];

/**
 * The services of the other processes. Each has one SQLite file of its own; `desk` and `mail` have
 * two instances, in two processes, on theirs.
 */
export const SERVICES: Partial<Record<NodeName, readonly string[]>> = {
	p1: ["shop1", "desk"],
	p2: ["shop2", "desk"],
	p3: ["shop3"],
	c1: ["ledger1", "mail"],
	c2: ["ledger2", "mail"],
	c3: ["ledger3"],
};

export const PRODUCERS = ["shop1", "shop2", "shop3", "desk"];
export const CONSUMERS = ["ledger1", "ledger2", "ledger3", "mail"];

/** Who has connections to a server. */
export const CLIENTS: Readonly<Record<ServerName, readonly NodeName[]>> = {
	broker: ["k1", "k2", "c1", "c2", "c3"],
	store: ["k1", "k2"],
};

/** The coordinators' store is a file that both have open. */
export const SQLITE = "sqlite";

/** How long a prepared group waits for its first check-back. */
export const CHECK_AFTER_MS = 1_000;

/** After how many seconds of silence a node is taken for gone where recovery is measured (PROTOCOL, 9). */
export const HEARTBEAT_TIMEOUT_S = 10;

/** Options of the coordinators that a run may set. */
export type Times = Pick<CoordinatorOptions, "lease" | "ackTimeout" | "checkAfter">;

/** What a process is told at its start, as JSON in its only argument. */
export interface NodeOrders {
	readonly name: NodeName;
	/** Which start of which process it is. */
	readonly start: string;
	readonly folder: string;
	readonly guarantee: Guarantee;
	/** `direct`, or the broker's URL. */
	readonly delivery: string;
	/** `sqlite`: the file in the folder; or the URL of the coordinators' store. */
	readonly store: string;
	readonly seed: string;
	/** Handlers neither fail nor dawdle, and Lottor's times are its defaults. */
	readonly calm: boolean;
	/** What the coordinators' options are to be besides. */
	readonly coordinator: Times;
	/** Seconds until a silent node is taken for gone. */
	readonly heartbeatTimeout?: number;
	/** How long a producer tries to prepare. */
	readonly prepareTimeout?: string;
	/** Where this process reaches each of the others: ports of the network between them. */
	readonly ports: Readonly<Record<string, number>>;
	/** And where each server; none: at its own address. */
	readonly servers: ServerPorts;
}

/** By which port of the network a process reaches a server. */
export type ServerPorts = Readonly<Partial<Record<ServerName, number>>>;

/** What a running process can be told, a line of JSON on its stdin. */
export type Command =
	| { readonly do: "load"; readonly on: boolean }
	/** So many callers make one transaction after another without a pause. */
	| { readonly do: "press"; readonly callers: number }
	/** So many transactions are begun each second, whatever becomes of them. */
	| { readonly do: "offer"; readonly perSecond: number }
	/** The process is to print its figures; `collect`: once it is rid of garbage. */
	| { readonly do: "tell"; readonly collect: boolean }
	/** The process's files take no more pages, as on a full disk, or take them again. */
	| { readonly do: "full"; readonly on: boolean }
	/** The next COMMIT of the process fails with an I/O error, before or after it took effect. */
	| { readonly do: "ioError"; readonly after: boolean };

/** What a process prints once its port is known, followed by the port. */
export const PORT = "PORT ";
/** What a process prints once its services run. */
export const READY = "READY";
/** What a process prints when it is asked for its {@link Figures}, followed by them as JSON. */
export const FIGURES = "FIGURES ";

/** How a process is doing; counts are since its start. */
export interface Figures {
	/** Bytes. */
	readonly rss: number;
	readonly heap: number;
	/** Transactions begun, and by what they came to: `ok`, or the error's type. */
	readonly begun: number;
	readonly results: Readonly<Record<string, number>>;
	/** Handlers that wrote their effect. */
	readonly effects: number;
}

/** What a producer notes of each transaction that returned: a line in `<node>.results`. */
export interface CallerSaw {
	readonly group: string;
	/** `ok`, or the error's type. */
	readonly result: string;
}

/** What the local work throws where it is to fail. */
export const THROWN = "CHAOS_THROWN";
