import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { Errors, ServiceBroker } from "moleculer";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type Reliable, ReliableMessage } from "../../mixins/reliable-message/index.ts";
import {
	type Envelope,
	ERRORS,
	newGroupId,
	type ParticipantMetadata,
	PARTICIPANT_ACTIONS,
	systemClock,
	systemRandom,
	WIRE_VERSION,
} from "../../protocol/index.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { Coordinator, type GroupView } from "../../services/coordinator/index.ts";
import { dropDatabase, ownDatabase } from "../support/mongo-stores.ts";
import { GETTER, mutated, nastyValue } from "../support/nasty.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

/** Calls of each action. 2,000 take some minutes: LOTTOR_FUZZ_CALLS=2000 npm test -- fuzz-actions */
const CALLS = Number(process.env["LOTTOR_FUZZ_CALLS"] ?? 60);
const SEED = Number(process.env["LOTTOR_FUZZ_SEED"] ?? 7);
const LIMIT_MS = 60_000 + CALLS * 500;

/** What V8 says when code trips over a value: no answer for a caller. */
const INTERNAL =
	/is not (a function|iterable|defined)|Cannot (read|convert|set|destructure)|call stack|undefined \(reading|SQLITE|BSON|MongoServer|ERR_/;

interface Answer {
	readonly result?: unknown;
	readonly error?: { readonly code?: unknown; readonly message?: unknown };
}

const node = (nodeID: string) =>
	new ServiceBroker({ nodeID, logger: false, metrics: true, transporter: "Fake" });
let folder: string;
let lottor: ServiceBroker;
let peer: ServiceBroker;
let secret: string[] = [];
let before: GroupView[] = [];
/** What a caller can know: groups in every state, their messages. */
const known: { groups: string[]; messages: string[]; storeId: string } = {
	groups: [],
	messages: [],
	storeId: "",
};
/** Calls that were made over the wire, and in the node itself. */
const calls = { remote: 0, local: 0 };

function shop(name: string, got: string[]) {
	return {
		name,
		mixins: [ReliableMessage({ store: `sqlite:${join(folder, `${name}.db`)}` })],
		messages: {
			grant: {
				handler: (ctx: { locals: object }) => void got.push(JSON.stringify(ctx.locals)),
			},
			fail: {
				handler: () => {
					throw new Errors.ValidationError("no", "NO", {});
				},
			},
		},
	};
}

const got: string[] = [];

/** @param store of the coordinator; none: a file */
async function start(store?: string): Promise<void> {
	folder = mkdtempSync(join(tmpdir(), "lottor-fuzz-"));
	lottor = node("fuzzed");
	peer = node("peer");
	Object.assign(known, { groups: [], messages: [] });
	Object.assign(calls, { remote: 0, local: 0 });
	lottor.createService(Coordinator({ store: store ?? `sqlite:${join(folder, "lottor.db")}` }));
	lottor.createService(shop("user", got));
	lottor.createService(shop("auth", got));
	await lottor.start();
	await peer.start();
	await peer.waitForServices(["lottor", "auth", "user"]);
	known.storeId = (
		lottor.getLocalService("user").metadata["lottor"] as ParticipantMetadata
	).storeId;
	secret = [await transact("grant"), await transact("fail")];
	await until(async () => (await view(secret[0])).group.state === "completed");
	await until(async () => (await view(secret[1])).group.messages[0]?.state === "failed");
	for (const type of ["grant", "fail", "fail", "grant", "fail"]) {
		known.groups.push(await transact(type));
	}
	known.messages = known.groups.map((id) => `${id}.0`);
	before = await Promise.all(secret.map(view));
	got.length = 0;
}

async function stop(): Promise<void> {
	await peer.stop();
	await lottor.stop();
	rmSync(folder, { recursive: true, force: true });
}

function transact(type: string): Promise<string> {
	const { reliable } = lottor.getLocalService("user") as unknown as { reliable: Reliable };
	return reliable.transaction(null, [{ target: "auth", type, payload: { a: 1 } }], (tx) =>
		Promise.resolve(tx.group),
	);
}

function view(id = ""): Promise<GroupView> {
	return lottor.call<GroupView, object>("lottor.groups.get", { id });
}

const groupId = fc.oneof(
	fc.constant(0).map(() => newGroupId(systemClock, systemRandom)),
	fc.nat().map((place) => known.groups[place % known.groups.length] ?? ""),
);
const messageId = groupId.map((id) => `${id}.0`);
const lazily = <T>(make: () => T) => fc.constant(0).map(make);
const storeId = lazily(() => known.storeId);
const text = fc.constantFrom("user", "auth", "grant", "fail", "a");

const prepareItem = fc.record({
	id: groupId,
	source: text,
	storeId,
	guarantee: fc.constantFrom("transactional", "recorded", "memory"),
	owner: fc.record({ nodeID: text, instanceID: text }),
	idempotencyKey: fc.option(fc.string({ maxLength: 5 }), { nil: undefined }),
	checkAfter: fc.option(fc.integer({ min: 0, max: 50 }), { nil: undefined }),
	context: fc.constant("{}"),
	messages: fc.array(
		fc.record({
			target: text,
			type: text,
			content: fc.json({ maxDepth: 2 }),
			delay: fc.nat(10),
			maxAttempts: fc.integer({ min: 1, max: 3 }),
			orderingKey: text,
		}),
		{ minLength: 1, maxLength: 3 },
	),
});
const report = fc.record({
	id: messageId,
	receipt: fc.string(),
	storeId,
	attempt: fc.integer({ min: 1, max: 3 }),
	revision: fc.nat(2),
	result: fc.constantFrom("consumed", "failed", "expired"),
	error: fc.record({ code: text, message: text, retryable: fc.boolean(), stack: text }),
	policy: fc.record({
		retries: fc.nat(5),
		delay: fc.nat(1_000),
		factor: fc.constant(2),
		maxDelay: fc.nat(60_000),
	}),
});
const order = fc.record({
	id: fc.oneof(groupId, messageId),
	version: fc.option(fc.nat(5), { nil: undefined }),
	by: text,
	why: text,
	payload: fc.jsonValue(),
	rebind: fc.boolean(),
});
const list = fc.record(
	{
		states: fc.constantFrom(["prepared"], ["failed"], ["completed", "inDoubt"]),
		source: text,
		target: text,
		type: text,
		errorCode: text,
		since: fc.nat(),
		until: fc.nat(),
		idPrefix: groupId,
		groupPrefix: groupId,
		index: fc.nat(3),
		conflict: fc.boolean(),
		limit: fc.integer({ min: 1, max: 10 }),
		cursor: text,
		order: fc.constantFrom("newest", "oldest"),
		scan: fc.nat(100),
		text,
		fields: fc.constantFrom(["a"], ["user.id", "b"]),
		total: fc.boolean(),
	},
	{ requiredKeys: [] },
);
const envelope = lazily((): Envelope => {
	const group = newGroupId(systemClock, systemRandom);
	const { storeId: own } = lottor.getLocalService("auth").metadata[
		"lottor"
	] as ParticipantMetadata;
	return {
		v: WIRE_VERSION,
		id: `${group}.0`,
		group,
		source: "user",
		target: "auth",
		type: "grant",
		attempt: 1,
		revision: 0,
		receipt: "r".repeat(32),
		coordinator: "00112233445566778899aabbccddeeff",
		storeId: own,
		createdAt: Date.now(),
		sentAt: Date.now(),
		orderingKey: null,
		context: "{}",
		content: "{}",
	};
});
const question = fc.record({
	id: fc.oneof(groupId, messageId),
	storeId: lazily(
		() => (lottor.getLocalService("auth").metadata["lottor"] as ParticipantMetadata).storeId,
	),
	owner: fc.record({ nodeID: text, instanceID: text }),
	ownerGoneMs: fc.option(fc.nat()),
	createdAt: fc.nat(),
	type: text,
	attempt: fc.integer({ min: 1, max: 3 }),
	revision: fc.nat(2),
	minRevision: fc.nat(3),
});

const items = (item: fc.Arbitrary<unknown>) =>
	fc.record({ items: fc.array(item, { minLength: 1, maxLength: 4 }) });

/** What each action expects. One that is not here is fuzzed with all of these. */
const SHAPES: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
	"lottor.prepare": items(prepareItem),
	"lottor.commit": items(fc.record({ id: groupId, storeId, why: text })),
	"lottor.rollback": items(fc.record({ id: groupId, storeId, why: text })),
	"lottor.report": items(report),
	"lottor.groups.list": list,
	"lottor.messages.list": list,
	"lottor.groups.get": fc.record({ id: groupId }),
	"lottor.groups.timeline": fc.record({ id: groupId }),
	"lottor.activity": fc.record({
		step: fc.constantFrom("minute", "day"),
		since: fc.nat(),
		until: fc.nat(),
	}),
	"lottor.audit.list": fc.record({ who: text, action: text, limit: fc.nat(5), cursor: text }),
	"lottor.audit.add": items(
		fc.record({
			who: text,
			action: text,
			result: text,
			why: text,
			subject: text,
			data: fc.object(),
		}),
	),
	...Object.fromEntries(
		["messages.retry", "messages.edit", "messages.discard"]
			.concat("groups.commit", "groups.rollback", "groups.recheck")
			.map((name) => [`lottor.${name}`, items(order)]),
	),
	[`auth.${PARTICIPANT_ACTIONS.consume}`]: fc.record({
		items: fc.array(envelope, { maxLength: 4 }),
		settled: fc.array(fc.record({ id: messageId, attempt: fc.integer({ min: 1, max: 3 }) })),
	}),
	...Object.fromEntries(
		[PARTICIPANT_ACTIONS.check, PARTICIPANT_ACTIONS.ask, PARTICIPANT_ACTIONS.fence].map(
			(name) => [`auth.${name}`, items(question)],
		),
	),
};

