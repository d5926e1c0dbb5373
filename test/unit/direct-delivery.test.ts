import { afterEach, describe, expect, test } from "@jest/globals";
import { type Context, ServiceBroker, type ServiceSchema } from "moleculer";
import {
	directDelivery,
	type DeliveryHost,
	type Outgoing,
	type SendResult,
	type TargetInstance,
} from "../../adapters/delivery/index.ts";
import { type ConsumeCall, type Envelope, WIRE_VERSION } from "../../protocol/index.ts";

const INSTANCES: TargetInstance[] = ["a", "b", "c"].map((nodeID) => ({
	nodeID,
	instanceID: `${nodeID}-1`,
	service: "auth",
	storeId: "store",
	receives: false,
	partitioned: false,
}));

function outgoing(index: number): Outgoing {
	const envelope: Envelope = {
		v: WIRE_VERSION,
		id: `group.${index}`,
		group: "group",
		source: "user",
		target: "auth",
		type: "t",
		attempt: 1,
		revision: 0,
		receipt: "receipt",
		coordinator: "coordinator",
		storeId: "store",
		createdAt: 0,
		sentAt: 0,
		orderingKey: null,
		context: "{}",
		content: "{}",
	};
	return { envelope, plain: false };
}

interface Call {
	readonly nodeID: string;
	readonly items: number;
	readonly end: () => void;
}

async function started(instances: readonly TargetInstance[]) {
	const delivery = directDelivery();
	const calls: Call[] = [];
	const broker = {
		call: (_action: string, params: ConsumeCall, options: { nodeID: string }) =>
			new Promise((resolve) => {
				const answers = params.items.map(() => ({ result: "accepted" }));
				calls.push({
					nodeID: options.nodeID,
					items: params.items.length,
					end: () => resolve(answers),
				});
			}),
	};
	const host = { broker, instances: () => instances, callTimeout: 1_000 };
	await delivery.start(host as unknown as DeliveryHost);
	return { delivery, calls };
}

test("messages are balanced over the living instances, a call to each", async () => {
	const { delivery, calls } = await started(INSTANCES);
	const results: string[] = [];
	const sent = delivery.send(
		Array.from({ length: 30 }, (_, index) => outgoing(index)),
		(_place, { result }) => Promise.resolve(results.push(result) > 0),
	);
	await new Promise((resolve) => setImmediate(resolve));
	expect(calls.map(({ nodeID, items }) => [nodeID, items])).toEqual([
		["a", 10],
		["b", 10],
		["c", 10],
	]);
	for (const call of calls) call.end();
	await sent;
	expect(results).toHaveLength(30);
});

test("an instance that still has work gets none while another is free", async () => {
	const { delivery, calls } = await started(INSTANCES.slice(0, 2));
	const settled = () => Promise.resolve(false);
	const first = delivery.send([outgoing(0)], settled);
	await new Promise((resolve) => setImmediate(resolve));
	const second = delivery.send([outgoing(1)], settled);
	await new Promise((resolve) => setImmediate(resolve));
	expect(calls.map(({ nodeID }) => nodeID)).toEqual(["a", "b"]);
	for (const call of calls) call.end();
	await Promise.all([first, second]);
});

test("no living instance: certainly not sent", async () => {
	const { delivery } = await started([]);
	const results: string[] = [];
	await delivery.send([outgoing(0)], (_place, { result }) =>
		Promise.resolve(results.push(result) > 0),
	);
	expect(results).toEqual(["refused"]);
});

describe("R25 a plain action's call", () => {
	const brokers: ServiceBroker[] = [];

	function broker(nodeID: string, ...services: ServiceSchema[]): ServiceBroker {
		const made = new ServiceBroker({
			nodeID,
			logger: false,
			namespace: "plain-actions",
			transporter: "Fake",
			registry: { stopDelay: 0 },
		});
		for (const service of services) made.createService(service);
		brokers.push(made);
		return made;
	}

	async function results(local: boolean) {
		const never = () => new Promise(() => undefined);
		const nothing: ServiceSchema = { name: "slow", actions: { never } };
		const plain: ServiceSchema = {
			name: "plain",
			actions: {
				missing: (ctx: Context) => ctx.call("nowhere.work"),
				elsewhere: (ctx: Context) =>
					ctx.call("plain.missing", {}, { nodeID: "no-such-node" }),
				late: (ctx: Context) => ctx.call("slow.never", {}, { timeout: 20 }),
				never,
			},
		};
		const services = [nothing, plain];
		const k = broker("k", ...(local ? services : []));
		if (!local) broker("p", ...services);
		await Promise.all(brokers.map((one) => one.start()));
		await k.waitForServices(["plain", "slow"]);
		const host = { broker: k, callTimeout: 300 };
		const delivery = directDelivery();
		await delivery.start(host as unknown as DeliveryHost);
		const types = ["missing", "elsewhere", "late", "never", "nothing"];
		const found: SendResult[] = [];
		await delivery.send(
			types.map((type, index) => {
				const { envelope } = outgoing(index);
				return { envelope: { ...envelope, target: "plain", type }, plain: "action" };
			}),
			(place, result) => {
				found[place] = result;
				return Promise.resolve(true);
			},
		);
		return found.map((one) =>
			one.result === "accepted" && one.report?.result === "failed"
				? [one.report.error.code, one.report.error.retryable]
				: [one.result],
		);
	}

	afterEach(async () => {
		await Promise.all(brokers.splice(0).map((one) => one.stop()));
	});

	test.each([
		["here", true],
		["on another node", false],
	])("%s: what its own calls throw is a failure, which uses an attempt", async (_, local) => {
		expect(await results(local)).toEqual([
			["SERVICE_NOT_FOUND", true],
			["SERVICE_NOT_FOUND", true],
			["REQUEST_TIMEOUT", true],
			["unknown"],
			["refused"],
		]);
	});
});
