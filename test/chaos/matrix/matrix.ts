import type { Random } from "../../../protocol/index.ts";
import { seededRandom } from "./clock.ts";
import type { Breaches } from "./ledger.ts";
import { fingerprint, type Outcome, play, type Remains, type RunOptions, Yard } from "./play.ts";
import { allPoints, type Point } from "./points.ts";
import { type Scenario, SCENARIOS } from "./scenarios.ts";

export interface MatrixOptions {
	/** Chooses the pairs. */
	readonly seed: number;
	/** Pairs of crashes in each scenario. */
	readonly pairs: number;
	/**
	 * What counts as one crash more: `points`: each point together with each state of the disk that
	 * it is met in; `disks`: each state of the disk. @default "points"
	 */
	readonly each?: "points" | "disks";
	/**
	 * Single crashes of each scenario, a seeded sample; points at which no scenario before has
	 * crashed are always in it. @default all of them
	 */
	readonly most?: number;
	/** Times that a crash at the same point is considered in a scenario. @default always */
	readonly times?: number;
	/** @default all of them */
	readonly scenarios?: readonly Scenario[];
	/** Told of each scenario at its end. */
	readonly progress?: (scenario: string, crashes: number, breaches: readonly string[]) => void;
}

/** The figures of a run. */
export interface MatrixResult {
	readonly seed: number;
	/** Fault points of the registry. */
	readonly points: number;
	/** Crashes injected. */
	crashes: number;
	/** Runs with two crashes or more among them. */
	pairs: number;
	/** Transactions that were followed to their end. */
	transactions: number;
	lost: number;
	phantom: number;
	doubles: number;
	/** Anything else that PROTOCOL, section 8, forbids. */
	wrong: number;
	/** Points that no scenario crashed at. */
	unhit: Point[];
	ok: boolean;
}

/** Where a sample is taken: how often a crash at the same point is considered, and what part of the rest. */
const ALWAYS_TIMES = 3;
const SAMPLED = 0.1;

/** How long nothing runs after a crash: less, and more, than leases, time-outs and retries take. */
const OUTAGES_MS = [1_000, 15_000, 600_000];

/** Crashes every scenario at every point that it comes by, and at pairs of them. */
export async function runMatrix(options: MatrixOptions): Promise<MatrixResult> {
	const points = allPoints();
	const result: MatrixResult = {
		seed: options.seed,
		points: points.length,
		crashes: 0,
		pairs: 0,
		transactions: 0,
		lost: 0,
		phantom: 0,
		doubles: 0,
		wrong: 0,
		unhit: [],
		ok: false,
	};
	const hit = new Set<Point>();
	const yard = new Yard();
	try {
		for (const scenario of options.scenarios ?? SCENARIOS) {
			const before = result.crashes;
			const run = new ScenarioRun(yard, scenario, options, result, hit);
			await run.all();
			options.progress?.(scenario.name, result.crashes - before, run.breaches);
		}
	} finally {
		yard.remove();
	}
	result.unhit = points.filter((point) => !hit.has(point));
	const { lost, phantom, doubles, wrong } = result;
	result.ok = lost + phantom + doubles + wrong + result.unhit.length === 0;
	return result;
}

class ScenarioRun {
	/** A sentence for each, with where the crashes were. */
	readonly breaches: string[] = [];
	readonly #yard: Yard;
	readonly #scenario: Scenario;
	readonly #options: MatrixOptions;
	readonly #result: MatrixResult;
	readonly #hit: Set<Point>;
	readonly #random: Random;
	readonly #seen = new Map<Point, number>();

	constructor(
		yard: Yard,
		scenario: Scenario,
		options: MatrixOptions,
		result: MatrixResult,
		hit: Set<Point>,
	) {
		this.#yard = yard;
		this.#scenario = scenario;
		this.#options = options;
		this.#result = result;
		this.#hit = hit;
		this.#random = seededRandom(options.seed);
	}

	async all(): Promise<void> {
		const from = await this.#opening();
		const states = new Map<string, Remains>();
		await this.#play("no further crash", {
			...(from && { from }),
			collect: (point) => this.#isWanted(point),
			collected: (remains) => {
				const key = this.#keyOf(remains);
				if (states.has(key)) this.#yard.remove(remains.folder);
				else states.set(key, remains);
			},
		});
		const firsts = this.#sample([...states.values()]);
		for (let done = 0; done < this.#options.pairs; done++) await this.#pair(this.#pick(firsts));
		for (const remains of firsts) {
			this.#result.crashes++;
			await this.#play(remains.point, { from: remains });
		}
	}

	/** @returns those to go on from: one of each point that is new, and others up to the limit */
	#sample(states: readonly Remains[]): Remains[] {
		const chosen: Remains[] = [];
		const others: Remains[] = [];
		for (const remains of states) {
			if (this.#hit.has(remains.point)) others.push(remains);
			else chosen.push(remains);
			this.#hit.add(remains.point);
		}
		const most = this.#options.most ?? Infinity;
		while (others.length > 0) {
			const [one] = others.splice(Math.floor(this.#random.fraction() * others.length), 1);
			if (!one) break;
			if (chosen.length < most) chosen.push(one);
			else this.#yard.remove(one.folder);
		}
		return chosen;
	}

	/** Brings the scenario to where it begins. */
	async #opening(): Promise<Remains | undefined> {
		const { after } = this.#scenario;
		if (after === undefined) return undefined;
		const { remains } = await this.#play("opening", { crashAt: after });
		this.#hit.add(after);
		this.#result.crashes++;
		return remains[0];
	}

	/** Crashes once, then again somewhere on the way of the recovery. */
	async #pair(first: Remains): Promise<void> {
		const outage = this.#pick(OUTAGES_MS);
		const run = { from: first, again: true, outage };
		const { reached } = await this.#play(`${first.point} (${outage} ms)`, run);
		this.#result.crashes++;
		const chosen = Math.floor(this.#random.fraction() * reached);
		const { remains } = await this.#play(first.point, {
			...run,
			collect: (_, nth) => nth === chosen,
		});
		const second = remains[0];
		if (!second) return;
		this.#result.crashes += 2;
		this.#result.pairs++;
		const name = `${first.point} (${outage} ms), then ${second.point}`;
		await this.#play(name, { from: second, outage: this.#pick(OUTAGES_MS) });
	}

	async #play(name: string, options: Omit<RunOptions, "scenario">): Promise<Outcome> {
		const outcome = await play(this.#yard, { ...options, scenario: this.#scenario });
		if (options.crashAt === undefined) this.#result.transactions++;
		this.#note(name, outcome.breaches);
		return outcome;
	}

	#note(name: string, breaches: Breaches): void {
		for (const [kind, sentences] of Object.entries(breaches) as [keyof Breaches, string[]][]) {
			this.#result[kind] += sentences.length;
			for (const sentence of sentences) this.breaches.push(`${name}: ${kind}: ${sentence}`);
		}
	}

	#isWanted(point: Point): boolean {
		const seen = (this.#seen.get(point) ?? 0) + 1;
		this.#seen.set(point, seen);
		if (seen > (this.#options.times ?? Infinity)) return false;
		if (this.#options.most === undefined || seen <= ALWAYS_TIMES) return true;
		return this.#random.fraction() < SAMPLED;
	}

	#keyOf(remains: Remains): string {
		const disk = fingerprint(remains);
		return this.#options.each === "disks" ? disk : `${disk} ${remains.point}`;
	}

	#pick<T>(from: readonly T[]): T {
		return from[Math.floor(this.#random.fraction() * from.length)] as T;
	}
}
