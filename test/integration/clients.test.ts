import { afterEach, beforeEach, expect, test } from "@jest/globals";
import type { Client } from "../../services/coordinator/index.ts";
import { TestCluster } from "../support/lottor.ts";
import { until } from "../support/until.ts";

let lottor: TestCluster;

beforeEach(() => {
	lottor = new TestCluster();
});

afterEach(() => lottor.stop());

async function connected() {
	const here = lottor.broker("lottor", { transporter: "Fake" });
	lottor.coordinator(here);
	const there = lottor.broker("shop-1", { transporter: "Fake" });
	let release = (): void => undefined;
	const held = new Promise<void>((resolve) => {
		release = resolve;
	});
	lottor.participant(there, "user");
	lottor.participant(there, "auth", { "grant-role": () => held });
	await Promise.all([here.start(), there.start()]);
	const clients = () => here.call<Client[]>("lottor.clients");
	await until(async () => (await clients()).some((one) => one.services.length === 2));
	return { here, there, clients, release };
}

test("lottor.clients lists connected producers and consumers with all that is known of them", async () => {
	const { there, clients, release } = await connected();
	const before = Date.now();
	const [client] = await clients();
	expect(client).toMatchObject({
		nodeID: "shop-1",
		instanceID: there.instanceID,
		roles: ["producer", "consumer"],
		serializer: "JSONSerializer",
		transporter: "FakeTransporter",
		moleculer: "0.15.2",
		running: 0,
	});
	expect(client?.host).toEqual(expect.any(String));
	expect(client?.version).toMatch(/^\d+\.\d+\.\d+/);
	expect(client?.latency).toEqual(expect.any(Number));
	expect(client?.lastHeartbeat).toBeGreaterThan(before - 60_000);
	expect(client?.services.map((one) => one.service).sort()).toEqual(["auth", "user"]);
	release();
});

test("R28 a handler that outlives the call is counted as running, and reports by itself", async () => {
	const { there, clients, release } = await connected();
	const user = there.getLocalService("user");
	const reliable = lottor.reliable<Record<string, Record<string, object>>>(user);
	const id = await reliable.transaction(
		null,
		[{ target: "auth", type: "grant-role", payload: {} }],
		(tx) => tx.group,
	);
	await until(async () => (await clients())[0]?.running === 1);
	expect((await lottor.view(id)).group.messages[0]?.state).toBe("delivering");
	release();
	await lottor.reached(id, "completed");
	expect((await clients())[0]?.running).toBe(0);
});

test("a client that leaves is gone from the list", async () => {
	const { there, clients, release } = await connected();
	release();
	await there.stop();
	await until(async () => (await clients()).length === 0);
});

test("R13 a client whose node is silent does not count as living, whatever the registry says", async () => {
	const { here, clients, release } = await connected();
	release();
	const node = here.registry.nodes.get("shop-1") as unknown as { lastHeartbeatTime: number };
	node.lastHeartbeatTime = process.uptime() - 40;
	expect(await clients()).toEqual([]);
	node.lastHeartbeatTime = process.uptime();
	expect(await clients()).toHaveLength(1);
});
