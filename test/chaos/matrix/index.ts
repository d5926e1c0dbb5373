// Crashes a whole embedded Lottor at every store write and every send:
//   npm run test:matrix -- [--json] [--seed 1] [--pairs 20] [--most <crashes of each scenario>]
//     [--only <words of a scenario's name>] [--kill] [--every <n-th kill only>]
// --most takes a sample, which still crashes at every point. --kill goes on with the second tier:
// SIGKILL on one real process out of three, where it stands, at every point as well.
// The last line of --json is one object: points, crashes, transactions, lost, phantom, doubles,
// wrong, unhit, ok, and what the kills came to. Leaves with 1 when anything is wrong.
import { parseArgs } from "node:util";
import { type KillResult, runKills } from "./kill/kill-matrix.ts";
import { runMatrix } from "./matrix.ts";
import { SCENARIOS } from "./scenarios.ts";

const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		seed: { type: "string", default: "1" },
		pairs: { type: "string", default: "20" },
		most: { type: "string" },
		only: { type: "string" },
		kill: { type: "boolean", default: false },
		every: { type: "string", default: "1" },
	},
});
const { only, most, kill } = values;
const start = performance.now();
const matrix = await runMatrix({
	seed: whole(values.seed, "seed", 0),
	pairs: whole(values.pairs, "pairs", 0),
	...(most !== undefined && { most: whole(most, "most", 0) }),
	...(only !== undefined && { scenarios: SCENARIOS.filter(({ name }) => name.includes(only)) }),
	progress(scenario, crashes, breaches) {
		console.error(`${scenario}: ${crashes} crashes, ${breaches.length} breaches`);
		for (const breach of breaches) console.error(`  ${breach}`);
	},
});
const matrixSeconds = secondsSince(start);
const kills = kill ? await killAll() : undefined;
const result = {
	...matrix,
	crashes: matrix.crashes + (kills?.kills ?? 0),
	transactions: matrix.transactions + (kills?.transactions ?? 0),
	lost: matrix.lost + (kills?.lost ?? 0),
	phantom: matrix.phantom + (kills?.phantom ?? 0),
	doubles: matrix.doubles + (kills?.doubles ?? 0),
	wrong: matrix.wrong + (kills?.wrong ?? 0),
	ok: matrix.ok && (kills === undefined || isSound(kills)),
	...(kills && {
		kills: { processes: kills.kills, points: kills.points, unhit: kills.unhit },
	}),
	seconds: { matrix: matrixSeconds, all: secondsSince(start) },
};
if (values.json) console.log(JSON.stringify(result));
else console.dir(result);
process.exit(result.ok ? 0 : 1);

async function killAll(): Promise<KillResult> {
	const killed = await runKills({
		every: whole(values.every, "every", 1),
		progress: console.error,
	});
	for (const finding of killed.findings) console.error(`  ${finding}`);
	return killed;
}

/** A sample of the kills need not come by every point. */
function isSound({ lost, phantom, doubles, wrong, unhit }: KillResult): boolean {
	const missed = values.every === "1" ? unhit.length : 0;
	return lost + phantom + doubles + wrong + missed === 0;
}

function secondsSince(from: number): number {
	return Math.round((performance.now() - from) / 100) / 10;
}

function whole(text: string, name: string, least: number): number {
	const value = Number(text);
	if (Number.isSafeInteger(value) && value >= least) return value;
	console.error(`--${name} must be a whole number from ${least}, got "${text}"`);
	process.exit(2);
}
