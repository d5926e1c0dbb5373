import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "@jest/globals";

import { sqliteCoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import { setClock } from "../../scripts/seed-data/clock.ts";
import { sequence } from "../../scripts/seed-data/random.ts";
import { every, seed } from "../../scripts/seed-data/seed.ts";

const run = promisify(execFile);
const CLOCK = new URL("../../scripts/seed-data/clock.ts", import.meta.url).href;

test("a process that only waits for the store's lock does not end", async () => {
	const script = `import { setClock } from ${JSON.stringify(CLOCK)};
		await new Promise((resolve) => setClock(0).after(1, resolve));
		console.log("went on");`;
	const { stdout } = await run(process.execPath, ["--input-type=module", "-e", script]);
	expect(stdout).toBe("went on\n");
});

test("made-up data has groups in every state, failures, and what can be searched", async () => {
	const folder = mkdtempSync(join(tmpdir(), "lottor-"));
	const now = Date.UTC(2026, 0, 1);
	const clock = setClock(now);
	const store = sqliteCoordinatorStore({ file: join(folder, "lottor.db"), clock });
	await store.open();
	const told: number[] = [];
	await seed(store, clock, {
		groups: 3_000,
		days: 1,
		now,
		random: sequence(3_000),
		searchFields: ["order"],
		progress: (stored) => told.push(stored),
	});
	expect(told.at(-1)).toBe(3_000);
	const { groups, messages } = await store.stats();
	expect(Object.values(groups).reduce((sum, count) => sum + count, 0)).toBe(3_000);
	for (const count of Object.values(groups)) expect(count).toBeGreaterThan(0);
	expect(groups.completed).toBeGreaterThan(2_500);
	expect(messages.failed).toBeGreaterThan(10);
	expect((await store.failures()).length).toBeGreaterThan(3);
	const [row] = (await store.listMessages({ states: ["failed"] }, { limit: 1 })).items;
	const payloads = await store.payloads(row?.group ?? "");
	const { order } = JSON.parse(payloads[0]?.content ?? "{}") as { order: number };
	expect((await store.countMessages({ terms: [String(order)] }, 10)).count).toBeGreaterThan(0);
	await store.close();
	rmSync(folder, { recursive: true });
});

test("progress is told each time that a multiple of the step is passed", () => {
	const told: number[] = [];
	const progress = every(100, (stored) => told.push(stored));
	for (const stored of [60, 120, 180, 200, 410]) progress(stored);
	expect(told).toEqual([100, 200, 400]);
});
