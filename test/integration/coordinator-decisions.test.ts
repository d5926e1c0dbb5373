import { afterEach, describe, expect, test } from "@jest/globals";
import type { CheckAnswer, Envelope, ItemAnswer, PrepareAnswer } from "../../protocol/index.ts";
import { reportOf, type Scripted, scripted, TestCoordinator } from "../support/coordinator.ts";

let lottor: TestCoordinator;

afterEach(() => lottor.stop());

const GONE = { nodeID: "gone", instanceID: "gone" };

async function refusal(item: unknown): Promise<{ code: string; data?: Record<string, unknown> }> {
	const [answer] = await lottor.call<PrepareAnswer[]>("prepare", { items: [item] });
	if (answer?.result !== "refused") throw new Error(`was not refused: ${JSON.stringify(answer)}`);
	return answer.error;
}

function operate(action: string, item: object): Promise<ItemAnswer> {
	return lottor
		.call<ItemAnswer[]>(action, { items: [item] })
		.then((answers) => answers[0] as ItemAnswer);
}

describe("prepare", () => {
	test("R6 the same id and content get the same answer; other content is refused: LOTTOR_GROUP_DIFFERS", async () => {
		lottor = await TestCoordinator.start();
		const item = lottor.item([{ content: '{"n":1}' }]);
		const answers = await lottor.call<PrepareAnswer[]>("prepare", { items: [item, item] });
		expect(answers[0]).toEqual(answers[1]);
		expect(answers[0]).toMatchObject({ result: "prepared", state: "prepared", id: item.id });
		expect(
			await refusal({
				...item,
				messages: [{ target: "auth", type: "t", content: '{"n":2}' }],
			}),
		).toMatchObject({
			code: "LOTTOR_GROUP_DIFFERS",
		});
		expect(await refusal({ ...item, storeId: "other" })).toMatchObject({
			code: "LOTTOR_GROUP_DIFFERS",
		});
	});

	test("R6 a repeat that meets a decided group is told its state, so that no work runs", async () => {
		lottor = await TestCoordinator.start();
		const item = lottor.item([{}]);
		await lottor.call("prepare", { items: [item] });
		await lottor.rollback(item.id);
		expect(await lottor.call("prepare", { items: [item] })).toMatchObject([
			{ result: "existing", id: item.id, state: "rolledBack" },
		]);
	});

	test("R1 an idempotency key is a field of its own: its repeat finds the first group", async () => {
		lottor = await TestCoordinator.start();
		const id = await lottor.prepare([{}], { idempotencyKey: "order-7" });
		const again = lottor.item([{}], { idempotencyKey: "order-7" });
		expect(await lottor.call("prepare", { items: [again] })).toMatchObject([
			{ result: "existing", id },
		]);
		const elsewhere = lottor.item([{}], { idempotencyKey: "order-7", source: "other" });
		expect(await lottor.call("prepare", { items: [elsewhere] })).toMatchObject([
			{ result: "prepared" },
		]);
		await lottor.rollback(id);
		expect(await lottor.call("prepare", { items: [again] })).toMatchObject([
			{ result: "prepared", id: again.id },
		]);
	});

	test("R2 the owner is node and process start; both are stored", async () => {
		lottor = await TestCoordinator.start();
		const owner = { nodeID: "user-1", instanceID: "a" };
		const id = await lottor.prepare([{}], { owner });
		expect((await lottor.group(id)).owner).toEqual(owner);
	});

	test("R29 LOTTOR_PAYLOAD_TOO_LARGE: a payload or a group over its limit is refused", async () => {
		lottor = await TestCoordinator.start({ maxPayload: 100, maxGroup: 150 });
		const content = JSON.stringify("x".repeat(98));
		expect(await refusal(lottor.item([{ content: `${content} ` }]))).toMatchObject({
			code: "LOTTOR_PAYLOAD_TOO_LARGE",
			data: { field: "messages[0].payload" },
		});
		expect(await refusal(lottor.item([{ content }, { content }]))).toMatchObject({
			code: "LOTTOR_PAYLOAD_TOO_LARGE",
		});
		await lottor.prepare([{ content }]);
	});

	test("R29 a group of the largest size goes through whole", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, auth.schema);
		const content = JSON.stringify("x".repeat(500_000));
		const id = await lottor.prepare(Array.from({ length: 16 }, () => ({ content })));
		await lottor.commit(id);
		await lottor.due(1_000);
		expect((await lottor.group(id)).state).toBe("completed");
		expect(auth.consumed.every((one) => one.content === content)).toBe(true);
	});

	test("LOTTOR_TOO_MANY_MESSAGES: 1,000 messages are taken, 1,001 are not", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare(Array.from({ length: 1_000 }, () => ({})));
		expect(await refusal(lottor.item(Array.from({ length: 1_001 }, () => ({}))))).toMatchObject(
			{
				code: "LOTTOR_TOO_MANY_MESSAGES",
			},
		);
		await lottor.commit(id);
		for (let i = 0; i < 10 && (await lottor.group(id)).state !== "completed"; i++)
			await lottor.due(1_000);
		expect((await lottor.group(id)).state).toBe("completed");
		expect(auth.consumed).toHaveLength(1_000);
	});

	test("LOTTOR_UNKNOWN_TARGET: a target that was never seen is accepted and waits, or is refused, by option", async () => {
		lottor = await TestCoordinator.start({ unknownTargets: "refuse" }, scripted("auth").schema);
		await lottor.prepare([{ target: "auth" }]);
		expect(await refusal(lottor.item([{ target: "nobody" }]))).toMatchObject({
			code: "LOTTOR_UNKNOWN_TARGET",
			data: { target: "nobody" },
		});
		await lottor.stop();
		lottor = await TestCoordinator.start();
		const id = await lottor.prepare([{ target: "nobody" }]);
		await lottor.commit(id);
		expect((await lottor.message(id)).state).toBe("pending");
	});

	test.each([
		["item", () => 7, "item"],
		["id", () => lottor.item([{}], { id: "x" }), "id"],
		["source", () => lottor.item([{}], { source: "" }), "source"],
		["storeId", () => ({ ...lottor.item([{}]), storeId: 7 }), "storeId"],
		["owner", () => ({ ...lottor.item([{}]), owner: null }), "owner"],
		["messages", () => lottor.item([]), "messages"],
		["target", () => lottor.item([{}, { target: "x".repeat(256) }]), "messages[1].target"],
		["content", () => lottor.item([{ content: "{" }]), "messages[0].content"],
		["delay", () => lottor.item([{ delay: -1 }]), "messages[0].delay"],
		["maxAttempts", () => lottor.item([{ maxAttempts: 0 }]), "messages[0].maxAttempts"],
		["context", () => lottor.item([{}], { context: "no" }), "context"],
	])(
		"LOTTOR_INVALID_REQUEST: a wrong %s is named, and the other items of the batch stand",
		async (_, bad, field) => {
			lottor = await TestCoordinator.start();
			const good = lottor.item([{}]);
			const answers = await lottor.call<PrepareAnswer[]>("prepare", { items: [bad(), good] });
			expect(answers[0]).toMatchObject({
				result: "refused",
				error: { code: "LOTTOR_INVALID_REQUEST", retryable: false, data: { field } },
			});
			expect(answers[1]).toMatchObject({ result: "prepared", id: good.id });
		},
	);
});

