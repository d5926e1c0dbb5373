import type { CoordinatorData, OpenGroup } from "./coordinator-file.ts";
import type { Processes } from "./processes.ts";
import { CHECK_AFTER_MS, COORDINATORS, type NodeName, NODES, SERVICES } from "./words.ts";

const POLL_MS = 200;
/** More than this between two looks is time in which this process stood still. */
const LONGEST_LOOK_MS = 1_000;
/** Work of a coordinator that will be due this soon was on its way when it died. */
const SOON_MS = 2_000;

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
	readonly #data: CoordinatorData;
	readonly #soon: number;
	readonly #kills: Kill[] = [];
	readonly #waiting: Waiting[] = [];
	#polling: Promise<void> | undefined;
	#last = Date.now();
	readonly #timer: NodeJS.Timeout;

	/** @param soon work of a coordinator that is due within so many milliseconds was on its way */
	constructor(processes: Processes, data: CoordinatorData, soon = SOON_MS) {
		this.#soon = soon;
		this.#processes = processes;
		this.#data = data;
		this.#timer = setInterval(() => void this.#poll(), POLL_MS);
	}

	/** Notes what the process leaves that was just killed; nothing while the store is away. */
	async killed(node: NodeName): Promise<void> {
		const now = Date.now();
		try {
			const isCoordinator = COORDINATORS.includes(node);
			const leased = isCoordinator ? await this.#data.leasedBy(node, this.#soon) : [];
			const prepared = await this.#data.preparedBy(node);
			const kill = { longest: -1 };
			for (const group of leased) {
				const done = ({ version }: OpenGroup) => version !== group.version;
				this.#waiting.push({ group, kill, from: now, done, waited: 0 });
			}
			for (const group of prepared) {
				const from = Math.max(now, group.createdAt + CHECK_AFTER_MS);
				const done = ({ state }: OpenGroup) => state !== "prepared";
				this.#waiting.push({ group, kill, from, done, waited: 0 });
			}
			this.#kills.push(kill);
		} catch {
			// Nobody can go on without the store, either.
		}
	}

	/** @returns the times of all kills that left something, sorted, in milliseconds */
	async stop(): Promise<number[]> {
		clearInterval(this.#timer);
		await this.#polling;
		await this.#poll();
		for (const { kill } of this.#waiting) kill.longest = Number.POSITIVE_INFINITY;
		return this.#kills
			.map(({ longest }) => longest)
			.filter((ms) => ms >= 0)
			.sort((a, b) => a - b);
	}

	/** One poll after the other: a store may answer slowly. */
	#poll(): Promise<void> {
		this.#polling ??= this.#look().finally(() => (this.#polling = undefined));
		return this.#polling;
	}

	async #look(): Promise<void> {
		const now = Date.now();
		const since = this.#last;
		try {
			for (const one of [...this.#waiting]) {
				const stands = await this.#data.one(one.group.id);
				const over = !stands || one.done(stands);
				const time = Math.max(now - Math.max(since, one.from), 0);
				if (this.#canGoOn(one)) one.waited += Math.min(time, LONGEST_LOOK_MS);
				if (!over) continue;
				one.kill.longest = Math.max(one.kill.longest, one.waited);
				this.#waiting.splice(this.#waiting.indexOf(one), 1);
			}
			this.#last = now;
		} catch {
			// The store is away: this time does not count.
			this.#last = Date.now();
		}
	}

	#canGoOn({ group }: Waiting): boolean {
		const hosts = NODES.filter((node) => SERVICES[node]?.includes(group.source));
		return (
			this.#alive(COORDINATORS, this.#data.isFile) &&
			(group.state !== "prepared" || this.#alive(hosts, true))
		);
	}

	/** A paused process may hold the lock of the file that it shares with the others (R31). */
	#alive(nodes: readonly NodeName[], shareFile: boolean): boolean {
		return (
			nodes.some((node) => this.#processes.isUp(node)) &&
			!(shareFile && nodes.some((node) => this.#processes.isPaused(node)))
		);
	}
}
