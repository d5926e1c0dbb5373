import type { Guarantee } from "../../../protocol/index.ts";
import { Dice } from "./dice.ts";
import {
	CLIENTS,
	COORDINATORS,
	type NodeName,
	NODES,
	type Peer,
	type ServerName,
} from "./words.ts";

/** What goes wrong on the way from one to another. */
type Way = "cut" | "blackhole" | "latency";
/** Between two processes, or on the way to a server. */
type On<W extends Way> = W | `${W} ${ServerName}`;

/** A fault of the connections of each of the nodes with the peer. */
interface OnTheWay {
	readonly nodes: readonly NodeName[];
	readonly peer: Peer;
}

/** One thing that goes wrong, `at` milliseconds after the load began, for `ms` milliseconds. */
export type Fault = { readonly at: number; readonly ms: number } &
	/** Every process is killed at once. */
	(
		| { readonly kind: "blackout" }
		/** A server is killed, and started again on its data. */
		| { readonly kind: "broker" }
		| { readonly kind: "store" }
		| { readonly kind: "kill" | "restart" | "pause" | "fullDisk"; readonly node: NodeName }
		/** `after`: the COMMIT that is answered with an error has taken effect. */
		| { readonly kind: "ioError"; readonly node: NodeName; readonly after: boolean }
		| ({ readonly kind: On<"cut"> } & OnTheWay)
		/** `dies`: what was on the way is lost with its connection, instead of arriving late. */
		| ({ readonly kind: On<"blackhole">; readonly dies: boolean } & OnTheWay)
		| ({ readonly kind: On<"latency">; readonly delay: number } & OnTheWay)
	);

export type FaultKind = Fault["kind"];

/** What goes wrong with connections. */
export type WayFault = Extract<Fault, OnTheWay>;

/** How often each kind comes, relative to the others. */
const WEIGHTS: Record<Exclude<FaultKind, ServerName | `${Way} ${ServerName}`>, number> = {
	kill: 32,
	restart: 6,
	pause: 18,
	cut: 12,
	blackhole: 10,
	latency: 8,
	fullDisk: 8,
	ioError: 8,
	blackout: 2,
};

/** What no run goes without, whatever its seed: these come first, in an order of their own. */
const FIRST = ["kill", "pause", "cut", "blackhole", "latency", "fullDisk"] as const;

/** A server is killed about as often as it can't be reached. */
const SERVER_WEIGHT = 8;
const WAY_WEIGHT = 4;
const FIRST_MS = 1_000;
/** Mean time between two faults: several are under way at most times. */
const EVERY_MS = 900;

/**
 * The whole schedule of a run: the same arguments give the same. Every kind of fault that is never
 * to be missing has come once, however short the run is, before chance alone says what comes.
 *
 * @param servers what servers there are that can fail
 */
export function plan(
	seed: string,
	seconds: number,
	guarantee: Guarantee,
	servers: readonly ServerName[] = [],
): Fault[] {
	const ofServers = servers.flatMap(faultsOf);
	const weights: Partial<Record<FaultKind, number>> = {
		...WEIGHTS,
		...Object.fromEntries(
			ofServers.map((kind) => [kind, kind.includes(" ") ? WAY_WEIGHT : SERVER_WEIGHT]),
		),
	};
	const dice = new Dice(`plan ${seed} ${guarantee}`);
	const first = dice.shuffled(neverMissing(servers));
	const end = seconds * 1_000;
	const everyOfFirst = Math.min(EVERY_MS, (0.6 * (end - FIRST_MS)) / first.length);
	const faults: Fault[] = [];
	for (let at = FIRST_MS; at < end;) {
		const every = first.length > 0 ? everyOfFirst : EVERY_MS;
		const kind = first.pop() ?? dice.weighted(weights as Record<FaultKind, number>);
		faults.push(fault(dice, kind, at, servers));
		at += dice.between(Math.floor(every / 3), Math.floor((every * 5) / 3));
	}
	return faults;
}

/** What goes wrong with a server. */
function faultsOf(server: ServerName) {
	return [server, `cut ${server}`, `blackhole ${server}`, `latency ${server}`] as const;
}

/** Kinds of faults that every run has, however short it is. */
export function neverMissing(servers: readonly ServerName[]): readonly FaultKind[] {
	return [...FIRST, ...servers.flatMap(faultsOf)];
}

/**
 * Who can be struck by a kind of fault.
 *
 * @param servers what servers there are: coordinators on one have no files
 */
export function victimsOf(kind: FaultKind, servers: readonly ServerName[]): readonly NodeName[] {
	if (kind.endsWith(" broker")) return CLIENTS.broker;
	if (kind.endsWith(" store")) return CLIENTS.store;
	const needsFiles = kind === "fullDisk" || kind === "ioError";
	if (!needsFiles || !servers.includes("store")) return NODES;
	return NODES.filter((node) => !COORDINATORS.includes(node));
}

function fault(dice: Dice, kind: FaultKind, at: number, servers: readonly ServerName[]): Fault {
	const victims = victimsOf(kind, servers);
	const node = dice.pick(victims);
	switch (kind) {
		case "kill":
			return { kind, at, node, ms: dice.between(200, 3_000) };
		case "broker":
		case "store":
			return { kind, at, ms: dice.between(500, 5_000) };
		case "blackout":
			return { kind, at, ms: dice.between(200, 1_000) };
		case "restart":
			return { kind, at, node, ms: dice.between(0, 1_000) };
		case "pause":
			// One in eight is held for dead by the others, which takes 10 s.
			return { kind, at, node, ms: dice.chance(0.125) ? 12_000 : dice.between(700, 4_000) };
		case "fullDisk":
			return { kind, at, node, ms: dice.between(1_000, 4_000) };
		case "ioError":
			return { kind, at, node, ms: 0, after: dice.chance(0.5) };
		case "cut":
		case "cut broker":
		case "cut store":
			return { kind, at, ...wayOf(dice, kind, node, victims), ms: 0 };
		case "blackhole":
		case "blackhole broker":
		case "blackhole store": {
			const way = wayOf(dice, kind, node, victims);
			return { kind, at, ...way, ms: dice.between(1_500, 6_000), dies: dice.chance(0.5) };
		}
		case "latency":
		case "latency broker":
		case "latency store": {
			const way = wayOf(dice, kind, node, victims);
			const delay = dice.between(20, 400);
			return { kind, at, ...way, ms: dice.between(1_000, 5_000), delay };
		}
	}
}

/** From the node to another, or to the server that the kind names: from it alone, or from all. */
function wayOf(dice: Dice, kind: On<Way>, node: NodeName, clients: readonly NodeName[]): OnTheWay {
	const [, server] = kind.split(" ") as [Way, ServerName?];
	if (server === undefined) return { nodes: [node], peer: peerOf(dice, node) };
	return { nodes: dice.chance(0.5) ? clients : [node], peer: server };
}

/** Participants have most to say to coordinators. */
function peerOf(dice: Dice, node: NodeName): NodeName {
	const others = NODES.filter((other) => other !== node);
	const coordinators = others.filter((other) => COORDINATORS.includes(other));
	return dice.pick(dice.chance(0.8) ? coordinators : others);
}