describe("decisions", () => {
	test("R9 LOTTOR_GROUP_UNKNOWN: a commit of an unknown group is answered, counted and never taken for done", async () => {
		lottor = await TestCoordinator.start();
		expect(await lottor.commit(lottor.newId())).toMatchObject({
			result: "unknown",
			error: { code: "LOTTOR_GROUP_UNKNOWN" },
		});
		const stats = await lottor.call<{ sinceStart: { unknownCommits: number } }>("stats");
		expect(stats.sinceStart.unknownCommits).toBe(1);
	});

	test("R3 LOTTOR_STORE_MISMATCH: only who has the group's participant store decides it", async () => {
		lottor = await TestCoordinator.start();
		const id = await lottor.prepare([{}]);
		expect(await lottor.commit(id, "another")).toMatchObject({
			result: "invalid",
			error: { code: "LOTTOR_STORE_MISMATCH" },
		});
		expect((await lottor.group(id)).state).toBe("prepared");
	});

	test("R17 LOTTOR_DECISION_CONFLICT: a commit that meets a rollback puts the group in doubt, nothing sent", async () => {
		const auth = scripted("auth");
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.rollback(id);
		expect(await lottor.commit(id)).toMatchObject({
			result: "conflict",
			error: { code: "LOTTOR_DECISION_CONFLICT" },
		});
		expect(await lottor.group(id)).toMatchObject({
			state: "inDoubt",
			messages: [{ state: "held" }],
		});
		expect((await lottor.group(id)).conflict).toContain("met rolledBack");
		expect(auth.consumed).toEqual([]);
	});

	test("R17 a rollback that meets a commit is shown on the group and changes nothing else", async () => {
		lottor = await TestCoordinator.start({}, scripted("auth").schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		expect(await lottor.rollback(id)).toMatchObject({ result: "conflict", state: "completed" });
		expect(await lottor.group(id)).toMatchObject({
			state: "completed",
			conflict: "rollback by producer met completed",
		});
	});
});

describe("check-back", () => {
	let user: Scripted;

	async function withAnswer(answer: CheckAnswer, over = {}): Promise<string> {
		user = scripted("user");
		user.check = () => answer;
		lottor = await TestCoordinator.start({}, user.schema, scripted("auth").schema);
		return lottor.prepare([{}], over);
	}

	async function untilChecked(id: string): Promise<void> {
		const { checkAt } = await lottor.group(id);
		await lottor.due((checkAt ?? 0) - lottor.clock.now());
	}

	test("defect 1: check-back runs when no decision came, and its answer counts", async () => {
		const id = await withAnswer({ result: "committed" });
		await lottor.due(9_999);
		expect(user.checked).toEqual([]);
		await lottor.due(1);
		expect(user.checked).toMatchObject([{ id, storeId: "store-user", ownerGoneMs: null }]);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R14 an answer rolledBack is final: nothing is delivered", async () => {
		const id = await withAnswer({ result: "rolledBack" });
		await lottor.due(10_000);
		expect(await lottor.group(id)).toMatchObject({
			state: "rolledBack",
			messages: [{ state: "discarded" }],
		});
	});

	test("R13 running is not an answer: it is asked again, with backoff, and never fenced from here", async () => {
		const id = await withAnswer({ result: "running" });
		await lottor.due(10_000);
		await lottor.due(10_000);
		expect(user.checked).toHaveLength(2);
		await lottor.due(3_600_000);
		expect(await lottor.group(id)).toMatchObject({ state: "prepared", unknowns: 0 });
		user.check = () => ({ result: "committed" });
		await lottor.due(300_000);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R13 an instance that does not answer is passed over: the next one is asked at once", async () => {
		const id = await withAnswer({ result: "committed" });
		user.check = () => {
			throw new Error("broken");
		};
		const second = scripted("user");
		second.check = () => ({ result: "committed" });
		lottor.broker.createService({
			...second.schema,
			name: "spare",
			metadata: {
				lottor: {
					...(user.schema.metadata as { lottor: object }).lottor,
					aliases: ["user"],
				},
			},
		});
		await lottor.broker.waitForServices("spare");
		await lottor.due(10_000);
		expect(user.checked).toHaveLength(1);
		expect(second.checked).toHaveLength(1);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R15 the answerer learns how long the owner has been gone, as this coordinator saw it itself", async () => {
		await withAnswer({ result: "unknown" }, { owner: GONE });
		await lottor.due(10_000);
		expect(user.checked[0]?.ownerGoneMs).toBe(10_000);
		await lottor.restart();
		await lottor.due(20_000);
		expect(user.checked.at(-1)?.ownerGoneMs).toBeLessThanOrEqual(20_000);
	});

	test("R16 only unknown answers count towards maxChecks; then the group is in doubt, and still asked", async () => {
		const id = await withAnswer({ result: "unknown" }, { guarantee: "recorded" });
		for (let i = 0; i < 14; i++) await untilChecked(id);
		expect(await lottor.group(id)).toMatchObject({ state: "prepared", unknowns: 14 });
		await untilChecked(id);
		expect(await lottor.group(id)).toMatchObject({ state: "inDoubt", unknowns: 15 });
		const asked = user.checked.length;
		await lottor.due(300_000);
		expect(user.checked.length).toBe(asked + 1);
		user.check = () => ({ result: "committed" });
		await lottor.due(300_000);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R16 nobody answers: in doubt by age, never rolled back by guess", async () => {
		lottor = await TestCoordinator.start({}, scripted("auth").schema);
		const id = await lottor.prepare([{}]);
		await lottor.due(3_000_000);
		expect(await lottor.group(id)).toMatchObject({
			state: "prepared",
			waiting: "no living instance of user with the store of this group",
		});
		await lottor.due(900_000);
		expect((await lottor.group(id)).state).toBe("inDoubt");
	});

	test("R16 a group that nobody could answer for is asked about at once when an instance joins", async () => {
		lottor = await TestCoordinator.start({}, scripted("auth").schema);
		const id = await lottor.prepare([{}]);
		await lottor.due(3_900_000);
		expect((await lottor.group(id)).state).toBe("inDoubt");
		user = scripted("user");
		user.check = () => ({ result: "committed" });
		lottor.broker.createService(user.schema);
		await lottor.broker.waitForServices("user");
		await lottor.due(1_000);
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R3 check-back goes only to instances with the group's store", async () => {
		const id = await withAnswer({ result: "committed" }, { storeId: "another" });
		await lottor.due(60_000);
		expect(user.checked).toEqual([]);
		expect((await lottor.group(id)).state).toBe("prepared");
	});

	test("a recorded producer's messages come with the question, for its resolveTransaction", async () => {
		await withAnswer({ result: "unknown" }, { guarantee: "recorded" });
		await lottor.due(10_000);
		expect(user.checked[0]?.messages).toEqual([{ target: "auth", type: "t", content: "{}" }]);
	});
});

describe("reports", () => {
	async function delivered(): Promise<{ id: string; envelope: Envelope; auth: Scripted }> {
		const auth = scripted("auth");
		auth.consume = () => ({ result: "accepted" });
		lottor = await TestCoordinator.start({}, auth.schema);
		const id = await lottor.prepare([{}]);
		await lottor.commit(id);
		return { id, envelope: auth.consumed[0] as Envelope, auth };
	}

	test("R5 LOTTOR_RECEIPT_INVALID: nobody reports for a message that was not sent to them", async () => {
		const { id, envelope } = await delivered();
		const other = await lottor.prepare([{}]);
		for (const receipt of ["", "x", envelope.receipt.slice(1), undefined, 7]) {
			expect(await lottor.report({ ...reportOf(envelope), receipt })).toMatchObject({
				result: "invalid",
				error: { code: "LOTTOR_RECEIPT_INVALID" },
			});
		}
		expect(await lottor.report({ ...reportOf(envelope), id: `${other}.0` })).toMatchObject({
			result: "invalid",
		});
		expect((await lottor.message(id)).state).toBe("delivering");
		const stats = await lottor.call<{ sinceStart: { refusedReports: number } }>("stats");
		expect(stats.sinceStart.refusedReports).toBe(6);
	});

	test("R26 consumed is absorbing: its repeat is already, a failure after it changes nothing", async () => {
		const { id, envelope } = await delivered();
		expect(await lottor.report(reportOf(envelope))).toMatchObject({
			result: "ok",
			state: "consumed",
		});
		expect(await lottor.report(reportOf(envelope))).toMatchObject({ result: "already" });
		expect(await lottor.report(reportOf(envelope, {}))).toMatchObject({
			result: "stale",
			state: "consumed",
		});
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("R26 a late consumed after discard settles the message, flagged", async () => {
		const { id, envelope, auth } = await delivered();
		auth.fence = () => ({ result: "none" });
		await operate("messages.discard", { id: `${id}.0`, why: "no longer wanted" });
		expect(await lottor.message(id)).toMatchObject({
			state: "discarded",
			waiting: "not fenced yet",
		});
		expect(await lottor.report(reportOf(envelope))).toMatchObject({ result: "ok" });
		expect(await lottor.message(id)).toMatchObject({
			state: "consumed",
			consumedAfterDiscard: true,
		});
	});

	test("R22 only a reported failure raises attempts, once a report", async () => {
		const { id, envelope } = await delivered();
		const failed = reportOf(envelope, { delay: 60_000 });
		expect(await lottor.report(failed)).toMatchObject({ result: "ok", state: "pending" });
		expect(await lottor.report(failed)).toMatchObject({ result: "already" });
		expect(await lottor.message(id)).toMatchObject({ attempts: 1, sends: 1 });
	});

	test("R26 every bad report gets a final answer of its own: LOTTOR_MESSAGE_UNKNOWN, invalid, conflict", async () => {
		const { envelope } = await delivered();
		const good = reportOf(envelope);
		const answers = await lottor.call<ItemAnswer[]>("report", {
			items: [
				null,
				{ ...good, id: "nonsense" },
				{ ...good, result: "maybe" },
				{ ...good, attempt: "1" },
				{ ...good, result: "failed", error: null },
				good,
			],
		});
		expect(answers.map((one) => one.result)).toEqual([
			"invalid",
			"invalid",
			"invalid",
			"invalid",
			"invalid",
			"ok",
		]);
		for (const answer of answers.slice(0, 5))
			expect(answer.error?.code).toBe("LOTTOR_INVALID_REQUEST");
		const { makeReceipt } = await import("../../protocol/index.ts");
		expect(makeReceipt(new Uint8Array(32), envelope.id)).not.toBe(envelope.receipt);
	});
});

describe("operators", () => {
	async function deadLetter(
		options = {},
	): Promise<{ id: string; message: string; auth: Scripted }> {
		const auth = scripted("auth");
		auth.consume = (envelope) => ({
			result: "reported",
			report: reportOf(envelope, { retryable: false }),
		});
		lottor = await TestCoordinator.start(options, auth.schema, scripted("user").schema);
		const id = await lottor.prepare([{ content: '{"user":0}' }]);
		await lottor.commit(id);
		expect((await lottor.message(id)).state).toBe("failed");
		return { id, message: `${id}.0`, auth };
	}

	test("defect 2: a dead letter can be retried, and heals when its cause is gone", async () => {
		const { id, message, auth } = await deadLetter();
		auth.consume = (envelope) => ({ result: "reported", report: reportOf(envelope) });
		expect(
			await operate("messages.retry", { id: message, by: "ann", why: "fixed" }),
		).toMatchObject({
			result: "ok",
			state: "pending",
		});
		await lottor.due();
		expect((await lottor.group(id)).state).toBe("completed");
		const { timeline } = await lottor.view(id);
		expect(timeline.find((entry) => entry.event === "retry")).toMatchObject({
			by: "ann",
			why: "fixed",
		});
		expect(auth.consumed.map((one) => one.attempt)).toEqual([1, 2]);
	});

	test("R27 an edited message is sent only once its older copies are fenced; the former payload is kept", async () => {
		const { id, message, auth } = await deadLetter();
		auth.consume = (envelope) => ({ result: "reported", report: reportOf(envelope) });
		expect(await operate("messages.edit", { id: message, payload: { user: 7 } })).toMatchObject(
			{ result: "ok" },
		);
		auth.fence = () => ({ result: "busy" });
		await operate("messages.retry", { id: message });
		await lottor.due();
		expect(auth.consumed).toHaveLength(1);
		auth.fence = () => ({ result: "fenced" });
		await lottor.due(1_000);
		expect(auth.fenced.at(-1)).toMatchObject({ id: message, minRevision: 1 });
		expect(auth.consumed.at(-1)).toMatchObject({ revision: 1, content: '{"user":7}' });
		const { group, payloads } = await lottor.view(id);
		expect(group).toMatchObject({ state: "completed", messages: [{ consumedRevision: 1 }] });
		expect(payloads.map((one) => [one.revision, one.content])).toEqual([
			[0, '{"user":0}'],
			[1, '{"user":7}'],
		]);
	});

	test("R27 when the fence finds that the old copy took effect, the message is consumed with its revision", async () => {
		const { id, message, auth } = await deadLetter();
		await operate("messages.edit", { id: message, payload: { user: 7 } });
		auth.fence = () => ({ result: "consumed", revision: 0 });
		await operate("messages.retry", { id: message });
		await lottor.due();
		expect(await lottor.message(id)).toMatchObject({ state: "consumed", consumedRevision: 0 });
		expect(auth.consumed).toHaveLength(1);
	});

	test("R27 LOTTOR_FENCE_BUSY: a message that runs can't be discarded; LOTTOR_ILLEGAL_TRANSITION once consumed", async () => {
		const { message, auth } = await deadLetter();
		auth.fence = () => ({ result: "busy" });
		expect(await operate("messages.discard", { id: message })).toMatchObject({
			result: "conflict",
			error: { code: "LOTTOR_FENCE_BUSY", retryable: true },
		});
		auth.fence = () => ({ result: "consumed", revision: 0 });
		expect(await operate("messages.discard", { id: message })).toMatchObject({
			result: "conflict",
			state: "consumed",
			error: { code: "LOTTOR_ILLEGAL_TRANSITION" },
		});
	});

	test("R27 a discard that could not be fenced is fenced later, when an instance can", async () => {
		const { id, message, auth } = await deadLetter();
		auth.fence = () => ({ result: "none" });
		await operate("messages.discard", { id: message });
		expect(await lottor.group(id)).toMatchObject({
			state: "completed",
			messages: [{ waiting: "not fenced yet" }],
		});
		auth.fence = () => ({ result: "fenced" });
		await lottor.due(60_000);
		expect(await lottor.message(id)).toMatchObject({
			state: "discarded",
			waiting: null,
			nextAt: null,
		});
	});

	test("R27 LOTTOR_VERSION_CONFLICT: an operator who saw an older version is told", async () => {
		const { id, message } = await deadLetter();
		const { version } = await lottor.message(id);
		expect(await operate("messages.edit", { id: message, payload: {}, version })).toMatchObject(
			{ result: "ok" },
		);
		expect(await operate("messages.retry", { id: message, version })).toMatchObject({
			result: "conflict",
			error: { code: "LOTTOR_VERSION_CONFLICT", data: { version: version + 1 } },
		});
	});

	test("LOTTOR_ILLEGAL_TRANSITION, LOTTOR_MESSAGE_UNKNOWN, LOTTOR_GROUP_UNKNOWN: wrong orders are told apart", async () => {
		const { id, message } = await deadLetter();
		await operate("messages.discard", { id: message });
		expect(await operate("messages.edit", { id: message, payload: {} })).toMatchObject({
			error: { code: "LOTTOR_ILLEGAL_TRANSITION" },
		});
		expect(await operate("messages.discard", { id: message })).toMatchObject({
			result: "already",
		});
		expect(await operate("messages.retry", { id: `${lottor.newId()}.0` })).toMatchObject({
			result: "unknown",
			error: { code: "LOTTOR_MESSAGE_UNKNOWN" },
		});
		expect(await operate("messages.retry", { id: `${id}.9` })).toMatchObject({
			error: { code: "LOTTOR_MESSAGE_UNKNOWN" },
		});
		expect(await operate("messages.retry", { id: "x" })).toMatchObject({ result: "invalid" });
		expect(await operate("groups.commit", { id: lottor.newId() })).toMatchObject({
			result: "unknown",
			error: { code: "LOTTOR_GROUP_UNKNOWN" },
		});
		await expect(lottor.view(lottor.newId())).rejects.toMatchObject({
			type: "LOTTOR_GROUP_UNKNOWN",
			code: 404,
		});
		await expect(lottor.call("groups.list", { states: ["lost"] })).rejects.toMatchObject({
			type: "LOTTOR_INVALID_REQUEST",
			data: { field: "states" },
		});
		await expect(lottor.call("groups.list", { nonsense: 1 })).rejects.toMatchObject({
			data: { field: "nonsense" },
		});
	});

	test("R18 operators decide only groups in doubt", async () => {
		lottor = await TestCoordinator.start({}, scripted("auth").schema);
		const id = await lottor.prepare([{}]);
		expect(await operate("groups.commit", { id })).toMatchObject({
			result: "conflict",
			error: { code: "LOTTOR_ILLEGAL_TRANSITION" },
		});
		await lottor.due(3_900_000);
		expect(
			await operate("groups.commit", { id, by: "ann", why: "seen in the books" }),
		).toMatchObject({ result: "ok" });
		await lottor.due();
		expect((await lottor.group(id)).state).toBe("completed");
		const { timeline } = await lottor.view(id);
		expect(timeline.find((entry) => entry.event === "commit")).toMatchObject({
			by: "ann",
			why: "seen in the books",
		});
	});

	test("R18 before an operator's decision the source is asked once more: a sound answer beats it", async () => {
		const user = scripted("user");
		user.check = () => ({ result: "unknown" });
		lottor = await TestCoordinator.start(
			{ maxChecks: 1 },
			user.schema,
			scripted("auth").schema,
		);
		const id = await lottor.prepare([{}], { guarantee: "recorded" });
		await lottor.due(10_000);
		expect((await lottor.group(id)).state).toBe("inDoubt");
		user.check = () => ({ result: "committed" });
		expect(await operate("groups.rollback", { id })).toMatchObject({
			result: "conflict",
			error: { code: "LOTTOR_DECISION_CONFLICT" },
		});
		await lottor.due();
		expect((await lottor.group(id)).state).toBe("completed");
	});

	test("an operator may have a check-back made now", async () => {
		const user = scripted("user");
		lottor = await TestCoordinator.start({}, user.schema, scripted("auth").schema);
		const id = await lottor.prepare([{}]);
		user.check = () => ({ result: "committed" });
		expect(await operate("groups.recheck", { id })).toMatchObject({ result: "ok" });
		await lottor.due();
		expect((await lottor.group(id)).state).toBe("completed");
		expect(await operate("groups.recheck", { id })).toMatchObject({
			error: { code: "LOTTOR_ILLEGAL_TRANSITION" },
		});
	});

	test("R30 completed groups leave after their time, rolled back ones after theirs, failed and in doubt never", async () => {
		const { id } = await deadLetter({ pollInterval: "1h" });
		const done = await lottor.prepare([{ target: "user" }]);
		await lottor.commit(done);
		const back = await lottor.prepare([{}]);
		await lottor.rollback(back);
		await lottor.due(86_400_000 + 3_600_000);
		const ids = async () =>
			(await lottor.call<{ items: { id: string }[] }>("groups.list")).items.map(
				(one) => one.id,
			);
		expect(await ids()).toEqual(expect.arrayContaining([id, done]));
		expect(await ids()).not.toContain(back);
		await lottor.due(6 * 86_400_000);
		expect(await ids()).toEqual([id]);
	});
});
