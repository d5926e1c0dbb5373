import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";

import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { Loggers, type Middleware, ServiceBroker, type ServiceSchema } from "moleculer";

import { SignedCalls } from "../../middlewares/signed-calls.ts";
import { reliableOf, ReliableMessage } from "../../mixins/reliable-message/index.ts";
import { type Clock, LottorError, systemClock } from "../../protocol/index.ts";
import { Coordinator, type GroupView } from "../../services/coordinator/index.ts";
import { prepareItem } from "../support/groups.ts";
import { until } from "../support/until.ts";

const SECRET = "a secret of this cluster";
const brokers: ServiceBroker[] = [];

afterEach(async () => {
	await Promise.all(brokers.splice(0).map((broker) => broker.stop()));
	rmSync(folder, { recursive: true, force: true });
});

/** A request of `lottor.audit.add`, which would be done again each time that it is taken. */
interface Packet {
	readonly topic: string;
	readonly data: Buffer;
}

const packets: Packet[] = [];
const lines: string[] = [];
let heldBack = false;
let late = 0;
const clock: Clock = { ...systemClock, now: () => systemClock.now() + late };

/** Whoever listens to the network, and can stop what goes over it. */
const wiretap = {
	transporterSend: (next: (topic: string, data: Buffer, more: object) => Promise<void>) => {
		return (topic: string, data: Buffer, more: object) => {
			const found = topic.includes(".REQ.") && data.includes("lottor.audit.add");
			if (found) packets.push({ topic, data });
			return found && heldBack ? Promise.resolve() : next(topic, data, more);
		};
	},
} as unknown as Middleware;

class LineLogger extends Loggers.Base<object> {
	override getLogHandler() {
		return (type: string, args: unknown[]) =>
			void lines.push(`${type} ${inspect(args, { depth: 9 })}`);
	}
}

async function node(nodeID: string, secret: string | undefined, ...schemas: ServiceSchema[]) {
	const broker = new ServiceBroker({
		nodeID,
		logger: new LineLogger(),
		logLevel: "trace",
		metrics: true,
		// Lottor's own calls are not repeated by it.
		retryPolicy: { enabled: true, retries: 2, delay: 1 },
		transporter: "Fake",
		registry: { stopDelay: 0 },
		middlewares: secret === undefined ? [] : [SignedCalls({ secret, clock }), wiretap],
	});
	for (const schema of schemas) broker.createService(schema);
	brokers.push(broker);
	await broker.start();
	return broker;
}

let folder: string;

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "lottor-"));
	packets.length = lines.length = late = 0;
	heldBack = false;
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

const AUDIT = { items: [{ who: "ann", action: "look", result: "ok" }] };

async function audited(lottor: ServiceBroker): Promise<number> {
	const { items } = await lottor.call<{ items: unknown[] }>("lottor.audit.list");
	return items.length;
}

function refused(broker: ServiceBroker): number {
	const metric = broker.metrics.getMetric("moleculer.lottor.calls.refused.total");
	const [counted] = (metric?.snapshot() ?? []) as unknown as { value: number }[];
	return counted?.value ?? 0;
}

/** Sends the first call that was overheard, as it was or changed. */
async function replay(
	from: ServiceBroker,
	change: (packet: Record<string, unknown>) => void = () => undefined,
): Promise<void> {
	const { topic, data } = packets[0] as Packet;
	const packet = JSON.parse(data.toString()) as Record<string, unknown>;
	change(packet);
	const { tx } = from.transit as unknown as {
		tx: { send(topic: string, data: Buffer, more: object): Promise<void> };
	};
	await tx.send(topic, Buffer.from(JSON.stringify(packet)), {});
}

test("a call that is repeated as it was, or changed, by whoever overheard it is refused", async () => {
	const lottor = await node("lottor", SECRET, coordinator());
	const admin = await node("admin", SECRET);
	const thief = await node("thief", undefined);
	await Promise.all([admin, thief].map((one) => one.waitForServices("lottor")));
	await admin.call("lottor.audit.add", AUDIT);
	expect(await audited(lottor)).toBe(1);

	await replay(thief);
	await replay(
		thief,
		(packet) => (packet["params"] = { items: [{ ...AUDIT.items[0], who: "eve" }] }),
	);
	await replay(thief, (packet) => (packet["action"] = "lottor.commit"));
	await replay(thief, (packet) => (packet["sender"] = "thief"));
	const headers = (packet: Record<string, unknown>) =>
		packet["headers"] as Record<string, string>;
	await replay(thief, (packet) => {
		// A number that was not used yet.
		const name = "x-lottor-signature";
		headers(packet)[name] = headers(packet)[name]?.replace(/\.1\./, ".2.") ?? "";
	});
	await replay(thief, (packet) => (packet["headers"] = {}));

	await until(() => refused(lottor) === 6);
	expect(await audited(lottor)).toBe(1);
	// One line a peer and kind, however many were refused.
	const said = lines.filter((line) => /^warn.*was refused/s.test(line));
	expect(said.length).toBeGreaterThan(0);
	expect(said.length).toBeLessThan(6);
});

