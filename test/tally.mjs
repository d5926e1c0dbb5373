import { writeSync } from "node:fs";

/**
 * The jest reporter whose last line is `N passed, N failed`, for scripts that read it. A test file
 * that could not be run at all counts as one failure.
 */
export default class Tally {
	onRunComplete(_contexts, results) {
		const seconds = (Date.now() - results.startTime) / 1000;
		const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;

		// Only on exit: jest runs its own summary after all other reporters.
		process.once("exit", () => {
			// Not console.log: Jest, where it forces the exit, lets its streams take nothing more.
			const tally = `${results.numPassedTests} passed, ${failed} failed`;
			writeSync(1, `test: ${seconds.toFixed(1)} s\n${tally}\n`);
		});
	}
}
