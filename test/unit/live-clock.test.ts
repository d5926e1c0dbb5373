import { expect, it } from "@jest/globals";

import { within } from "../support/live-clock.ts";

/** Keeps everything else in this process from its turn. */
function standStill(ms: number): void {
	Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

it("what does not come fails", async () => {
	await expect(within(100, "it comes", () => false)).rejects.toThrow(
		"Not within 100 ms: it comes",
	);
});

it("what comes while the process stands still is in time", async () => {
	let came = false;
	setTimeout(() => (came = true), 900);
	const wait = within(500, "it comes", () => came);
	setTimeout(() => standStill(1_500), 50);
	expect(await wait).toBeGreaterThan(1_400);
});
