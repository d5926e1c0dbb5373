// Explores every state that PROTOCOL.md can come to, and checks that a mistake would be noticed:
//   npm run model -- [--json] [--only <words of a system's name>] [--no-bugs] [--trace]
// The last line of --json is one object: states, bounds, violations, seconds, what each system came
// to, and for each seeded bug what was found. Leaves with 1 when there is a violation, or when a
// seeded bug is not found.
import { parseArgs } from "node:util";
import { BUGS } from "./bugs.ts";
import type { Violation } from "./explorer.ts";
import { ALL_BUGS, checkBug, checkModel, CONFIGS, type Explored } from "./model.ts";

const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		only: { type: "string", default: "" },
		"no-bugs": { type: "boolean", default: false },
		trace: { type: "boolean", default: false },
	},
});
const start = performance.now();
const explored = checkModel(values.only, (done) => {
	const { config, states, steps, depth, violation, seconds } = done;
	console.error(`${config}: ${states} states, ${steps} steps, depth ${depth}, ${seconds} s`);
	if (violation) print(violation);
});
const bugs = values["no-bugs"] ? [] : ALL_BUGS.map((bug) => seeded(bug, checkBug(bug)));
const violations = explored.filter(({ violation }) => violation !== undefined).length;
const missed = bugs.filter(({ found }) => found === null).length;
const result = {
	states: explored.reduce((sum, { states }) => sum + states, 0),
	steps: explored.reduce((sum, { steps }) => sum + steps, 0),
	violations,
	bounds: {
		coordinators: 2,
		producers: 1,
		consumers: 2,
		crashes: "any number",
		losses: "any number",
		duplicates: "any number",
		...bounds(),
	},
	bugs: Object.fromEntries(bugs.map(({ bug, found }) => [bug, found])),
	missed,
	seconds: Math.round((performance.now() - start) / 100) / 10,
	ok: violations + missed === 0,
};
if (values.json) console.log(JSON.stringify(result));
else console.dir(result, { depth: 4 });
process.exit(result.ok ? 0 : 1);

function bounds() {
	return {
		systems: CONFIGS.filter(({ name }) => name.includes(values.only)).map(
			({ name, messages, attempts, acts }, index) => ({
				name,
				messages,
				attempts,
				operatorActs: acts,
				states: explored[index]?.states,
			}),
		),
	};
}

function seeded(bug: keyof typeof BUGS, { violation, states, seconds }: Explored) {
	const found = violation?.what ?? null;
	console.error(
		`bug "${bug}" (${BUGS[bug]}): ${states} states, ${seconds} s: ${found ?? "NOT FOUND"}`,
	);
	if (violation && values.trace) print(violation);
	return { bug, found };
}

function print({ what, trace }: Violation): void {
	console.error(`  ${what}, after`);
	for (const [place, { step, state }] of trace.entries()) {
		console.error(`  ${String(place).padStart(3)}. ${step}`);
		if (state !== "") console.error(`       ${state}`);
	}
}
