import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { PARTICIPANT_ACTIONS } from "../../protocol/index.ts";
import { type MatrixResult, runMatrix } from "./matrix/matrix.ts";
import { allPoints, type Contract, kindOf } from "./matrix/points.ts";
import { SCENARIOS } from "./matrix/scenarios.ts";
import { Yard } from "./matrix/play.ts";
import { World } from "./matrix/world.ts";

/** Calls of an object's classes, without what JavaScript itself adds. */
function callsOf(object: object): string[] {
	return Object.getOwnPropertyNames(Object.getPrototypeOf(object)).filter(
		(name) => name !== "constructor" && typeof Reflect.get(object, name) === "function",
	);
}

describe("fault points", () => {
	const yard = new Yard();
	let world: World;

	beforeAll(async () => {
		world = await World.start({
			folder: yard.folder(),
			now: Date.UTC(2026, 0, 1),
			seed: 1,
			reached: () => undefined,
		});
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
});

/** `npm run test:matrix` plays all of them. */
const SHORT = ["success", "edit and retry", "recorded", "check-back, committed"];

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
		expect(result.unhit.length).toBeLessThan(20);
	});
});
