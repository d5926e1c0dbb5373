import { setTimeout as sleep } from "node:timers/promises";

import { ERRORS } from "../../../protocol/index.ts";
import { CoordinatorFile } from "../random/coordinator-file.ts";
import { compare, type Verdict } from "../random/ledger.ts";
import { Network } from "../random/network.ts";
import { Processes } from "../random/processes.ts";
import { settled } from "../random/settled.ts";
import { type Figures, type NodeName, type Peer, SQLITE } from "../random/words.ts";
import { type Memory, memoryOf, type Sample } from "./memory.ts";

/** One coordinator, producers and consumers. */
const NODES: readonly NodeName[] = ["k1", "p1", "p2", "p3", "c1", "c2", "c3"];
const PRODUCERS = NODES.filter((name) => name.startsWith("p"));
const CONSUMERS = NODES.filter((name) => name.startsWith("c"));

/** Callers of one producer's process, where they wait for each other: enough to keep all busy. */
const CALLERS = 16;
/** What is offered, as a multiple of the sustainable rate. */
const TIMES = 2;
/** Part of the sustainable rate that counts as full speed. */
const FULL = 0.9;
/** Who was too busy to be asked about a group is asked again after 5 minutes at the most. */
const CHECKED_MS = 330_000;
/** Longest time of one window in which the rate is looked at after the overload. */
const WINDOW_MS = 2_000;
/** Time from one sample of memory to the next. */
const SAMPLED_MS = 5_000;
/** In a short run there are at least this many. */
const SAMPLES = 12;
/** So many samples until the next is told. */
const TOLD = 12;

export interface OverloadOptions {
	/** How long too much is offered. */
	readonly seconds: number;
	readonly seed: string;
	readonly folder: string;
	readonly tell: (text: string) => void;
}

/** What a run came to. Rates are messages that took effect, or transactions, a second. */
export interface Overload extends Verdict {
	readonly rates: {
		/** Effects while as many callers as can be wait for each other, before the overload. */
		readonly sustainable: number;
		/** The most effects of any part of the overload: what is offered is twice of it, from then on. */
		readonly peak: number;
		/** Transactions begun, committed, and their effects, during the overload. */
		readonly offered: number;
		readonly committed: number;
		readonly effects: number;
		/** Like `sustainable`, after the overload. */
		readonly after: number;
	};
	/** Transactions of the overload that were refused, by the error's code. */
	readonly refused: Readonly<Record<string, number>>;
	/** Errors that callers got and that say nothing of trying again. */
	readonly unexpected: number;
	/** By process, before, during and after the overload. */
	readonly memory: Readonly<Record<string, Memory>>;
	/** From the end of the overload until effects come at full speed again. */
	readonly recoverySeconds: number;
	readonly misbehaviour: readonly string[];
}

/** Finds the rate that can be sustained, offers twice of it, and looks what becomes of it. */
export async function overload(options: OverloadOptions): Promise<Overload> {
	const { seconds, seed, folder, tell } = options;
	const network = new Network<Peer>();
	const processes = new Processes({
		nodes: NODES,
		calm: true,
		folder,
		guarantee: "transactional",
		delivery: "direct",
		store: SQLITE,
		seed,
		network,
		tell,
	});
	const measured = Math.min(Math.max(seconds / 4, 5), 30) * 1_000;
	let data: CoordinatorFile | undefined;
	try {
		await processes.start();
		data = new CoordinatorFile(folder);
		const load = new Load(processes);

		load.press(CALLERS);
		await sleep(measured / 2);
		const before = await load.rates(() => sleep(measured));
		load.press(0);
		const sustainable = before.effects;
		tell(`Sustainable: ${sustainable.toFixed(0)} a second; letting it come to rest`);
		await settled(data, measured * 10);
		const atRest = await load.sample(0);

		let peak = sustainable;
		tell(`Offering ${(TIMES * peak).toFixed(0)} a second for ${seconds} s`);
		load.offer(TIMES * peak);
		const samples: Sample[] = [];
		const during = await load.rates(async () => {
			const start = Date.now();
			const every = Math.min((seconds * 1_000) / SAMPLES, SAMPLED_MS);
			for (let at = 0; at < seconds * 1_000; at = Date.now() - start) {
				const { effects } = await load.rates(async () => {
					samples.push(await load.sample(at / 1_000));
					if (samples.length % TOLD === 1) tell(describe(samples.at(-1)));
					await sleep(every - ((Date.now() - start) % every));
				});
				// A machine that others work on sustains more at some times than at others.
				if (effects <= peak) continue;
				peak = effects;
				tell(
					`${peak.toFixed(0)} a second take effect: offering ${(TIMES * peak).toFixed(0)}`,
				);
				load.offer(TIMES * peak);
			}
		});
		load.offer(0);
		load.press(CALLERS);
		const { recoverySeconds, after } = await recovery(load, sustainable, measured);
		load.press(0);
		tell("Waiting for the rest");
		// As much as was committed and not delivered, at the rate of delivery, and again.
		const left = Math.max(during.committed - during.effects, 0) * seconds;
		await settled(data, CHECKED_MS + (2_000 * left) / Math.max(after, 1), 1_000);
		const restAgain = await load.sample(seconds);
		await processes.stop();

		const { ok: committed = 0, ...refused } = during.results;
		const verdict = await compare(folder, processes.harmed, data, NODES);
		return {
			...verdict,
			rates: {
				sustainable,
				peak,
				offered: during.begun,
				committed: committed / during.seconds,
				effects: during.effects,
				after,
			},
			refused,
			unexpected: sum(
				Object.entries(refused).map(([code, count]) => (isRetryable(code) ? 0 : count)),
			),
			memory: Object.fromEntries(
				NODES.map((name) => [name, memoryOf(atRest, samples, restAgain, name)]),
			),
			recoverySeconds,
			misbehaviour: processes.misbehaviour,
		};
	} finally {
		data?.close();
		await processes.clear();
		network.close();
	}
}

