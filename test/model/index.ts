import { parseArgs } from "node:util";

import { check } from "../support/check.ts";
import { BUGS } from "./bugs.ts";
import type { Harm, Violation } from "./explorer.ts";
import { ALL_BUGS, checkBug, checkModel, CONFIGS, type Explored } from "./model.ts";

const HELP = `npm run model -- [options]

Explores every state that the protocol can come to, and checks that a mistake would be noticed.
Exits with 0 only if no state breaks an invariant, and each seeded bug is found.

  --only <words>  only systems whose name contains this
  --no-bugs       leave out the seeded bugs
  --trace         print the steps that lead to each seeded bug
  --json          print the result as one line of JSON on stdout
  --help          show this

The result has, beside states and steps, as every check's: transactions (one in each system, to
each of its ends), points (who can crash, and at what), crashes (steps that are one), and the
violations that mean a message lost, a phantom or a double effect.`;

type Options = ReturnType<typeof readOptions>;

function readOptions() {
	const { values } = parseArgs({
		options: {
			json: { type: "boolean", default: false },
			only: { type: "string", default: "" },
			"no-bugs": { type: "boolean", default: false },
			trace: { type: "boolean", default: false },
			help: { type: "boolean", default: false },
		},
	});
	if (!CONFIGS.some(({ name }) => name.includes(values.only)))
		throw new Error(`--only must be part of ${CONFIGS.map(({ name }) => name).join(", ")}`);
	return values;
}

async function model(options: Options) {
	const start = performance.now();
	const explored = checkModel(options.only, (done) => {
		const { config, states, steps, depth, violation, seconds } = done;
		console.error(`${config}: ${states} states, ${steps} steps, depth ${depth}, ${seconds} s`);
		if (violation) print(violation);
	});
	const bugs = options["no-bugs"]
		? []
		: ALL_BUGS.map((bug) => seeded(bug, checkBug(bug), options.trace));
	const violations = explored.flatMap(({ violation }) => violation ?? []);
	const missed = bugs.filter(({ found }) => found === null).length;
	const harmed = (by: Harm) => violations.filter(({ harm }) => harm === by).length;
	return {
		states: sum(explored.map(({ states }) => states)),
		steps: sum(explored.map(({ steps }) => steps)),
		violations: violations.length,
		transactions: explored.length,
		points: new Set(explored.flatMap(({ points }) => [...points])).size,
		crashes: sum(explored.map(({ crashes }) => crashes)),
		lost: harmed("lost"),
		phantom: harmed("phantom"),
		doubles: harmed("doubles"),
		bounds: {
			coordinators: 2,
			producers: 1,
			consumers: 2,
			crashes: "any number",
			losses: "any number",
			duplicates: "any number",
			systems: systems(options.only, explored),
		},
		bugs: Object.fromEntries(bugs.map(({ bug, found }) => [bug, found])),
		missed,
		seconds: Math.round((performance.now() - start) / 100) / 10,
		ok: violations.length + missed === 0,
	};
}

function systems(only: string, explored: readonly Explored[]) {
	return CONFIGS.filter(({ name }) => name.includes(only)).map(
		({ name, messages, attempts, acts }, index) => ({
			name,
			messages,
			attempts,
			operatorActs: acts,
			states: explored[index]?.states,
		}),
	);
}

function seeded(bug: keyof typeof BUGS, { violation, states, seconds }: Explored, trace: boolean) {
	const found = violation?.what ?? null;
	console.error(
		`bug "${bug}" (${BUGS[bug]}): ${states} states, ${seconds} s: ${found ?? "NOT FOUND"}`,
	);
	if (violation && trace) print(violation);
	return { bug, found };
}

function print({ what, trace }: Violation): void {
	console.error(`  ${what}, after`);
	for (const [place, { step, state }] of trace.entries()) {
		console.error(`  ${String(place).padStart(3)}. ${step}`);
		if (state !== "") console.error(`       ${state}`);
	}
}

function sum(values: readonly number[]): number {
	return values.reduce((total, value) => total + value, 0);
}

process.exitCode = await check(HELP, readOptions, model);
