import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "@jest/globals";

import { sqliteCoordinatorStore } from "../../adapters/coordinator-store/index.ts";
import { seed } from "../../bench/admin-data.ts";
import { ManualClock } from "../support/manual-clock.ts";

test("made-up data has groups in every state, failures, and what can be searched", async () => {
	const folder = mkdtempSync(join(tmpdir(), "lottor-"));
	const store = sqliteCoordinatorStore({
		file: join(folder, "lottor.db"),
		clock: new ManualClock(),
	});
	await store.open();
	const told: number[] = [];
	await seed(store, 2_200, undefined, (done) => told.push(done));
	expect(told).toEqual([500, 1_000, 1_500, 2_000, 2_200]);
	const { groups, messages } = await store.stats();
	expect(Object.values(groups).reduce((sum, count) => sum + count, 0)).toBe(2_200);
	for (const count of Object.values(groups)) expect(count).toBeGreaterThan(0);
	expect(groups.completed).toBeGreaterThan(1_900);
	expect(messages.failed).toBeGreaterThan(10);
	expect((await store.failures()).length).toBeGreaterThan(3);
	const [row] = (await store.listMessages({ states: ["failed"] }, { limit: 1 })).items;
	const [payload] = await store.payloads(row?.group ?? "");
	const { order } = JSON.parse(payload?.content ?? "{}") as { order: string };
	expect((await store.countMessages({ terms: [order] }, 10)).count).toBeGreaterThan(0);
	await store.close();
	rmSync(folder, { recursive: true });
});