/** Looks when effects come at full speed again: that from before, or what the machine gives now. */
async function recovery(
	load: Load,
	sustainable: number,
	measured: number,
): Promise<{ recoverySeconds: number; after: number }> {
	const start = Date.now();
	const windows: { ended: number; rate: number }[] = [];
	while (Date.now() - start < 10_000 + measured) {
		const { effects } = await load.rates(() => sleep(WINDOW_MS));
		windows.push({ ended: Date.now() - start, rate: effects });
	}
	const last = windows.filter(({ ended }) => ended > 10_000);
	const after = sum(last.map(({ rate }) => rate)) / last.length;
	const full = FULL * Math.min(sustainable, after);
	const first = windows.find(({ rate }) => rate >= full);
	return { recoverySeconds: (first?.ended ?? Infinity) / 1_000, after };
}

/** What was counted over some time, a second; `results` as it is. */
interface Rates {
	readonly seconds: number;
	readonly begun: number;
	readonly committed: number;
	readonly effects: number;
	readonly results: Readonly<Record<string, number>>;
}

/** The producers' load, and what all processes say of themselves. */
class Load {
	readonly #processes: Processes;

	constructor(processes: Processes) {
		this.#processes = processes;
	}

	press(callers: number): void {
		for (const name of PRODUCERS) this.#processes.command(name, { do: "press", callers });
	}

	/** @param perSecond transactions of all producers together */
	offer(perSecond: number): void {
		const each = perSecond / PRODUCERS.length;
		for (const name of PRODUCERS)
			this.#processes.command(name, { do: "offer", perSecond: each });
	}

	/** Counts what happens during `meanwhile`. */
	async rates(meanwhile: () => Promise<unknown>): Promise<Rates> {
		const first = await this.#counts();
		await meanwhile();
		const last = await this.#counts();
		const seconds = (last.at - first.at) / 1_000;
		const results: Record<string, number> = {};
		for (const [code, count] of Object.entries(last.results)) {
			const more = count - (first.results[code] ?? 0);
			if (more > 0) results[code] = more;
		}
		return {
			seconds,
			begun: (last.begun - first.begun) / seconds,
			committed: (results["ok"] ?? 0) / seconds,
			effects: (last.effects - first.effects) / seconds,
			results,
		};
	}

	/** Memory of all processes, without garbage. */
	async sample(at: number): Promise<Sample> {
		const figures = await this.#figures(NODES, true);
		return { at, of: Object.fromEntries(NODES.map((name, place) => [name, figures[place]])) };
	}

	async #counts() {
		const producers = await this.#figures(PRODUCERS);
		const consumers = await this.#figures(CONSUMERS);
		const results: Record<string, number> = {};
		for (const one of producers) {
			for (const [code, count] of Object.entries(one.results))
				results[code] = (results[code] ?? 0) + count;
		}
		return {
			at: Date.now(),
			begun: sum(producers.map(({ begun }) => begun)),
			effects: sum(consumers.map(({ effects }) => effects)),
			results,
		};
	}

	#figures(names: readonly NodeName[], collect = false): Promise<Figures[]> {
		return Promise.all(names.map((name) => this.#processes.figures(name, collect)));
	}
}

function describe(sample: Sample | undefined): string {
	const all = Object.entries(sample?.of ?? {}).map(
		([name, figures]) => `${name} ${((figures?.heap ?? 0) / 2 ** 20).toFixed(0)} MiB`,
	);
	return `${sample?.at.toFixed(0)} s: heap of ${all.join(", ")}`;
}

function isRetryable(code: string): boolean {
	return Object.hasOwn(ERRORS, code) && ERRORS[code as keyof typeof ERRORS].retryable;
}

function sum(values: readonly number[]): number {
	return values.reduce((total, value) => total + value, 0);
}
