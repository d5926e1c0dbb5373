import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { CoordinatorStore } from "../../adapters/coordinator-store/contract.ts";
import { sqliteCoordinatorStore } from "../../adapters/coordinator-store/sqlite.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { coordinatorStoreSuite } from "./coordinator-store.ts";

coordinatorStoreSuite("sqlite", async () => {
	const folder = await mkdtemp(join(tmpdir(), "lottor-coordinator-store-"));
	const clock = new ManualClock();
	const stores: CoordinatorStore[] = [];
	return {
		async open() {
			const store = sqliteCoordinatorStore({ file: join(folder, "lottor.db"), clock });
			stores.push(store);
			await store.open();
			return store;
		},
		advance: (ms) => clock.advance(ms),
		async destroy() {
			await Promise.all(stores.map((store) => store.close()));
			await rm(folder, { recursive: true, force: true });
		},
	};
});
