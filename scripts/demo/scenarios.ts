import type { OutgoingMessage } from "../../mixins/reliable-message/index.ts";
import type { Guarantee, ItemAnswer } from "../../protocol/index.ts";
import type { GroupView } from "../../services/coordinator/index.ts";
import { until } from "./cluster.ts";
import type { Note, Sends } from "./services.ts";
import type { Stage } from "./stage.ts";
import type { Consumer } from "./words.ts";

/** What a scenario is about, and how to play it. */
export interface Scenario {
	readonly name: string;
	readonly story: string;
	/** The guarantee of the store that it is about, where that is not the one that is played on. */
	readonly guarantee?: Guarantee;
	/** What follows from the guarantee of the stores of producer and consumer. */
	readonly expected: string | Readonly<Record<"transactional" | "recorded", string>>;
	/** @returns the group that it was about */
	play(stage: Stage): Promise<string>;
}

/** @returns what is to come of the scenario under a guarantee */
export function expectedOf({ expected }: Scenario, guarantee: Guarantee): string {
	if (typeof expected === "string") return expected;
	return expected[guarantee === "transactional" ? "transactional" : "recorded"];
}

function note(target: Consumer, payload: Note = {}): OutgoingMessage<Sends> {
	return { target, type: "note", payload };
}

interface Created {
	readonly group: string;
	readonly user: { readonly _id: string };
}

