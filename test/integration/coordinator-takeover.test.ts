import { join } from "node:path";

import { afterEach, describe, expect, test } from "@jest/globals";
import { ServiceBroker, type ServiceSchema } from "moleculer";

import { COORDINATOR_SERVICE, livingServices } from "../../protocol/index.ts";
import { scripted, TestCoordinator } from "../support/coordinator.ts";
import { until } from "../support/until.ts";

const stops: (() => Promise<void>)[] = [];

afterEach(async () => {
	for (const stop of stops.splice(0).reverse()) await stop();
});

/** A node of its own beside the coordinator's. */
async function node(nodeID: string, schema: ServiceSchema): Promise<ServiceBroker> {
	const broker = new ServiceBroker({ nodeID, logger: false, transporter: "Fake" });
	broker.createService(schema);
	await broker.start();
	stops.push(() => broker.stop());
	return broker;
}

/** A coordinator that sees nobody else, on the file of another one. */
async function blind(file?: string): Promise<TestCoordinator> {
	const options = file === undefined ? {} : { store: `sqlite:${file}` };
	const coordinator = await TestCoordinator.start(options, scripted("user").schema);
	stops.push(() => coordinator.stop());
	return coordinator;
}

/** Leaves a committed message waiting for `auth`, which the coordinator has never seen. */
async function leaveWaiting(coordinator: TestCoordinator): Promise<string> {
	const id = await coordinator.prepare([{}]);
	await coordinator.commit(id);
	expect(await coordinator.message(id)).toMatchObject({ state: "pending", parked: true });
	await coordinator.broker.stop();
	return id;
}

describe("what a coordinator let wait for somebody whom it had not seen", () => {
	test("R23 goes on at the next coordinator's start, who sees them from the beginning", async () => {
		const auth = scripted("auth");
		const first = await blind();
		const id = await leaveWaiting(first);
		await node("consumer", auth.schema);
		const store = `sqlite:${join(first.folder, "lottor.db")}`;
		const next = await TestCoordinator.startConnected({ store }, scripted("user").schema);
		stops.push(() => next.stop());
		await next.due(1_000);

		expect(auth.consumed.map((envelope) => envelope.group)).toEqual([id]);
	});

	test("R23 goes on at another coordinator, who has seen them all along, once the first is gone", async () => {
		const auth = scripted("auth");
		await node("consumer", auth.schema);
		const other = await TestCoordinator.startConnected({}, scripted("user").schema);
		stops.push(() => other.stop());
		const coordinators = () =>
			livingServices(other.broker).filter((one) => one.fullName === COORDINATOR_SERVICE);
		// The other's registry has a first coordinator; the one that works is not on its network.
		const first = await node("first", { name: COORDINATOR_SERVICE });
		await until(() => coordinators().length === 2);
		await other.due();
		const id = await leaveWaiting(await blind(join(other.folder, "lottor.db")));
		await other.due(1_000);
		expect(auth.consumed).toEqual([]);
		await first.stop();
		await until(() => coordinators().length === 1);
		await other.due(1_000);

		expect(auth.consumed.map((envelope) => envelope.group)).toEqual([id]);
	});
});