/** Actions that answer item by item: everything that takes items, but for these. */
const NO_ANSWERS = new Set(["lottor.audit.add", `auth.${PARTICIPANT_ACTIONS.status}`]);

function actionsOf(service: string): string[] {
	return Object.values(lottor.getLocalService(service).actions).length === 0
		? []
		: Object.keys(lottor.getLocalService(service).schema.actions ?? {}).map(
				(name) => `${service}.${name}`,
			);
}

function problemOf(error: unknown): string | undefined {
	const { type, message } = error as { type?: unknown; message?: unknown };
	if (message === GETTER) return undefined;
	if (typeof message === "string" && INTERNAL.test(message)) return message;
	if (type === "VALIDATION_ERROR") return undefined;
	return typeof type === "string" && Object.hasOwn(ERRORS, type)
		? undefined
		: `${String((error as Error).stack)}`;
}

function check(action: string, params: unknown, answer: unknown): void {
	const given = (params as { items?: unknown } | undefined)?.items;
	if (!Array.isArray(given) || NO_ANSWERS.has(action) || !SHAPES[action]) return;
	if (action === "lottor.groups.list" || action === "lottor.messages.list") return;
	expect(answer).toHaveLength(given.length);
	for (let place = 0; place < given.length; place++) {
		const one = (answer as Answer[])[place];
		expect(typeof one?.result).toBe("string");
		if (one?.error === undefined) continue;
		expect(Object.keys(ERRORS)).toContain(one.error.code);
		expect(one.error.message).not.toMatch(INTERNAL);
	}
}

