import { messageOf } from "../../protocol/index.ts";
import { command } from "../../scripts/command.ts";

/** What every check of the promise tells with `--json`, beside what else it has to tell. */
export interface CheckResult {
	/** Transactions that were followed to their end. */
	readonly transactions: number;
	/** Distinct places at which something went wrong. */
	readonly points: number;
	readonly crashes: number;
	readonly lost: number;
	readonly phantom: number;
	readonly doubles: number;
	readonly ok: boolean;
}

/** What is told of a run that could not be made: nothing is known, and nothing is said to be 0. */
const UNKNOWN = {
	transactions: null,
	points: null,
	crashes: null,
	lost: null,
	phantom: null,
	doubles: null,
} satisfies Record<Exclude<keyof CheckResult, "ok">, null>;

/** The figures that each has. */
export const FIGURES = Object.keys(UNKNOWN);

/**
 * Runs a check of the promise as a command. With `--json` the last line on stdout is one object,
 * whatever becomes of the run.
 *
 * @param help what `--help` prints
 * @param read reads the options from the command line; throws what is to be told of them
 * @param run makes the run; throws where that can't be
 * @returns the code to exit with: 0 only if the result is ok
 */
export function check<O extends { readonly help: boolean; readonly json: boolean }>(
	help: string,
	read: () => O,
	run: (options: O) => Promise<CheckResult>,
): Promise<number> {
	const failed = (error: unknown) => {
		if (!process.argv.includes("--json")) return;
		console.log(JSON.stringify({ ok: false, error: messageOf(error), ...UNKNOWN }));
	};
	const readOptions = () => {
		try {
			return read();
		} catch (error) {
			failed(error);
			throw error;
		}
	};
	return command(help, readOptions, async (options) => {
		try {
			const result = await run(options);
			if (options.json) console.log(JSON.stringify(result));
			else console.dir(result, { depth: 4 });
			return result.ok ? 0 : 1;
		} catch (error) {
			console.error(`The run could not be made: ${messageOf(error)}`);
			failed(error);
			return 1;
		}
	});
}
