import { setTimeout as sleep } from "node:timers/promises";

import type { Network } from "./network.ts";
import type { Fault, ServerFault } from "./plan.ts";
import type { Processes } from "./processes.ts";
import type { ChaosServer } from "./servers.ts";
import { type NodeName, NODES } from "./words.ts";

/** What the schedule is played on. */
export interface Playground {
	readonly processes: Processes;
	readonly network: Network<NodeName>;
	readonly servers: Readonly<Partial<Record<ServerFault, ChaosServer>>>;
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
 * run just then strikes the next one that does, or, where none does, nobody.
 */
export async function storm(
	schedule: readonly Fault[],
	ms: number,
	playground: Playground,
): Promise<Played> {
	const start = Date.now();
	const faults: Record<string, number> = {};
	const points = new Set<string>();
	const underway: Promise<void>[] = [];
	for (const planned of schedule) {
		await sleep(Math.max(start + planned.at - Date.now(), 0));
		const fault = struck(planned, playground.processes);
		if (!fault) continue;
		const places = placesOf(fault);
		faults[fault.kind] = (faults[fault.kind] ?? 0) + 1;
		points.add([fault.kind, ...places].join(" "));
		playground.tell(describe(fault));
		underway.push(play(fault, playground));
	}
	await sleep(Math.max(start + ms - Date.now(), 0));
	await Promise.all(underway);
	return { faults, points: points.size };
}

function struck(fault: Fault, processes: Processes): Fault | undefined {
	if (!("node" in fault) || "peer" in fault) return fault;
	const place = NODES.findIndex((name) => name === fault.node);
	const inTurn = [...NODES.slice(place), ...NODES.slice(0, place)];
	const node = inTurn.find((name) => processes.isUp(name));
	return node && { ...fault, node };
}

/** One process, the two ends of a link, or all. */
function placesOf(fault: Fault): readonly NodeName[] {
	if (fault.kind === "broker" || fault.kind === "store") return [];
	if ("peer" in fault) return [fault.node, fault.peer];
	return "node" in fault ? [fault.node] : NODES;
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
			return;
		case "cut":
			network.cut(node, fault.peer);
			return;
		case "blackhole":
			network.hold(node, fault.peer);
			await sleep(ms);
			network.release(node, fault.peer, fault.dies);
			return;
		case "latency":
			network.slow(node, fault.peer, fault.delay);
			await sleep(ms);
			network.slow(node, fault.peer, -fault.delay);
	}
}

function describe({ at, kind, ms, ...more }: Fault): string {
	const rest = Object.entries(more).map(([name, value]) => `${name} ${String(value)}`);
	const text = [kind, ms > 0 ? `for ${ms} ms` : "", ...rest].filter(Boolean).join(" ");
	return `${(at / 1_000).toFixed(1)} s: ${text}`;
}