/** All scenarios, in the order in which they are played. */
export const SCENARIOS: readonly Scenario[] = [
	{
		name: "success",
		story: "the sample `user` makes a user, `auth` grants it a role",
		expected: "both rows, each once",
		async play(stage) {
			const { group } = await stage.cluster.call<Created>("user.create", {
				result: "success",
			});
			await stage.ends(group, "completed");
			await stage.rows("user", "users", group, 1);
			await stage.rows("auth", "roles", group, 1);
			return group;
		},
	},
	{
		name: "local-failure",
		story: "the local work throws after its insert",
		expected: "rolled back; no row anywhere, nothing sent",
		async play(stage) {
			const error = await stage.cluster
				.call<Created>("user.create", { result: "fail" })
				.then(() => undefined)
				.catch((reason: { type?: string; data?: { group?: string } }) => reason);
			stage.check("caller's error", "SAMPLE_WORK_FAILED", error?.type);
			const group = error?.data?.group ?? "";
			const stored = await stage.ends(group, "rolledBack");
			stage.check("sends", 0, stored.messages[0]?.sends);
			await stage.rows("user", "users", group, 0);
			await stage.rows("auth", "roles", group, 0);
			return group;
		},
	},
	{
		name: "consume-failure-then-retry",
		story: "`auth` refuses a payload three times; an operator mends it and retries",
		expected: "failed, visibly; after the retry both rows, each once",
		async play(stage) {
			const { group, user } = await stage.cluster.call<Created>("user.create", {
				result: "consumeFail",
			});
			await stage.message(group, "failed");
			const failed = await stage.group(group);
			stage.check("attempts", 3, failed?.messages[0]?.attempts);
			stage.check("error", "SAMPLE_USER_MISSING", failed?.messages[0]?.error?.code);
			await stage.rows("user", "users", group, 1);
			await stage.rows("auth", "roles", group, 0);
			const order = { id: `${group}.0`, by: "demo" };
			const payload = { user: user._id, role: "member" };
			await stage.cluster.call<ItemAnswer[]>("lottor.messages.edit", {
				items: [{ ...order, payload, why: "the user's id was missing" }],
			});
			await stage.cluster.call<ItemAnswer[]>("lottor.messages.retry", { items: [order] });
			await stage.ends(group, "completed");
			await stage.rows("auth", "roles", group, 1);
			return group;
		},
	},
	{
		name: "fan-out",
		story: "three targets; `mail` fails twice and recovers",
		expected: {
			transactional: "one effect at each; the others are not touched by the failures",
			recorded: "at least one effect at each: what a failed run did, stays",
		},
		async play(stage) {
			const group = await order(stage, [
				note("stock"),
				note("mail", { failures: 2 }),
				note("points"),
			]);
			const stored = await stage.ends(group, "completed");
			stage.check(
				"attempts failed",
				[0, 2, 0],
				stored.messages.map((m) => m.attempts),
			);
			await stage.effects("stock", group, { rows: 1, runs: 1 });
			await stage.effects("mail", group, { rows: stage.recorded ? 3 : 1, runs: 3 });
			await stage.effects("points", group, { rows: 1, runs: 1 });
			return group;
		},
	},
	{
		name: "delayed",
		story: "a message is to be delivered one second after the commit",
		expected: "not earlier, and once",
		async play(stage) {
			const group = await order(stage, [{ ...note("stock"), delay: "1s" }]);
			await stage.ends(group, "completed");
			const { timeline } = await stage.cluster.call<GroupView>("lottor.groups.get", {
				id: group,
			});
			const committed = timeline.find((entry) => entry.to === "committed")?.at ?? 0;
			const consumed = timeline.find((entry) => entry.to === "consumed")?.at ?? 0;
			stage.check("a second between commit and effect", true, consumed - committed >= 1_000);
			await stage.effects("stock", group, { rows: 1, runs: 1 });
			return group;
		},
	},
	{
		name: "duplicate-delivery",
		story: "the way to the consumer carries every message twice",
		expected: "two copies arrive, the handler runs once",
		async play(stage) {
			await stage.cluster.arm("coordinator", "send-twice");
			const group = await order(stage, [note("stock")]);
			await stage.ends(group, "completed");
			let copies = 0;
			await until("the second copy", 60_000, async () => {
				copies = await stage.cluster.call<number>("consumer-faults.copies", {
					message: `${group}.0`,
				});
				return copies >= 2;
			});
			stage.check("copies that arrived", 2, copies);
			await stage.effects("stock", group, { rows: 1, runs: 1 });
			return group;
		},
	},
	{
		name: "producer-killed-after-commit",
		story: "SIGKILL of the producer between its COMMIT and its confirm",
		expected: "its row stands, so check-back commits: delivered once",
		async play(stage) {
			const { cluster } = stage;
			const { reached } = await cluster.arm("producer", "after-commit");
			void order(stage, [note("stock")]).catch(() => undefined);
			const group = await reached;
			stage.check("before the kill", "prepared", (await stage.group(group))?.state);
			await cluster.kill("producer");
			await cluster.spawn("producer");
			await stage.ends(group, "completed");
			await stage.rows("shop", "orders", group, 1);
			await stage.effects("stock", group, { rows: 1, runs: 1 });
			return group;
		},
	},
	{
		name: "producer-killed-before-commit",
		story: "SIGKILL of the producer inside its local transaction",
		expected: {
			transactional: "its row is gone, so check-back rolls back: nothing delivered",
			recorded: "its row may stand: in doubt until a person decides, then delivered once",
		},
		async play(stage) {
			const { cluster } = stage;
			const { reached } = await cluster.arm("producer", "in-work");
			void order(stage, [note("stock")]).catch(() => undefined);
			const group = await reached;
			await cluster.kill("producer");
			await cluster.spawn("producer");
			if (stage.recorded) return decided(stage, group, "shop");
			const stored = await stage.ends(group, "rolledBack");
			stage.check("sends", 0, stored.messages[0]?.sends);
			await stage.rows("shop", "orders", group, 0);
			await stage.effects("stock", group, { rows: 0, runs: 0 });
			return group;
		},
	},
	{
		name: "coordinator-killed",
		story: "SIGKILL of the coordinator after the commit, before the send",
		expected: "started again it asks, learns that nothing arrived, and sends: once",
		async play(stage) {
			const { cluster } = stage;
			const { reached } = await cluster.arm("coordinator", "before-send");
			const group = await order(stage, [note("stock")]);
			stage.check("group that was not sent", group, await reached);
			await cluster.kill("coordinator");
			await stage.effects("stock", group, { rows: 0, runs: 0 });
			await cluster.spawn("coordinator");
			await stage.ends(group, "completed");
			await stage.rows("shop", "orders", group, 1);
			await stage.effects("stock", group, { rows: 1, runs: 1 });
			return group;
		},
	},
	{
		name: "consumer-killed",
		story: "SIGKILL of the consumer inside its handler, after its insert",
		expected: {
			transactional: "the handler runs again, the effect is there once",
			recorded: "once its claim is 30 s old the handler runs again: two effects",
		},
		async play(stage) {
			const { cluster } = stage;
			const { reached } = await cluster.arm("consumer", "in-handler");
			const group = await order(stage, [note("stock")]);
			await reached;
			await cluster.kill("consumer");
			await stage.effects("stock", group, { rows: stage.recorded ? 1 : 0, runs: 1 });
			await cluster.spawn("consumer");
			await stage.ends(group, "completed");
			await stage.effects("stock", group, { rows: stage.recorded ? 2 : 1, runs: 2 });
			return group;
		},
	},
	{
		name: "in-doubt",
		story: "a producer dies in its work, its store keeps only a record; an operator commits",
		guarantee: "recorded",
		expected: "nobody guesses: in doubt until a person decides, then delivered once",
		async play(stage) {
			const { cluster } = stage;
			const { reached } = await cluster.arm("bank", "in-work");
			void order(stage, [note("stock")], "bank").catch(() => undefined);
			const group = await reached;
			await cluster.kill("bank");
			await cluster.spawn("bank");
			return decided(stage, group, "bank");
		},
	},
];

/** Nobody can tell how the work of a producer that died ended: an operator looks, and commits. */
async function decided(stage: Stage, group: string, producer: "shop" | "bank"): Promise<string> {
	await stage.ends(group, "inDoubt");
	await stage.rows(producer, "orders", group, 1);
	await stage.effects("stock", group, { rows: 0, runs: 0 });
	const [answer] = await stage.cluster.call<ItemAnswer[]>("lottor.groups.commit", {
		items: [{ id: group, by: "demo", why: "the order's row is there" }],
	});
	stage.check("operator's commit", "ok", answer?.result);
	await stage.ends(group, "completed");
	await stage.effects("stock", group, { rows: 1, runs: 1 });
	return group;
}

function order(
	stage: Stage,
	messages: readonly OutgoingMessage<Sends>[],
	by = "shop",
): Promise<string> {
	return stage.cluster.call<string>(`${by}.order`, { messages });
}
