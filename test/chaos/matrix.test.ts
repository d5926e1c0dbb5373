import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { PARTICIPANT_ACTIONS } from "../../protocol/index.ts";
import { CASES } from "./matrix/kill/cases.ts";
import { type MatrixResult, runMatrix } from "./matrix/matrix.ts";
import { allPoints, type Contract, CONTRACTS, kindOf } from "./matrix/points.ts";
import { SCENARIOS } from "./matrix/scenarios.ts";
import { Yard } from "./matrix/play.ts";
import { World } from "./matrix/world.ts";

/** Calls of an object's classes, without what JavaScript itself adds. */
function callsOf(object: object): string[] {
	return Object.getOwnPropertyNames(Object.getPrototypeOf(object)).filter(
		(name) => name !== "constructor" && typeof Reflect.get(object, name) === "function",
	);
}

/** Calls of a contract that are said to change nothing. */
type ReadOf<C extends Contract> = {
	[Call in keyof (typeof CONTRACTS)[C]]: (typeof CONTRACTS)[C][Call] extends "read"
		? Call
		: never;
}[keyof (typeof CONTRACTS)[C]];

describe("fault points", () => {
	const yard = new Yard();
	const folder = yard.folder();
	let world: World;
	let group: string;

	beforeAll(async () => {
		world = await World.start({
			folder,
			now: Date.UTC(2026, 0, 1),
			seed: 1,
			reached: () => undefined,
			cast: { by: "shop", orders: { stock: { broken: true } } },
		});
		group = await world.during(world.transaction(false));
		// What is acknowledged is written a moment later.
		for (let steps = 0; steps < 10; steps++) await world.step();
	});

	afterAll(() => {
		world.dispose();
		yard.remove();
	});

	function unlisted(contract: Contract, calls: readonly string[]): string[] {
		return calls.filter((call) => kindOf(contract, call) === undefined);
	}

	test("every call of the stores is listed: a write without a fault point fails here", () => {
		const { coordinator, participant } = world.stores;
		expect(callsOf(participant)).toContain("consume");
		expect(unlisted("participant", callsOf(participant))).toEqual([]);
		expect(callsOf(coordinator)).toContain("decide");
		expect(unlisted("coordinator", callsOf(coordinator))).toEqual([]);
	});

	test("every action of coordinators and participants is listed: a send without a fault point fails here", () => {
		expect(unlisted("reliable", Object.keys(PARTICIPANT_ACTIONS))).toEqual([]);
		const actions = Object.keys(world.broker.getLocalService("lottor").schema.actions ?? {});
		expect(actions).toContain("prepare");
		expect(unlisted("lottor", actions)).toEqual([]);
	});

	test("what is listed as read writes nothing: a write that is hidden so fails here", async () => {
		const { coordinator, participant } = world.stores;
		await participant.open();
		const page = { limit: 10 };
		const message = `${group}.0`;
		const storeCalls: Record<ReadOf<"coordinator">, () => unknown> = {
			now: () => coordinator.now(),
			get: () => coordinator.get([group]),
			payloads: () => coordinator.payloads(group),
			context: () => coordinator.context(group),
			timeline: () => coordinator.timeline(group),
			list: () => coordinator.list({}, page),
			listMessages: () => coordinator.listMessages({}, page),
			countGroups: () => coordinator.countGroups({}, 10),
			countMessages: () => coordinator.countMessages({}, 10),
			facets: () => coordinator.facets(),
			failures: () => coordinator.failures(),
			activity: () => coordinator.activity("minute", 0, world.clock.now()),
			audits: () => coordinator.audits({}, page),
			stats: () => coordinator.stats(),
		};
		const inboxCalls: Record<ReadOf<"participant">, () => unknown> = {
			unconfirmed: () => participant.unconfirmed(0, 10),
			look: () => participant.look([message]),
			unsettled: () => participant.unsettled(0, 10),
		};
		const queries: Record<ReadOf<"lottor">, object> = {
			"groups.list": {},
			"groups.get": { id: group },
			"groups.timeline": { id: group },
			"messages.list": {},
			failures: {},
			facets: {},
			activity: { step: "minute", since: 0, until: world.clock.now() },
			"audit.list": {},
			settings: {},
			stats: {},
			clients: {},
			coordinators: {},
			health: {},
		};
		const status: Record<ReadOf<"reliable">, () => unknown> = {
			status: () => world.call(`stock.${PARTICIPANT_ACTIONS.status}`, { items: [{}] }),
		};
		const calls: Record<string, () => unknown> = { ...storeCalls, ...inboxCalls, ...status };
		for (const [action, params] of Object.entries(queries))
			calls[`lottor.${action}`] = () => world.call(`lottor.${action}`, params);
		const listed = (["coordinator", "participant", "reliable", "lottor"] as const).flatMap(
			(contract) => {
				const prefix = contract === "lottor" ? "lottor." : "";
				const kinds = Object.entries<string>(CONTRACTS[contract]);
				return kinds.flatMap(([call, kind]) => (kind === "read" ? [prefix + call] : []));
			},
		);
		expect(Object.keys(calls).sort()).toEqual(listed.sort());
		const before = written(folder);
		for (const [name, call] of Object.entries(calls)) {
			await call();
			await world.settle();
			expect([name, written(folder)]).toEqual([name, before]);
		}
		await coordinator.record([
			{ who: "ann", action: "note", result: "ok", why: null, subject: null, data: null },
		]);
		expect(written(folder)).not.toBe(before);
	});

	test("only closing and stopping are orderly ends", () => {
		const ends = Object.values(CONTRACTS).flatMap((calls: Record<string, string>) =>
			Object.keys(calls).filter((call) => calls[call] === "end"),
		);
		expect(ends.sort()).toEqual(["close", "close", "stop"]);
	});

	test("real processes are killed at every point", () => {
		const killed = new Set(CASES.flatMap(({ kills }) => kills.map(({ point }) => point)));
		expect(allPoints().filter((point) => !killed.has(point))).toEqual([]);
	});
});

