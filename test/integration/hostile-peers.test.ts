import { afterEach, expect, test } from "@jest/globals";
import type { ServiceBroker, ServiceSchema } from "moleculer";

import {
	type ItemAnswer,
	makeReceipt,
	messageId,
	type PrepareAnswer,
} from "../../protocol/index.ts";
import type { Meters } from "../../services/coordinator/meters.ts";
import { reportOf, scripted, TestCoordinator } from "../support/coordinator.ts";
import { hang, makeBroker, stopNodes } from "../support/mixin-node.ts";
import { until } from "../support/until.ts";

let lottor: TestCoordinator | undefined;

afterEach(async () => {
	await lottor?.stop();
	lottor = undefined;
	await stopNodes();
});

/** A second node, with services that say of themselves whatever they like. */
async function node(nodeID: string, ...schemas: ServiceSchema[]): Promise<ServiceBroker> {
	const broker = makeBroker({ nodeID, transporter: "Fake" });
	for (const schema of schemas) broker.createService(schema);
	await broker.start();
	await broker.waitForServices("lottor");
	return broker;
}

async function counted(t: TestCoordinator): Promise<ReturnType<Meters["totals"]>> {
	const { sinceStart } = await t.call<{ sinceStart: ReturnType<Meters["totals"]> }>("stats");
	return sinceStart;
}

function tell<T = ItemAnswer>(from: ServiceBroker, action: string, items: object[]): Promise<T[]> {
	return from.call<T[], object>(`lottor.${action}`, { items });
}

test("R5 reports without the message's own receipt are refused and counted, however many come", async () => {
	const auth = scripted("auth");
	auth.consume = () => ({ result: "accepted" });
	const t = (lottor = await TestCoordinator.startConnected({}, auth.schema));
	const eve = await node("eve");
	const id = await t.prepare([{}, {}]);
	await t.commit(id);
	await until(() => auth.consumed.length === 2);
	const [own, other] = auth.consumed.map((envelope) => reportOf(envelope));
	const forged = makeReceipt(Buffer.from("a key of eve's"), own?.id ?? "");
	const unknown = messageId(t.newId(), 0);
	const reports = [
		{ ...own, receipt: undefined },
		{ ...own, receipt: "" },
		{ ...own, receipt: forged },
		{ ...own, receipt: other?.receipt },
		{ ...own, id: unknown },
	];
	const answers = await tell(eve, "report", reports);
	expect(answers.map(({ error }) => error?.code)).toEqual(
		Array.from({ length: 5 }, () => "LOTTOR_RECEIPT_INVALID"),
	);
	const flood = Array.from({ length: 10_000 }, () => ({ ...own, id: unknown }));
	await tell(eve, "report", flood);
	expect((await t.group(id)).messages.map(({ state }) => state)).toEqual([
		"delivering",
		"delivering",
	]);
	expect((await counted(t)).refusedReports).toBe(10_005);
	expect(await tell(eve, "report", [own as object])).toMatchObject([{ result: "ok" }]);
});

test("R3 a node without the group's participant store decides nothing, the one with it does", async () => {
	const t = (lottor = await TestCoordinator.startConnected());
	const shop = await node("shop", scripted("user").schema);
	const eve = await node("eve", scripted("eve").schema);
	const id = await t.prepare([{}]);
	const item = { id, storeId: "store-user" };
	for (const action of ["commit", "rollback"]) {
		expect(await tell(eve, action, [item])).toMatchObject([
			{ result: "invalid", error: { code: "LOTTOR_STORE_MISMATCH", retryable: true } },
		]);
	}
	// Its own store is not the group's.
	expect(await tell(eve, "commit", [{ id, storeId: "store-eve" }])).toMatchObject([
		{ result: "invalid", error: { code: "LOTTOR_STORE_MISMATCH", retryable: false } },
	]);
	expect((await t.group(id)).state).toBe("prepared");
	expect((await counted(t)).refusedDecisions).toBe(2);
	expect(await tell(shop, "commit", [item])).toMatchObject([{ result: "ok" }]);
});

test("R9 a node that stops, and is no longer in the registry, still tells its commits", async () => {
	const t = (lottor = await TestCoordinator.startConnected());
	const shop = await node("shop", scripted("user").schema);
	const id = await t.prepare([{}]);
	await shop.destroyService(shop.getLocalService("user"));
	await until(() => !t.broker.registry.services.has("user", "shop"));
	const told = await tell(shop, "commit", [{ id, storeId: "store-user" }]);
	expect(told).toMatchObject([{ result: "ok" }]);
});

