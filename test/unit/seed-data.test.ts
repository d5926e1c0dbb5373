import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "@jest/globals";

const run = promisify(execFile);
const CLOCK = new URL("../../scripts/seed-data/clock.ts", import.meta.url).href;

test("a process that only waits for the store's lock does not end", async () => {
	const script = `import { setClock } from ${JSON.stringify(CLOCK)};
		await new Promise((resolve) => setClock(0).after(1, resolve));
		console.log("went on");`;
	const { stdout } = await run(process.execPath, ["--input-type=module", "-e", script]);
	expect(stdout).toBe("went on\n");
});