/** What the databases of a folder have on the disk. */
function written(folder: string): string {
	const hash = createHash("sha256");
	for (const file of readdirSync(folder).sort()) {
		if (!file.endsWith("-shm")) hash.update(file).update(readFileSync(join(folder, file)));
	}
	return hash.digest("hex");
}

/** `npm run test:matrix` plays all of them. */
const SHORT = [
	"success",
	"edit and retry",
	"recorded",
	"check-back, committed",
	"graceful stop",
	"nested",
	"broker dies at channel.ack:before",
];

/** What only the other scenarios come by. */
const ELSEWHERE = [
	"lottor.groups.commit",
	"lottor.groups.recheck",
	"lottor.groups.rollback",
	"lottor.messages.discard",
	"lottor.rollback",
	"participant.force",
	"participant.resolve",
	"plain.call",
	"reliable.ask",
	"reliable.check",
];

describe("crash matrix", () => {
	let result: MatrixResult;
	const breaches: string[] = [];

	beforeAll(async () => {
		result = await runMatrix({
			seed: 1,
			pairs: 0,
			most: 0,
			scenarios: SCENARIOS.filter(({ name }) => SHORT.includes(name)),
			progress: (name, _, found) => breaches.push(...found.map((one) => `${name}: ${one}`)),
		});
	}, 120_000);

	test("PROTOCOL 8: nothing is lost, nothing is a phantom, nothing takes effect twice, all ends", () => {
		expect(breaches).toEqual([]);
		expect(result).toMatchObject({ lost: 0, phantom: 0, doubles: 0, wrong: 0 });
	});

	test("each point that the scenarios come by is crashed at", () => {
		expect(allPoints().length).toBeGreaterThan(50);
		expect(result.crashes).toBeGreaterThanOrEqual(allPoints().length - result.unhit.length);
		const calls = new Set(result.unhit.map((point) => point.slice(0, point.lastIndexOf(":"))));
		expect([...calls].sort()).toEqual(ELSEWHERE);
	});
});
