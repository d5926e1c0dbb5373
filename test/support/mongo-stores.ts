import { MongoClient } from "mongodb";

import type { CoordinatorStore } from "../../adapters/coordinator-store/contract.ts";
import { mongoCoordinatorStore } from "../../adapters/coordinator-store/mongo.ts";
import type { StoreHarness } from "../conformance/coordinator-store.ts";
import { ManualClock } from "./manual-clock.ts";

let last = 0;

/** @returns the address of a database of a test's own */
export function ownDatabase(server: string): string {
	const url = new URL(server);
	url.pathname = `/lottor-${process.pid}-${++last}`;
	return url.href;
}

/** Deletes a database of a test. */
export async function dropDatabase(url: string): Promise<void> {
	const client = new MongoClient(url);
	try {
		await client.db().dropDatabase();
	} finally {
		await client.close();
	}
}

/** Stores on one database, which goes by a clock that stands still. */
export async function mongoHarness(
	server: string,
	driver: () => Promise<unknown>,
): Promise<StoreHarness> {
	const url = ownDatabase(server);
	const clock = new ManualClock();
	const stores: CoordinatorStore[] = [];
	return {
		async open() {
			const store = mongoCoordinatorStore({ url, clock, driver });
			stores.push(store);
			await store.open();
			return store;
		},
		advance: (ms) => clock.advance(ms),
		async destroy() {
			await Promise.all(stores.map((store) => store.close()));
			await dropDatabase(url);
		},
	};
}
