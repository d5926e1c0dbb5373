// A process of its own on a store's file, under plain Node: `node coordinator-sqlite.peer.ts <mode> <file>`.
import { DatabaseSync } from "node:sqlite";

import { sqliteCoordinatorStore } from "../../adapters/coordinator-store/sqlite.ts";
import { newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";
import { decision, dispatchTo, newGroup } from "../support/groups.ts";

const [mode, file = ""] = process.argv.slice(2);

/** Takes the write lock as a coordinator in the middle of a transaction has it; any input ends it. */
function hold(): void {
	const db = new DatabaseSync(file);
	db.exec("BEGIN IMMEDIATE");
	process.stdin.once("data", () => {
		db.exec("COMMIT");
		db.close();
		process.exit();
	});
	console.log("held");
}

/** Prepares and commits groups, 32 at a time, and prints each id once both are acknowledged. */
async function work(rounds: number): Promise<void> {
	const store = sqliteCoordinatorStore({ file, lockTimeout: "60s" });
	await store.open();
	await Promise.all(
		Array.from({ length: 32 }, async () => {
			for (let round = 0; round < rounds; round++) {
				const id = newGroupId(systemClock, systemRandom);
				await store.insert([newGroup({ id })]);
				await store.decide([decision({ id, dispatch: dispatchTo("auth") })]);
				console.log(id);
			}
		}),
	);
	await store.close();
}

if (mode === "hold") hold();
else await work(mode === "endless" ? Number.POSITIVE_INFINITY : 20);
