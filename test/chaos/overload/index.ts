import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { check } from "../../support/check.ts";
import { growths } from "./memory.ts";
import { type Overload, overload } from "./overload.ts";

const HELP = `npm run overload -- [options]

Runs a coordinator, three producers and three consumers as processes, finds the rate that they
sustain, offers twice of it, and goes back. Tells what was refused, whether memory stayed flat, and
how soon the former rate was reached again; then the databases are compared. Exits with 0 only if
callers got no errors but retryable ones, and all is well.

  --seconds <n>    how long too much is offered (default 60)
  --seed <text>    what payloads and targets are made from (default: made up, and told)
  --keep           keep databases and logs even if all is well
  --json           print the result as one line of JSON on stdout
  --help           show this`;

const RECOVERY_BAR_S = 10;
/** Least part of the rate from before that the machine must give again. */
const AGAIN = 0.7;
const SHOWN_FINDINGS = 30;

function readOptions() {
	const { values } = parseArgs({
		options: {
			seconds: { type: "string", default: "60" },
			seed: { type: "string", default: String(Date.now() % 1_000_000) },
			keep: { type: "boolean", default: false },
			json: { type: "boolean", default: false },
			help: { type: "boolean", default: false },
		},
	});
	const seconds = Number(values.seconds);
	if (!(seconds >= 5)) throw new Error("--seconds must be a number of 5 or more");
	return { ...values, seconds };
}

/** @returns what is not as it should be */
function breaches(of: Overload): string[] {
	const found = [...of.misbehaviour, ...of.findings];
	if (of.unexpected > 0) found.push(`${of.unexpected} errors that don't say "try again"`);
	if (of.recoverySeconds > RECOVERY_BAR_S)
		found.push(`full speed again only after ${of.recoverySeconds} s`);
	if (of.rates.after < of.rates.sustainable * AGAIN)
		found.push(`${of.rates.after.toFixed(0)} a second afterwards`);
	return [...found, ...growths(of.memory)];
}

async function play(options: ReturnType<typeof readOptions>) {
	const tell = console.error;
	const { seed, seconds } = options;
	const folder = mkdtempSync(join(tmpdir(), "lottor-overload-"));
	tell(`Seed ${seed}, ${seconds} s, in ${folder}`);
	let ok = false;
	try {
		const { findings, misbehaviour, ...result } = await overload({
			seconds,
			seed,
			folder,
			tell,
		});
		const found = breaches({ findings, misbehaviour, ...result });
		for (const text of found.slice(0, SHOWN_FINDINGS)) tell(text);
		ok = found.length === 0;
		// Nothing is broken here: there is only too much to do.
		const none = { points: 0, crashes: 0 };
		const flat = growths(result.memory).length === 0;
		return { seed, seconds, ...result, ...none, misbehaviour: misbehaviour.length, flat, ok };
	} finally {
		if (ok && !options.keep) rmSync(folder, { recursive: true });
		else tell(`Databases and logs are kept in ${folder}`);
	}
}

process.exitCode = await check(HELP, readOptions, play);
