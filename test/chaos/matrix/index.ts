import { parseArgs } from "node:util";

import { check } from "../../support/check.ts";
import { type KillResult, runKills } from "./kill/kill-matrix.ts";
import { runMatrix } from "./matrix.ts";
import { SCENARIOS } from "./scenarios.ts";

const HELP = `npm run test:matrix -- [options]

Crashes a whole embedded Lottor at every store write and every send. Exits with 0 only if nothing
is wrong afterwards, and every point was crashed at.

  --seed <n>      what the pairs and samples are made from (default 1)
  --pairs <n>     pairs of crashes in each scenario (default 20)
  --most <n>      a sample of so many crashes in each scenario, which still has every point
  --only <words>  only scenarios whose name contains this
  --kill          go on with SIGKILL on one real process out of three, at every point as well
  --every <n>     only every n-th of these kills (default 1)
  --json          print the result as one line of JSON on stdout
  --help          show this`;

type Options = ReturnType<typeof readOptions>;

function readOptions() {
	const { values } = parseArgs({
		options: {
			json: { type: "boolean", default: false },
			seed: { type: "string", default: "1" },
			pairs: { type: "string", default: "20" },
			most: { type: "string" },
			only: { type: "string", default: "" },
			kill: { type: "boolean", default: false },
			every: { type: "string", default: "1" },
			help: { type: "boolean", default: false },
		},
	});
	const { most, only } = values;
	const scenarios = SCENARIOS.filter(({ name }) => name.includes(only));
	if (scenarios.length === 0) throw new Error(`--only: no scenario is called "${only}"`);
	return {
		...values,
		scenarios,
		seed: whole(values.seed, "seed", 0),
		pairs: whole(values.pairs, "pairs", 0),
		most: most === undefined ? undefined : whole(most, "most", 0),
		every: whole(values.every, "every", 1),
	};
}

async function matrix(options: Options) {
	const { seed, pairs, most, scenarios } = options;
	const start = performance.now();
	const crashed = await runMatrix({
		seed,
		pairs,
		scenarios,
		...(most !== undefined && { most }),
		progress(scenario, crashes, breaches) {
			console.error(`${scenario}: ${crashes} crashes, ${breaches.length} breaches`);
			for (const breach of breaches) console.error(`  ${breach}`);
		},
	});
	const seconds = { matrix: secondsSince(start), all: 0 };
	const kills = options.kill ? await killAll(options.every) : undefined;
	return {
		...crashed,
		crashes: crashed.crashes + (kills?.kills ?? 0),
		transactions: crashed.transactions + (kills?.transactions ?? 0),
		lost: crashed.lost + (kills?.lost ?? 0),
		phantom: crashed.phantom + (kills?.phantom ?? 0),
		doubles: crashed.doubles + (kills?.doubles ?? 0),
		wrong: crashed.wrong + (kills?.wrong ?? 0),
		ok: crashed.ok && (kills === undefined || isSound(kills, options.every)),
		...(kills && {
			kills: { processes: kills.kills, points: kills.points, unhit: kills.unhit },
		}),
		seconds: { ...seconds, all: secondsSince(start) },
	};
}

async function killAll(every: number): Promise<KillResult> {
	const killed = await runKills({ every, progress: console.error });
	for (const finding of killed.findings) console.error(`  ${finding}`);
	return killed;
}

/** A sample of the kills need not come by every point. */
function isSound({ lost, phantom, doubles, wrong, unhit }: KillResult, every: number): boolean {
	const missed = every === 1 ? unhit.length : 0;
	return lost + phantom + doubles + wrong + missed === 0;
}

function secondsSince(from: number): number {
	return Math.round((performance.now() - from) / 100) / 10;
}

function whole(text: string, name: string, least: number): number {
	const value = Number(text);
	if (Number.isSafeInteger(value) && value >= least) return value;
	throw new Error(`--${name} must be a whole number from ${least}, got "${text}"`);
}

process.exit(await check(HELP, readOptions, matrix));
