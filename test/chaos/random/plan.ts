import type { Guarantee } from "../../../protocol/index.ts";
import { Dice } from "./dice.ts";
import { COORDINATORS, type NodeName, NODES } from "./words.ts";

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
		| { readonly kind: "cut"; readonly node: NodeName; readonly peer: NodeName }
		/** `dies`: what was on the way is lost with its connection, instead of arriving late. */
		| {
				readonly kind: "blackhole";
				readonly node: NodeName;
				readonly peer: NodeName;
				readonly dies: boolean;
		  }
		| {
				readonly kind: "latency";
				readonly node: NodeName;
				readonly peer: NodeName;
				readonly delay: number;
		  }
	);

export type FaultKind = Fault["kind"];

/** The message broker, and the coordinators' store where it is no file. */
export type ServerFault = Extract<FaultKind, "broker" | "store">;

/** How often each kind comes, relative to the others. */
const WEIGHTS: Record<Exclude<FaultKind, ServerFault>, number> = {
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
const NEVER_MISSING = ["kill", "pause", "cut", "blackhole", "latency", "fullDisk"] as const;

const SERVER_WEIGHT = 8;
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
	servers: readonly ServerFault[] = [],
): Fault[] {
	const weights: Partial<Record<FaultKind, number>> = {
		...WEIGHTS,
		...Object.fromEntries(servers.map((server) => [server, SERVER_WEIGHT])),
	};
	const dice = new Dice(`plan ${seed} ${guarantee}`);
	const first = dice.shuffled<FaultKind>([...NEVER_MISSING, ...servers]);
	const end = seconds * 1_000;
	const everyOfFirst = Math.min(EVERY_MS, (0.6 * (end - FIRST_MS)) / first.length);
	const faults: Fault[] = [];
	for (let at = FIRST_MS; at < end;) {
		const every = first.length > 0 ? everyOfFirst : EVERY_MS;
		const kind = first.pop() ?? dice.weighted(weights as Record<FaultKind, number>);
		faults.push(fault(dice, kind, at));
		at += dice.between(Math.floor(every / 3), Math.floor((every * 5) / 3));
	}
	return faults;
}

function fault(dice: Dice, kind: FaultKind, at: number): Fault {
	const node = dice.pick(NODES);
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
			return { kind, at, node, peer: peerOf(dice, node), ms: 0 };
		case "blackhole": {
			const peer = peerOf(dice, node);
			return { kind, at, node, peer, ms: dice.between(1_500, 6_000), dies: dice.chance(0.5) };
		}
		case "latency": {
			const peer = peerOf(dice, node);
			const delay = dice.between(20, 400);
			return { kind, at, node, peer, ms: dice.between(1_000, 5_000), delay };
		}
	}
}

/** Participants have most to say to coordinators. */
function peerOf(dice: Dice, node: NodeName): NodeName {
	const others = NODES.filter((other) => other !== node);
	const coordinators = others.filter((other) => COORDINATORS.includes(other));
	return dice.pick(dice.chance(0.8) ? coordinators : others);
}
