import { afterEach, describe, expect, test } from "@jest/globals";
import type { Context } from "moleculer";
import { ReliableMessage } from "../../mixins/reliable-message/index.ts";
import type { ConsumeAnswer, ParticipantMetadata, PrepareItem } from "../../protocol/index.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { makeBroker, stopNodes } from "../support/mixin-node.ts";
import { envelopeOf, scriptedCoordinator, until } from "../support/scripted-coordinator.ts";
import type { Reliable } from "../../mixins/reliable-message/index.ts";

afterEach(stopNodes);

describe("two nodes over a transporter", () => {
	test("a transaction is prepared, run, committed; its message is handled and reported; R28 metadata and nodeID reach the other node", async () => {
		const coordinator = scriptedCoordinator();
		const handled: unknown[] = [];
		const one = makeBroker({ nodeID: "one", transporter: "Fake" });
		const two = makeBroker({ nodeID: "two", transporter: "Fake" });
		one.createService(coordinator.schema);
		const user = two.createService({
			name: "user",
			mixins: [ReliableMessage({ store: "memory:" })],
		});
		two.createService({
			name: "auth",
			mixins: [ReliableMessage({ store: "memory:", clock: new ManualClock(Date.now()) })],
			messages: {
				"grant-role": (ctx: Context<unknown>, tx) => {
					handled.push([ctx.params, ctx.meta, ctx.locals["message"], tx.group]);
				},
			},
		});
		await Promise.all([one.start(), two.start()]);
		await one.waitForServices(["user", "auth"], 5_000, 10);
		await two.waitForServices(["lottor"], 5_000, 10);

		const { reliable } = user as unknown as { reliable: Reliable };
		const order: string[] = [];
		const value = await reliable.transaction(
			null,
			[{ target: "auth", type: "grant-role", payload: { user: "ada" } }],
			async (tx) => {
				order.push("work", tx.group);
				return "done";
			},
		);
		expect(value).toBe("done");
		const group = coordinator.prepared[0] as PrepareItem;
		expect(order).toEqual(["work", group.id]);
		await reliable.flushed();
		expect(coordinator.committed.map(({ id }) => id)).toEqual([group.id]);

		const service = one.registry.services.get("auth", "two");
		const said = service.metadata["lottor"] as ParticipantMetadata;
		expect(said.roles).toEqual(["producer", "consumer"]);
		expect(said.types).toEqual(["grant-role"]);
		const answers = await one.call<ConsumeAnswer[], object>(
			"auth.reliable.consume",
			{ items: [envelopeOf(group, said.storeId)] },
			{ nodeID: "two" },
		);
		expect(answers).toMatchObject([{ result: "reported", report: { result: "consumed" } }]);
		await until(() => handled.length > 0);
		expect(handled).toMatchObject([
			[{ user: "ada" }, {}, { id: `${group.id}.0`, attempt: 1, source: "user" }, group.id],
		]);
	});
});
