import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { turns } from "./clock.ts";
import {
	audit,
	seenBy,
	type Breaches,
	isQuiet,
	keptRows,
	rowsIn,
	type Told,
	unrecordedIn,
} from "./ledger.ts";
import type { Point } from "./points.ts";
import { begin, lookAfter, type Scenario } from "./scenarios.ts";
import { QUIET_TURNS, World } from "./world.ts";

const START = Date.UTC(2026, 0, 1);
/** From a crash to the next start of the process. */
const RESTART_MS = 1_000;
/** Longer than anything is kept. */
const LONG_MS = 9 * 86_400_000;
/** Timers after which it counts as never ending. */
const MOST_STEPS = 4_000;
/** Timers that sweeps and retention need. */
const TIDY_STEPS = 60;

/** What a crash left: the files, and what the callers had been told. */
export interface Remains {
	readonly point: Point;
	readonly folder: string;
	readonly now: number;
	readonly told: Told;
}

/** What became of one run. */
export interface Outcome {
	readonly breaches: Breaches;
	/** How many points it came by. */
	readonly reached: number;
	/** What later crashes would leave: one for each point reached, where asked for. */
	readonly remains: Remains[];
}

export interface RunOptions {
	readonly scenario: Scenario;
	/** Where it begins; left out: with empty files. */
	readonly from?: Remains;
	/** Keeps what is left for another run. @default false */
	readonly again?: boolean;
	/** Keep what a crash at this point, the run's nth, would leave. */
	readonly collect?: (point: Point, nth: number) => boolean;
	/** Gets what is kept, as soon as it is there. @default it comes with the outcome */
	readonly collected?: (remains: Remains) => void;
	/** Crash for real at the first of these points; then nothing is audited. */
	readonly crashAt?: Point;
	/** Milliseconds that nothing runs after the crash. @default 1000 */
	readonly outage?: number;
}

/** A folder for the databases, in memory where the machine has such a place: no power fails here. */
export class Yard {
	readonly root: string;
	#count = 0;

	constructor() {
		const memory = "/dev/shm";
		this.root = mkdtempSync(join(existsSync(memory) ? memory : tmpdir(), "lottor-matrix-"));
	}