test("R3 who takes a target's name with another store stops its messages, and gets none", async () => {
	const auth = scripted("auth");
	const t = (lottor = await TestCoordinator.startConnected({}, auth.schema));
	const impostor = scripted("auth", { storeId: "store-of-eve" });
	const eve = await node("eve", impostor.schema);
	await until(() => t.broker.registry.services.has("auth", "eve"));
	const id = await t.prepare([{}]);
	await t.commit(id);
	expect((await t.message(id)).waiting).toContain("LOTTOR_PARTITIONED_TARGET");
	await eve.stop();
	await until(() => !t.broker.registry.services.has("auth", "eve"));
	await t.due();
	await until(async () => (await t.message(id)).state === "consumed");
	expect(impostor.consumed).toEqual([]);
});

const NONSENSE: readonly unknown[] = [
	5,
	"text",
	[],
	{ roles: "consumer", storeId: "s" },
	{ roles: ["consumer"], storeId: 5 },
	{ roles: ["consumer"], storeId: "s", aliases: 5 },
	{ roles: ["consumer"], storeId: "s", aliases: [5, null] },
	{ roles: ["consumer"], storeId: "s", aliases: { length: 3 } },
	{ roles: ["consumer"], storeId: "s", types: "all" },
	{ roles: ["consumer", null], storeId: "s" },
	{ roles: ["consumer"], storeId: "s".repeat(10_000) },
	{ roles: ["consumer"], storeId: "s", guarantee: "best" },
	{ roles: ["coordinator"], storeId: 5, ready: true },
	{ roles: ["coordinator"], storeId: {}, ready: "yes" },
];

test("what nodes say of themselves can be any nonsense: the coordinator works on", async () => {
	const auth = scripted("auth");
	const t = (lottor = await TestCoordinator.startConnected({}, auth.schema));
	await node(
		"eve",
		...NONSENSE.map(
			(said, place) => ({ name: `eve${place}`, metadata: { lottor: said } }) as ServiceSchema,
		),
	);
	await until(() => t.broker.registry.services.has(`eve${NONSENSE.length - 1}`, "eve"));
	const id = await t.prepare([{}]);
	await t.commit(id);
	await until(async () => (await t.group(id)).state === "completed");
	expect(await t.call("clients")).toHaveLength(1);
	expect(await t.call("coordinators")).toHaveLength(1);
});

const GARBAGE: readonly unknown[] = [
	undefined,
	null,
	5,
	"consumed",
	[],
	{},
	{ result: "Living" },
	{ result: "consumed" },
	{ result: "consumed", revision: "1" },
	{ result: "consumed", revision: -1 },
	{ result: "consumed", revision: Number.NaN },
	{ result: "failed" },
	{ result: "failed", report: {} },
	{ result: "failed", report: { attempt: 1, revision: 0, error: null } },
	{
		result: "failed",
		report: { attempt: 1, revision: 0, policy: { retries: Number.POSITIVE_INFINITY } },
	},
	{ result: { toString: 1 } },
	{ result: "refused" },
	{ result: "reported" },
	{ result: "reported", report: { id: 5 } },
];

test("R23 garbage instead of an answer is no answer: it is counted, and nobody else waits for it", async () => {
	const eve = scripted("eve");
	const good = scripted("good");
	const t = (lottor = await TestCoordinator.startConnected({}, good.schema));
	await node("eve", eve.schema);
	await until(() => t.broker.registry.services.has("eve", "eve"));
	let place = 0;
	const garbage = () => GARBAGE[place++ % GARBAGE.length] as never;
	Object.assign(eve, { consume: garbage, ask: garbage, check: garbage, fence: garbage });
	// A batch for each, and one group that eve never decides.
	const ids = await Promise.all(GARBAGE.map(() => t.prepare([{ target: "eve" }])));
	const own = await t.prepare([{}], { source: "eve", storeId: "store-eve" });
	for (const id of ids) await t.commit(id);
	for (let round = 0; round < 4; round++) {
		await t.due(60_000);
		const id = await t.prepare([{ target: "good" }]);
		await t.commit(id);
		await until(async () => (await t.group(id)).state === "completed");
	}
	for (const id of ids) expect((await t.message(id)).state).toBe("delivering");
	expect(eve.asked.length).toBeGreaterThan(GARBAGE.length);
	expect((await t.group(own)).state).toBe("prepared");
	expect(eve.checked.length).toBeGreaterThan(0);
	const [first = ""] = ids;
	const discard = { items: [{ id: `${first}.0` }] };
	expect(await t.call("messages.discard", discard)).toMatchObject([{ result: "ok" }]);
	expect(eve.fenced.length).toBeGreaterThan(0);
	expect((await counted(t)).refusedAnswers).toBeGreaterThan(GARBAGE.length * 2);
});

