import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, expect, jest, test } from "@jest/globals";

import { mongodb } from "../../scripts/servers/mongodb.ts";
import { dropDatabase, ownDatabase } from "../support/mongo-stores.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";
import { Network } from "./random/network.ts";
import type { Fault } from "./random/plan.ts";
import { Processes } from "./random/processes.ts";
import { storm } from "./random/storm.ts";
import type { NodeName, Peer } from "./random/words.ts";

jest.setTimeout(120_000);

const NODES: readonly NodeName[] = ["k1", "p3", "c3"];

const cleanups: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
	for (const clean of cleanups.splice(0).reverse()) await clean();
});

withServer(mongodb, "the way to a store", (server) => {
	/** A coordinator, a producer and a consumer, and a network between them and the store. */
	function cluster() {
		const folder = mkdtempSync(join(tmpdir(), "lottor-links-"));
		const store = ownDatabase(server);
		const network = new Network<Peer>();
		network.listens("store", Number(new URL(store).port));
		const processes = new Processes({
			nodes: NODES,
			folder,
			guarantee: "transactional",
			delivery: "direct",
			store,
			seed: "links",
			network,
			servers: ["store"],
			tell: () => undefined,
		});
		cleanups.push(async () => {
			await processes.clear();
			network.close();
			rmSync(folder, { recursive: true });
			await dropDatabase(store);
		});
		return { processes, network };
	}

	/** Transactions of the producer so far, by what they came to. */
	async function results(processes: Processes): Promise<Readonly<Record<string, number>>> {
		return (await processes.figures("p3")).results;
	}

	test("a coordinator that is cut off from its store takes nothing, and goes on afterwards", async () => {
		const { processes, network } = cluster();
		await processes.start();
		processes.command("p3", { do: "press", callers: 4 });
		await until(async () => ((await results(processes))["ok"] ?? 0) > 0);

		const { LOTTOR_PREPARE_FAILED: before = 0 } = await results(processes);
		network.hold("k1", "store");
		await until(
			async () => ((await results(processes))["LOTTOR_PREPARE_FAILED"] ?? 0) > before,
		);
		const { ok = 0 } = await results(processes);
		const refused = (await results(processes))["LOTTOR_PREPARE_FAILED"] ?? 0;
		await until(async () => {
			const now = await results(processes);
			return (now["LOTTOR_PREPARE_FAILED"] ?? 0) > refused;
		});
		expect((await results(processes))["ok"] ?? 0).toBe(ok);

		network.release("k1", "store", true);
		await until(async () => ((await results(processes))["ok"] ?? 0) > ok);
	});

	test("a fault counts only where it can act: what is not connected can't be cut", async () => {
		const { processes, network } = cluster();
		const cut: Fault = { kind: "cut store", at: 0, ms: 0, nodes: ["k1", "k2"], peer: "store" };
		const played = () =>
			storm(
				[cut],
				0,
				{
					processes,
					network,
					servers: {},
					killed: async () => undefined,
					tell: () => undefined,
				},
				0,
			);
		expect(await played()).toEqual({ faults: {}, points: 0 });

		await processes.start();
		expect(network.isOpen("k1", "store")).toBe(true);
		expect(await played()).toEqual({ faults: { "cut store": 1 }, points: 1 });
		await until(() => network.isOpen("k1", "store"));
	});
});
