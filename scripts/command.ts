import { messageOf } from "../protocol/index.ts";

const USAGE_ERROR = 2;

/**
 * Runs a command of the project: shows its help on request, and where its options can't be read,
 * with what is wrong.
 *
 * @param help what `--help` prints
 * @param read reads the options from the command line; throws what is to be told of them
 * @param run does the work
 * @returns the code to exit with: that of `run`, 0 after help, 2 for wrong options
 */
export async function command<O extends { readonly help: boolean }>(
	help: string,
	read: () => O,
	run: (options: O) => Promise<number>,
): Promise<number> {
	let options: O;
	try {
		options = read();
	} catch (error) {
		console.error(`${messageOf(error)}\n\n${help}`);
		return USAGE_ERROR;
	}
	if (!options.help) return run(options);
	console.log(help);
	return 0;
}
