import type { GroupRecord, ItemAnswer } from "../../../protocol/index.ts";
import type { Told } from "./ledger.ts";
import type { Point } from "./points.ts";
import type { Order, ProducerName, Sends, World } from "./world.ts";

/** What happens while crashes are injected. */
export interface Scenario {
	readonly name: string;
	readonly by: ProducerName;
	readonly orders: Partial<Record<keyof Sends, Order>>;
	/** The local work throws. */
	readonly fails?: boolean;
	/** The scenario begins with what a crash here has left. */
	readonly after?: Point;
	/** The recorded producer has `resolveTransaction`. */
	readonly resolves?: boolean;
	/** What a person does to a message that failed. */
	readonly person?: "edit" | "discard";
	/** The person does not wait: acts while the message waits for its retry. */
	readonly early?: boolean;
	/** The person has a group in doubt asked about again before deciding. */
	readonly rechecks?: boolean;
}

export const SCENARIOS: readonly Scenario[] = [
	{ name: "success", by: "shop", orders: { stock: {} } },
	{ name: "work throws", by: "shop", orders: { stock: {} }, fails: true },
	{ name: "handler fails, then succeeds", by: "shop", orders: { stock: { failures: 1 } } },
	{ name: "fan-out of two", by: "shop", orders: { stock: {}, mail: { failures: 1 } } },
	{
		name: "edit and retry",
		by: "shop",
		orders: { stock: { broken: true } },
		person: "edit",
	},
	{
		name: "attempts used up",
		by: "shop",
		orders: { stock: { failures: 2 } },
		person: "edit",
	},
	{ name: "discard", by: "shop", orders: { stock: { broken: true } }, person: "discard" },
	{
		name: "discard before the retry",
		by: "shop",
		orders: { stock: { failures: 1 }, mail: {} },
		person: "discard",
		early: true,
	},
	{ name: "recorded", by: "bank", orders: { stock: {} } },
	{ name: "recorded work throws", by: "bank", orders: { stock: {} }, fails: true },
	{
		name: "check-back, committed",
		by: "shop",
		orders: { stock: {}, mail: {} },
		after: "participant.run:after",
	},
	{
		name: "check-back, never begun",
		by: "shop",
		orders: { stock: {} },
		after: "participant.run:before",
	},
	{
		name: "asked about",
		by: "shop",
		orders: { stock: {}, mail: {} },
		after: "participant.consume:after",
	},
	{
		name: "asked about, never sent",
		by: "shop",
		orders: { stock: {}, mail: {} },
		after: "delivery.send:before",
	},
	{
		name: "in doubt, decided",
		by: "bank",
		orders: { stock: {} },
		after: "participant.run:done",
	},
	{
		name: "in doubt, rechecked",
		by: "bank",
		orders: { stock: {} },
		after: "participant.run:begun",
		rechecks: true,
	},
	{
		name: "resolved by the service",
		by: "bank",
		orders: { stock: {} },
		after: "participant.run:done",
		resolves: true,
	},
	{
		name: "resolved as rolled back",
		by: "bank",
		orders: { stock: {} },
		after: "participant.run:begun",
		resolves: true,
	},
];

/** Starts the transaction, noting what its caller is told. */
export async function begin(scenario: Scenario, world: World, told: Told): Promise<void> {
	told.by = scenario.by;
	const transaction = world.transaction(scenario.by, scenario.orders, scenario.fails === true);
	const ended = transaction.then(
		(group) => {
			told.committed = group;
		},
		(error: unknown) => {
			told.rolledBack = error instanceof Error && error.message === "the work fails";
		},
	);
	await world.during(ended);
}

/**
 * Does what a person would who looks at the groups as they are: decides by the business rows,
 * edits, retries, discards. May be done again at any time.
 *
 * @param hasRow whether the group's business row is there
 */
export async function lookAfter(
	scenario: Scenario,
	world: World,
	hasRow: (group: string) => boolean,
): Promise<void> {
	for (const group of await world.groups()) {
		if (group.state === "inDoubt") {
			if (scenario.rechecks) await act(world, "groups.recheck", group.id, {});
			await act(world, hasRow(group.id) ? "groups.commit" : "groups.rollback", group.id, {});
		} else {
			await lookAfterMessages(scenario, world, group);
		}
	}
}

async function lookAfterMessages(
	scenario: Scenario,
	world: World,
	group: GroupRecord,
): Promise<void> {
	for (const message of group.messages) {
		const waits = scenario.early && message.state === "pending" && message.attempts > 0;
		if (message.state !== "failed" && !waits) continue;
		if (scenario.person === "discard") await act(world, "messages.discard", message.id, {});
		if (scenario.person !== "edit") continue;
		await act(world, "messages.edit", message.id, { payload: {} });
		await act(world, "messages.retry", message.id, {});
	}
}

async function act(world: World, action: string, id: string, fields: object): Promise<void> {
	const items = [{ id, by: "ann", ...fields }];
	await world.during(world.call<ItemAnswer[]>(`lottor.${action}`, { items }));
}
