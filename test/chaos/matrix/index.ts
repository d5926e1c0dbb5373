// Crashes a whole embedded Lottor at every store write and every send:
//   npm run test:matrix -- [--json] [--seed 1] [--pairs 20] [--only <words of a scenario's name>]
// The last line of --json is one object: points, crashes, transactions, lost, phantom, doubles,
// unhit, ok. Leaves with 1 when anything is wrong.
import { parseArgs } from "node:util";
import { runMatrix } from "./matrix.ts";
import { SCENARIOS } from "./scenarios.ts";

const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		seed: { type: "string", default: "1" },
		pairs: { type: "string", default: "20" },
		only: { type: "string" },
	},
});
const { only } = values;
const start = performance.now();
const result = await runMatrix({
	seed: whole(values.seed, "seed"),
	pairs: whole(values.pairs, "pairs"),
	...(only !== undefined && { scenarios: SCENARIOS.filter(({ name }) => name.includes(only)) }),
	progress(scenario, crashes, breaches) {
		console.error(`${scenario}: ${crashes} crashes, ${breaches.length} breaches`);
		for (const breach of breaches) console.error(`  ${breach}`);
	},
});
const seconds = Math.round((performance.now() - start) / 100) / 10;
if (values.json) console.log(JSON.stringify({ ...result, seconds }));
else console.table({ ...result, unhit: result.unhit.join(" "), seconds });
process.exit(result.ok ? 0 : 1);

function whole(text: string, name: string): number {
	const value = Number(text);
	if (Number.isSafeInteger(value) && value >= 0) return value;
	console.error(`--${name} must be a whole number from 0, got "${text}"`);
	process.exit(2);
}
