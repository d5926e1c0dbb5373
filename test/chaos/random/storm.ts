import { setTimeout as sleep } from "node:timers/promises";

import type { Network } from "./network.ts";
import { type Fault, victimsOf, type WayFault } from "./plan.ts";
import type { Processes } from "./processes.ts";
import type { ChaosServer } from "./servers.ts";
import { type NodeName, NODES, type Peer, type ServerName } from "./words.ts";

/** How often it is looked what is due. */
const POLL_MS = 20;
const LATE_MS = 120_000;

/** What the schedule is played on. */
export interface Playground {
	readonly processes: Processes;
	readonly network: Network<Peer>;
	readonly servers: Readonly<Partial<Record<ServerName, ChaosServer>>>;
	/** Called between the kill and the next start. */
	readonly killed: (node: NodeName) => Promise<void>;
	readonly tell: (text: string) => void;
}

/** What was played. */
export interface Played {
	/** By kind. */
	readonly faults: Record<string, number>;
	/** Kinds at distinct places. */
	readonly points: number;
}

/**
 * Plays the schedule, and resolves when every fault is over. A fault of a process that does not
 * run just then strikes the next one that does; where none does, it is left out and not counted,
 * or, as long as its kind has struck nobody, it waits.
 *
 * @param late how long it goes on for a kind that has not struck anybody yet; milliseconds
 */
export async function storm(
	schedule: readonly Fault[],
	ms: number,
	playground: Playground,
	late = LATE_MS,
): Promise<Played> {
	const start = Date.now();
	const faults: Record<string, number> = {};
	const points = new Set<string>();
	const underway: Promise<void>[] = [];
	let left = [...schedule];
	for (let now = 0; ; now = Date.now() - start) {
		const waiting: Fault[] = [];
		for (const planned of left) {
			const isDue = planned.at <= now;
			const fault = isDue ? struck(planned, playground) : undefined;
			if (!fault) {
				if (!isDue || faults[planned.kind] === undefined) waiting.push(planned);
				continue;
			}
			faults[fault.kind] = (faults[fault.kind] ?? 0) + 1;
			points.add([fault.kind, ...placesOf(fault)].join(" "));
			playground.tell(describe(fault));
			underway.push(play(fault, playground));
		}
		left = waiting;
		if (now >= ms && (left.length === 0 || now >= ms + late)) break;
		await sleep(POLL_MS);
	}
	await Promise.all(underway);
	return { faults, points: points.size };
}

/** @returns the fault with those that it can strike now; undefined: it can't act */
function struck(fault: Fault, { processes, network, servers }: Playground): Fault | undefined {
	const victims = victimsOf(fault.kind, Object.keys(servers) as ServerName[]);
	const isUp = (name: NodeName) => processes.isUp(name);
	if ("node" in fault) {
		const node = inTurn(fault.node, victims).find(isUp);
		return node && { ...fault, node };
	}
	if (fault.kind === "broker" || fault.kind === "store")
		return servers[fault.kind]?.isUp ? fault : undefined;
	if (fault.kind === "blackout") return NODES.some(isUp) ? fault : undefined;
	for (const peer of isServer(fault.peer) ? [fault.peer] : inTurn(fault.peer, NODES)) {
		const can = (node: NodeName) =>
			isUp(node) &&
			(isServer(peer) || (peer !== node && isUp(peer))) &&
			// What is not connected can't be cut.
			(!fault.kind.startsWith("cut") || network.isOpen(node, peer));
		const planned = fault.nodes.filter(can);
		const others = inTurn(fault.nodes[0], victims).filter(can);
		const nodes = planned.length > 0 ? planned : others.slice(0, 1);
		if (nodes.length > 0) return { ...fault, peer, nodes };
	}
	return undefined;
}

function isServer(peer: Peer): peer is ServerName {
	return peer === "broker" || peer === "store";
}

/** All of them, beginning with this one. */
function inTurn(first: NodeName | undefined, all: readonly NodeName[]): readonly NodeName[] {
	const place = all.findIndex((name) => name === first);
	return [...all.slice(place), ...all.slice(0, place)];
}

/** One process, the two ends of a link, or all. */
function placesOf(fault: Fault): readonly string[] {
	if ("peer" in fault) return [...fault.nodes, fault.peer];
	if ("node" in fault) return [fault.node];
	return fault.kind === "blackout" ? NODES : [];
}

async function play(
	fault: Fault,
	{ processes, network, servers, killed }: Playground,
): Promise<void> {
	const { ms } = fault;
	if (fault.kind === "blackout") {
		await Promise.all(NODES.map((name) => processes.kill(name, ms, () => killed(name))));
		return;
	}
	if (fault.kind === "broker" || fault.kind === "store") {
		await servers[fault.kind]?.outage(ms);
		return;
	}
	if ("peer" in fault) return hamper(fault, network);
	const { node } = fault;
	switch (fault.kind) {
		case "kill":
			return processes.kill(node, ms, () => killed(node));
		case "restart":
			return processes.restart(node, ms);
		case "pause":
			return processes.pause(node, ms);
		case "fullDisk":
			processes.command(node, { do: "full", on: true });
			await sleep(ms);
			processes.command(node, { do: "full", on: false });
			return;
		case "ioError":
			processes.command(node, { do: "ioError", after: fault.after });
	}
}

async function hamper(fault: WayFault, network: Network<Peer>): Promise<void> {
	const { nodes, peer, ms } = fault;
	if ("dies" in fault) {
		for (const node of nodes) network.hold(node, peer);
		await sleep(ms);
		for (const node of nodes) network.release(node, peer, fault.dies);
	} else if ("delay" in fault) {
		for (const node of nodes) network.slow(node, peer, fault.delay);
		await sleep(ms);
		for (const node of nodes) network.slow(node, peer, -fault.delay);
	} else {
		for (const node of nodes) network.cut(node, peer);
	}
}

function describe({ at, kind, ms, ...more }: Fault): string {
	const rest = Object.entries(more).map(([name, value]) => `${name} ${String(value)}`);
	const text = [kind, ms > 0 ? `for ${ms} ms` : "", ...rest].filter(Boolean).join(" ");
	return `${(at / 1_000).toFixed(1)} s: ${text}`;
}
