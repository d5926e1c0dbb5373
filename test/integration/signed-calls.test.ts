import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { ServiceBroker, type ServiceSchema } from "moleculer";

import { SignedCalls } from "../../middlewares/signed-calls.ts";
import { reliableOf, ReliableMessage } from "../../mixins/reliable-message/index.ts";
import { Coordinator, type GroupView } from "../../services/coordinator/index.ts";
import { until } from "../support/until.ts";

const SECRET = "a secret of this cluster";
const brokers: ServiceBroker[] = [];

afterEach(async () => {
	await Promise.all(brokers.splice(0).map((broker) => broker.stop()));
	rmSync(folder, { recursive: true, force: true });
});

async function node(nodeID: string, secret: string | undefined, ...schemas: ServiceSchema[]) {
	const broker = new ServiceBroker({
		nodeID,
		logger: false,
		metrics: true,
		transporter: "Fake",
		middlewares: secret === undefined ? [] : [SignedCalls({ secret })],
	});
	for (const schema of schemas) broker.createService(schema);
	brokers.push(broker);
	await broker.start();
	return broker;
}

let folder: string;

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "lottor-"));
});

const coordinator = () => Coordinator({ store: `sqlite:${join(folder, "lottor.db")}` });

function shop(got: object[]): ServiceSchema[] {
	const mixins = [ReliableMessage({ store: "memory:" })];
	return [
		{ name: "user", mixins },
		{
			name: "auth",
			mixins,
			messages: { grant: { handler: (ctx) => void got.push(ctx.params) } },
		},
	];
}

test("nodes that share the secret work together, over the network and in one node", async () => {
	const got: object[] = [];
	const lottor = await node("lottor", SECRET, coordinator());
	const there = await node("shop", SECRET, ...shop(got));
	const message = { target: "auth", type: "grant", payload: { a: 1 } } as const;
	const group = await reliableOf<{ auth: { grant: { a: number } } }>(
		there.getLocalService("user"),
	).transaction(null, [message], (tx) => tx.group);
	await until(async () => {
		const view = await lottor.call<GroupView, object>("lottor.groups.get", { id: group });
		return view.group.state === "completed";
	});
	expect(got).toEqual([{ a: 1 }]);
});

test.each([
	["without the secret", undefined],
	["with another one", "another secret of 16"],
])(
	"LOTTOR_SIGNATURE_INVALID is what a node %s gets from the coordinator, for reading too",
	async (_how, secret) => {
		const lottor = await node("lottor", SECRET, coordinator());
		const stranger = await node("stranger", secret);
		await stranger.waitForServices("lottor");
		for (const action of ["prepare", "commit", "report", "messages.discard", "groups.list"]) {
			const call = stranger.call(`lottor.${action}`, { items: [{}] });
			await expect(call).rejects.toMatchObject({
				type: "LOTTOR_SIGNATURE_INVALID",
				code: 401,
				retryable: false,
			});
		}
		const refused = lottor.metrics.getMetric("moleculer.lottor.calls.refused.total");
		expect(refused?.snapshot()).toMatchObject([{ value: 5 }]);
	},
);

test("LOTTOR_SIGNATURE_INVALID is what a stranger gets from a consumer: its handler does not run", async () => {
	const got: object[] = [];
	await node("lottor", SECRET, coordinator());
	await node("shop", SECRET, ...shop(got));
	const stranger = await node("stranger", undefined);
	await stranger.waitForServices("auth");
	for (const action of ["consume", "check", "ask", "fence", "status"]) {
		const call = stranger.call(`auth.reliable.${action}`, { items: [{}] });
		await expect(call).rejects.toMatchObject({ type: "LOTTOR_SIGNATURE_INVALID" });
	}
	expect(got).toEqual([]);
});

test("a signature is for one action and one content", async () => {
	await node("lottor", SECRET, coordinator());
	const thief = await node("thief", undefined);
	let heard: object | undefined;
	const helper = SignedCalls({ secret: SECRET }) as unknown as {
		call(
			next: (action: string, params: object, options: { headers: object }) => void,
		): (action: string, params: object) => void;
	};
	helper.call((_action, _params, { headers }) => (heard = headers))("lottor.commit", {
		items: [1],
	});
	await thief.waitForServices("lottor");
	const headers = heard as Record<string, string>;
	const refused = expect.objectContaining({ type: "LOTTOR_SIGNATURE_INVALID" });
	await expect(thief.call("lottor.commit", { items: [2] }, { headers })).rejects.toEqual(refused);
	await expect(thief.call("lottor.rollback", { items: [1] }, { headers })).rejects.toEqual(
		refused,
	);
	const [answer] = await thief.call<{ result: string }[], object>(
		"lottor.commit",
		{ items: [1] },
		{ headers },
	);
	expect(answer?.result).toBe("invalid");
});

test("a secret that is missing or short is refused by name", () => {
	for (const secret of [undefined, "", "fifteen letters"]) {
		expect(() => SignedCalls({ secret: secret as string })).toThrow(
			expect.objectContaining({
				type: "LOTTOR_INVALID_OPTIONS",
				data: expect.objectContaining({ field: "SignedCalls.secret" }) as object,
			}),
		);
	}
});
