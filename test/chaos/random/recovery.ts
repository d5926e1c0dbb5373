import type { CoordinatorFile, OpenGroup } from "./coordinator-file.ts";
import type { Processes } from "./processes.ts";
import { CHECK_AFTER_MS, COORDINATORS, type NodeName, NODES, SERVICES } from "./words.ts";

const POLL_MS = 200;

interface Waiting {
	readonly group: OpenGroup;
	readonly kill: Kill;
	/** When it is due: not before the kill. */
	readonly from: number;
	readonly done: (now: OpenGroup) => boolean;
	waited: number;
}

interface Kill {
	longest: number;
}

/**
 * How long it takes until somebody takes up what a killed process left: the slowest of its groups,
 * for each kill. Time counts only while those live who can do it (PROTOCOL, section 9).
 */
export class Recovery {
	readonly #processes: Processes;
	readonly #file: CoordinatorFile;
	readonly #kills: Kill[] = [];
	#waiting: Waiting[] = [];
	#last = Date.now();
	readonly #timer: NodeJS.Timeout;

	constructor(processes: Processes, file: CoordinatorFile) {
		this.#processes = processes;
		this.#file = file;
		this.#timer = setInterval(() => this.#poll(), POLL_MS);
	}

	/** Notes what the process leaves that was just killed. */
	killed(node: NodeName): void {
		const kill = { longest: -1 };
		const now = Date.now();
		if (COORDINATORS.includes(node)) {
			for (const group of this.#file.leasedBy(node)) {
				const done = ({ version }: OpenGroup) => version !== group.version;
				this.#waiting.push({ group, kill, from: now, done, waited: 0 });
			}
		}
		for (const group of this.#file.preparedBy(node)) {
			const from = Math.max(now, group.createdAt + CHECK_AFTER_MS);
			const done = ({ state }: OpenGroup) => state !== "prepared";
			this.#waiting.push({ group, kill, from, done, waited: 0 });
		}
		this.#kills.push(kill);
	}

	/** @returns the times of all kills that left something, sorted, in milliseconds */
	stop(): number[] {
		clearInterval(this.#timer);
		this.#poll();
		for (const { kill } of this.#waiting) kill.longest = Number.POSITIVE_INFINITY;
		return this.#kills
			.map(({ longest }) => longest)
			.filter((ms) => ms >= 0)
			.sort((a, b) => a - b);
	}

	#poll(): void {
		const now = Date.now();
		const since = this.#last;
		this.#last = now;
		this.#waiting = this.#waiting.filter((one) => {
			const stands = this.#file.one(one.group.id);
			const over = !stands || one.done(stands);
			if (this.#canGoOn(one)) one.waited += Math.max(now - Math.max(since, one.from), 0);
			if (over) one.kill.longest = Math.max(one.kill.longest, one.waited);
			return !over;
		});
	}

	#canGoOn({ group }: Waiting): boolean {
		const hosts = NODES.filter((node) => SERVICES[node]?.includes(group.source));
		return this.#alive(COORDINATORS) && (group.state !== "prepared" || this.#alive(hosts));
	}

	/** A paused process may hold the lock of the file that it shares with the others (R31). */
	#alive(nodes: readonly NodeName[]): boolean {
		return (
			nodes.some((node) => this.#processes.isUp(node)) &&
			!nodes.some((node) => this.#processes.isPaused(node))
		);
	}
}
