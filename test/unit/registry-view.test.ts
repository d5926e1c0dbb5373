import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { type Service, ServiceBroker } from "moleculer";

import { RegistryView } from "../../services/coordinator/registry-view.ts";
import { scripted } from "../support/coordinator.ts";
import { ManualClock } from "../support/manual-clock.ts";

let broker: ServiceBroker;
let clock: ManualClock;
let view: RegistryView;

beforeEach(async () => {
	broker = new ServiceBroker({ logger: false });
	await broker.start();
	clock = new ManualClock();
	view = new RegistryView(broker, clock);
});

afterEach(() => broker.stop());

/** A service lives for as long as the coordinator looks once. */
async function passing(name: string, aliases: readonly string[] = []): Promise<void> {
	const service: Service = broker.createService(scripted(name, { aliases }).schema);
	await broker.waitForServices(name, 5_000, 10);
	view.refresh();
	await broker.destroyService(service);
	view.refresh();
}

test("a target that is down for a day is still a known one", async () => {
	await passing("auth", ["former"]);
	await clock.advance(24 * 3_600_000);
	view.refresh();
	expect(view.serves("auth")).toBe(false);
	expect(view.knows("auth")).toBe(true);
	expect(view.knows("former")).toBe(true);
	expect(view.knows("other")).toBe(false);
});

test("of ever new names, those seen longest ago are forgotten, and none that lives", async () => {
	await passing("old");
	broker.createService(scripted("living").schema);
	await broker.waitForServices("living", 5_000, 10);
	for (let n = 0; n < 11; n++) {
		const aliases = Array.from({ length: 1_000 }, (_, place) => `alias-${n}-${place}`);
		await passing(`flood-${n}`, aliases);
	}
	expect(view.knows("old")).toBe(false);
	expect(view.knows("alias-0-0")).toBe(false);
	expect(view.knows("alias-10-999")).toBe(true);
	expect(view.knows("living")).toBe(true);
});