test("a call to one process start of a node is none to its next one", async () => {
	const former = await node("lottor", SECRET, coordinator());
	const admin = await node("admin", SECRET);
	await admin.waitForServices("lottor");
	await admin.call("lottor.audit.add", AUDIT);
	await former.stop();
	brokers.splice(brokers.indexOf(former), 1);
	const lottor = await node("lottor", SECRET, coordinator());
	await replay(admin);
	await until(() => refused(lottor) === 1);
	expect(await audited(lottor)).toBe(1);
});

test("a call that was held back for longer than maxAge is refused", async () => {
	const lottor = await node("lottor", SECRET, coordinator());
	const admin = await node("admin", SECRET);
	await admin.waitForServices("lottor");
	heldBack = true;
	const lost = admin.call("lottor.audit.add", AUDIT, { timeout: 100 });
	await expect(lost).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
	late = 11 * 60_000;
	heldBack = false;
	await replay(admin);
	await until(() => refused(lottor) === 1);
	expect(lines.some((line) => / 66\d s ago/.test(line))).toBe(true);
	expect(await audited(lottor)).toBe(0);
});

test("an answer that is not signed with the secret is not believed", async () => {
	const admin = await node("admin", SECRET);
	await node("fake", undefined, {
		name: "lottor",
		actions: {
			health: () => ({ ready: true }),
			stats: () => ({ result: {}, signature: "x".repeat(43) }),
		},
	});
	await admin.waitForServices("lottor");
	for (const action of ["lottor.health", "lottor.stats"]) {
		await expect(admin.call(action)).rejects.toMatchObject({
			type: "LOTTOR_SIGNATURE_INVALID",
		});
	}
	expect(refused(admin)).toBe(2);
});

test("a check-back that a stranger answers under a producer's name and store decides nothing", async () => {
	const lottor = await node("lottor", SECRET, coordinator());
	const asked: unknown[] = [];
	await node("fake", undefined, {
		name: "user",
		metadata: { lottor: { roles: ["producer"], storeId: "store-user" } },
		actions: {
			"reliable.check": {
				handler({ params }: { params: { items: unknown[] } }) {
					asked.push(...params.items);
					return params.items.map(() => ({ result: "committed" }));
				},
			},
		},
	});
	await lottor.waitForServices("user");
	const item = prepareItem({ checkAfter: 0 });
	const { id } = item;
	await lottor.call("lottor.prepare", { items: [item] });
	await until(async () => {
		const { group } = await lottor.call<GroupView, object>("lottor.groups.get", { id });
		return asked.length > 0 && group.checks > 0;
	});
	const { group } = await lottor.call<GroupView, object>("lottor.groups.get", { id });
	expect(group.state).toBe("prepared");
	expect(refused(lottor)).toBeGreaterThan(0);
});

test("R28 a retryable failure comes back as it is where Moleculer's retries are on: a signature holds once", async () => {
	let calls = 0;
	await node("fake", SECRET, {
		name: "lottor",
		actions: {
			health: () => {
				calls++;
				throw new LottorError("LOTTOR_STORE_UNAVAILABLE", "not now");
			},
		},
	});
	const admin = await node("admin", SECRET);
	await admin.waitForServices("lottor");
	const failed = expect.objectContaining({ type: "LOTTOR_STORE_UNAVAILABLE" });
	await expect(admin.call("lottor.health")).rejects.toEqual(failed);
	expect(calls).toBe(1);
});

test("the secret is in no line of the log, no setting and no option that a node tells", async () => {
	const lottor = await node("lottor", SECRET, coordinator());
	const stranger = await node("stranger", undefined);
	await stranger.waitForServices("lottor");
	await expect(stranger.call("lottor.stats")).rejects.toThrow();
	const told = [
		await lottor.call("lottor.settings"),
		await lottor.call("$node.options"),
		await lottor.call("$node.services", { withActions: true }),
		await lottor.call("lottor.coordinators"),
	];
	expect(lines.length).toBeGreaterThan(0);
	expect(`${lines.join("\n")}${inspect(told, { depth: 12, showHidden: true })}`).not.toContain(
		SECRET,
	);
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