	folder(): string {
		return join(this.root, String(this.#count++));
	}

	remove(folder = this.root): void {
		rmSync(folder, { recursive: true, force: true });
	}
}

/** Plays a scenario to its end, or goes on from what a crash has left, and audits what stands. */
export async function play(yard: Yard, options: RunOptions): Promise<Outcome> {
	const { scenario, from, crashAt } = options;
	const folder = from && !options.again ? from.folder : yard.folder();
	if (from && options.again) cpSync(from.folder, folder, { recursive: true });
	const told: Told = from
		? afterCrash(from)
		: { by: scenario.by, crashes: 0, unrecorded: {}, acts: 0 };
	let nth = 0;
	const remains: Remains[] = [];
	const breaches: Breaches = { lost: [], phantom: [], doubles: [], wrong: [] };
	let auditing = false;
	let brokerDied = false;
	const reached = (point: Point, world: World) => {
		if (auditing) return;
		if (options.collect?.(point, nth++) || point === crashAt) {
			const left = {
				point,
				folder: yard.folder(),
				now: world.clock.now(),
				told: { ...told },
			};
			world.snapshot(left.folder);
			if (options.collected) options.collected(left);
			else remains.push(left);
		}
		if (point === crashAt) world.kill();
		else if (point === scenario.brokerDies && !brokerDied) {
			brokerDied = true;
			world.channels?.die();
		}
	};
	const claimed = async (world: World) => {
		if (!scenario.stops || told.stopped) return;
		told.stopped = true;
		world.restartCoordinator();
		// What was claimed comes back to a coordinator that is stopping.
		await turns(QUIET_TURNS);
	};
	let world: World | undefined;
	try {
		world = await World.start({
			folder,
			now: from ? from.now + (options.outage ?? RESTART_MS) : START,
			seed: from ? 2 : 1,
			reached,
			cast: scenario,
			claimed,
			acking: ({ id, target }) => {
				if (!auditing && !seenBy(folder, target).has(id))
					breaches.wrong.push(`message ${id} is acknowledged, and no row says why`);
			},
		});
		const { life } = world;
		const acts = async (world: World) => {
			if (!from) await begin(scenario, world, told);
			const hasRow = (group: string) => rowsIn(folder).has(group);
			if (scenario.early && !from) await lookAfter(scenario, world, told, hasRow);
			await untilQuiet(world);
			await lookAfter(scenario, world, told, hasRow);
			await untilQuiet(world);
			// The second look is for what only came up because of the first.
			await lookAfter(scenario, world, told, hasRow);
			await untilQuiet(world);
		};
		await orDead(acts(world), life);
		if (!life.dead) {
			const groups = await world.groups();
			add(breaches, audit(folder, groups, told, scenario));
			const audits = await world.audits();
			if (audits < told.acts)
				breaches.wrong.push(
					`${told.acts} acts were answered, ${audits} are in the audit log`,
				);
			told.ended = true;
			await orDead(tidy(world, folder, breaches), life);
		}
		auditing = true;
		if (crashAt && !life.dead) breaches.wrong.push(`${crashAt} was not reached`);
	} catch (error) {
		breaches.wrong.push(error instanceof Error ? error.message : String(error));
	} finally {
		auditing = true;
		world?.dispose();
		yard.remove(folder);
	}
	return { breaches, remains, reached: nth };
}

/** Lets retention come, twice: acknowledged rows go, and nothing that is still needed. */
async function tidy(world: World, folder: string, breaches: Breaches): Promise<void> {
	for (let steps = 0; steps < TIDY_STEPS; steps++) await world.step();
	const before = keptRows(folder);
	world.clock.jump(LONG_MS);
	for (let steps = 0; steps < TIDY_STEPS; steps++) await world.step();
	const held = world.channels?.held() ?? 0;
	if (held > 0) breaches.wrong.push(`the broker still holds ${held} messages`);
	const after = keptRows(folder);
	for (const [id, row] of before) {
		if (!row.acknowledged && !after.has(id))
			breaches.wrong.push(`row ${id} was purged too early`);
	}
	for (const [id, row] of after) {
		if (before.has(id) && row.acknowledged) breaches.wrong.push(`row ${id} is kept for ever`);
	}
}

async function untilQuiet(world: World): Promise<void> {
	for (let steps = 0; ; steps++) {
		if (world.life.dead) return;
		await world.restarted();
		const groups = await world.groups();
		if (isQuiet(groups)) return;
		if (steps > MOST_STEPS) {
			const states = groups.map(
				(group) =>
					`${group.id} ${group.state} (${group.messages.map((message) => `${message.state}, ${message.sends} sends, ${message.asks} asks`).join("; ")})`,
			);
			throw new Error(`it never ends: ${states.join(", ")}`);
		}
		await world.step();
	}
}

/** Waits for the work, but no longer than the process lives. */
async function orDead(work: Promise<void>, life: { readonly dead: boolean }): Promise<void> {
	let ended = false;
	const done = work.finally(() => (ended = true));
	done.catch(() => undefined);
	while (!ended && !life.dead) await new Promise((resolve) => setImmediate(resolve));
	if (ended) await done;
}

function add(to: Breaches, more: Breaches): void {
	for (const kind of Object.keys(to) as (keyof Breaches)[]) to[kind].push(...more[kind]);
}

/** What was told before the crash, and what the crash may bring with it. */
function afterCrash({ told, folder }: Remains): Told {
	const unrecorded = { ...told.unrecorded };
	for (const id of unrecordedIn(folder)) unrecorded[id] = (unrecorded[id] ?? 0) + 1;
	return { ...told, crashes: told.crashes + 1, unrecorded };
}

/** Tells states of the disk apart: crashes that leave the same files and told the same are one. */
export function fingerprint({ folder, told }: Remains): string {
	const hash = createHash("sha256").update(JSON.stringify(told));
	for (const file of readdirSync(folder).sort()) {
		hash.update(file).update(readFileSync(join(folder, file)));
	}
	return hash.digest("hex");
}