test.each([
	["fewer answers than questions", (): unknown => []],
	["more answers than questions", (items: unknown[]) => [...items, {}].map(consumed)],
	["no array", () => "consumed"],
	["no answer ever", () => hang()],
	["others' failures", (items: { id: string }[]) => items.map(({ id }) => failed(`${id}0`))],
])("R23 a target that answers with %s settles nothing", async (_how, answer) => {
	const eve = scripted("eve");
	eve.consume = () => ({ result: "accepted" });
	const t = (lottor = await TestCoordinator.startConnected({ askTimeout: 50 }));
	await node("eve", {
		...eve.schema,
		actions: {
			...eve.schema.actions,
			"reliable.ask": {
				visibility: "public",
				handler: ({ params }: { params: { items: { id: string }[] } }) =>
					answer(params.items),
			},
		},
	} as ServiceSchema);
	await until(() => t.broker.registry.services.has("eve", "eve"));
	const id = await t.prepare([{ target: "eve" }, { target: "eve" }]);
	await t.commit(id);
	await until(() => eve.consumed.length === 2);
	await t.due(10_000);
	const { messages } = await t.group(id);
	expect(messages.map(({ state }) => state)).toEqual(["delivering", "delivering"]);
	expect(messages.every(({ asks }) => asks > 0)).toBe(true);
});

function consumed() {
	return { result: "consumed", revision: 0 };
}

function failed(id: string) {
	const error = { code: "E", message: "", retryable: false };
	return { result: "failed", report: { id, attempt: 1, revision: 0, error } };
}

test("a producer that says for ever that it runs holds up its own groups alone", async () => {
	const eve = scripted("eve");
	const good = scripted("good");
	const t = (lottor = await TestCoordinator.startConnected({}, good.schema));
	await node("eve", eve.schema);
	await until(() => t.broker.registry.services.has("eve", "eve"));
	eve.check = () => ({ result: "running" });
	good.check = () => ({ result: "committed" });
	const own = await t.prepare([{}], { source: "eve", storeId: "store-eve" });
	const others = await t.prepare([{ target: "good" }], {
		source: "good",
		storeId: "store-good",
	});
	await t.due(60_000);
	await until(async () => (await t.group(others)).state === "completed");
	expect((await t.group(own)).state).toBe("prepared");
});

test("LOTTOR_OVERLOADED meets the node that floods prepare, and leaves room for the others", async () => {
	const t = (lottor = await TestCoordinator.startConnected({ maxPreparing: 40 }));
	const [eve, mallory, good] = [await node("eve"), await node("mallory"), await node("good")];
	const items = (count: number) => Array.from({ length: count }, () => t.item([{}]));
	const [flood, more, honest] = await Promise.all([
		tell<PrepareAnswer>(eve, "prepare", items(200)),
		tell<PrepareAnswer>(mallory, "prepare", items(200)),
		tell<PrepareAnswer>(good, "prepare", items(1)),
	]);
	expect(honest).toMatchObject([{ result: "prepared" }]);
	const taken = (answers: PrepareAnswer[]) =>
		answers.filter(({ result }) => result === "prepared").length;
	expect(taken(flood)).toBe(30);
	expect(taken(more)).toBeGreaterThan(0);
	expect(flood.at(-1)).toMatchObject({ error: { code: "LOTTOR_OVERLOADED", retryable: true } });
	expect((await counted(t)).overloaded).toBe(400 - taken(flood) - taken(more));
	// What was prepared makes room again.
	expect(await tell(eve, "prepare", items(1))).toMatchObject([{ result: "prepared" }]);
});

test("LOTTOR_OVERLOADED meets the node that floods any other call, and nobody else", async () => {
	const most = 2_000;
	const t = (lottor = await TestCoordinator.startConnected({}));
	const eve = await node("eve");
	const id = await t.prepare([{}]);
	const flood = Array.from({ length: most + 50 }, () =>
		eve.call("lottor.commit", { items: [{ id: t.newId(), storeId: "s" }] }).then(
			() => "answered",
			(error: { type?: string; retryable?: boolean }) => `${error.type} ${error.retryable}`,
		),
	);
	const mine = await t.call<ItemAnswer[]>("commit", {
		items: [{ id, storeId: "store-user" }],
	});
	expect(mine).toMatchObject([{ result: "ok" }]);
	const came = await Promise.all(flood);
	const refused = came.filter((one) => one !== "answered");
	expect(new Set(refused)).toEqual(new Set(["LOTTOR_OVERLOADED true"]));
	expect(refused.length).toBeGreaterThanOrEqual(1);
	expect(refused.length).toBeLessThanOrEqual(50);
	// All of it has ended: the node is heard again.
	await eve.call("lottor.health");
});