/** @returns the value as it comes over the wire; undefined: Moleculer can't send it */
function sent(value: unknown): unknown {
	try {
		return JSON.parse(JSON.stringify(value));
	} catch {
		return undefined;
	}
}

/** @param remote whether the call is to come from the other node, where it can be sent at all */
async function attack(action: string, given: unknown, remote: boolean): Promise<void> {
	const wired = remote ? sent(given) : undefined;
	const from = wired === undefined ? lottor : peer;
	const params = wired ?? given;
	calls[from === peer ? "remote" : "local"]++;
	let answer: unknown;
	try {
		answer = await from.call(action, params as object, { timeout: 20_000, retries: 0 });
	} catch (error) {
		const problem = problemOf(error);
		if (problem !== undefined) throw new Error(`${action}: ${problem}`, { cause: error });
		return;
	}
	check(action, params, answer);
}

const ACTIONS = [
	...Object.keys(Coordinator({ store: "sqlite::memory:" }).actions ?? {}).map(
		(name) => `lottor.${name}`,
	),
	...Object.values(PARTICIPANT_ACTIONS).map((name) => `auth.${name}`),
];

/** @param times calls of each action */
function fuzz(times: number): void {
	test("the list is what the services really have", () => {
		const real = [...actionsOf("lottor"), ...actionsOf("auth")];
		expect([...ACTIONS].sort()).toEqual(real.sort());
	});

	test.each(ACTIONS)(
		"%s",
		async (action) => {
			const valid = SHAPES[action] ?? fc.oneof(...Object.values(SHAPES));
			const params = fc.oneof(
				{ arbitrary: mutated(valid), weight: 6 },
				{ arbitrary: nastyValue, weight: 1 },
				{ arbitrary: nastyValue.map((value) => ({ items: [value] })), weight: 1 },
				{ arbitrary: nastyValue.map((value) => ({ items: value })), weight: 1 },
			);
			const property = fc.asyncProperty(params, fc.boolean(), (given, remote) =>
				attack(action, given, remote),
			);
			await fc.assert(property, { seed: SEED, numRuns: times });
		},
		LIMIT_MS,
	);

	test("half of the calls came from another node", () => {
		const { remote, local } = calls;
		expect(remote).toBeGreaterThan(local / 2);
		expect(local).toBeGreaterThan(remote / 2);
	});

	test("and lives on: others' records are as they were, and a transaction completes", async () => {
		expect(await Promise.all(secret.map(view))).toEqual(before);
		expect(({} as Record<string, unknown>)["state"]).toBeUndefined();
		got.length = 0;
		const group = await transact("grant");
		await until(async () => (await view(group)).group.state === "completed");
		expect(got.some((locals) => locals.includes(group))).toBe(true);
		expect(await peer.call("lottor.health")).toMatchObject({ ready: true });
	}, 60_000);
}

describe("every public action answers whatever it is called with", () => {
	describe("on a SQLite file", () => {
		beforeAll(() => start(), 60_000);
		afterAll(stop);
		fuzz(CALLS);
	});

	withServer(mongodb, "on MongoDB", (server) => {
		describe("on MongoDB", () => {
			const store = ownDatabase(server);
			beforeAll(() => start(store), 60_000);
			afterAll(async () => {
				await stop();
				await dropDatabase(store);
			}, 60_000);
			fuzz(Math.ceil(CALLS / 3));
		});
	});
});
