import type { GroupRecord, ItemAnswer } from "../../../protocol/index.ts";
import type { Told } from "./ledger.ts";
import type { Point } from "./points.ts";
import type { Cast, World } from "./world.ts";

/** What happens while crashes are injected. */
export interface Scenario extends Cast {
	readonly name: string;
	/** The local work throws. */
	readonly fails?: boolean;
	/** The scenario begins with what a crash here has left. */
	readonly after?: Point;
	/** What a person does to a message that failed. */
	readonly person?: "edit" | "discard";
	/** The person does not wait: acts while the message waits for its retry. */
	readonly early?: boolean;
	/** The person has a group in doubt asked about again before deciding. */
	readonly rechecks?: boolean;
	/** The person leaves a note in the audit log. */
	readonly notes?: boolean;
	/** The coordinator is stopped in an orderly way, and another started, while it claims work. */
	readonly stops?: boolean;
	/** Where the broker dies, once in each life of the process, and comes back. */
	readonly brokerDies?: Point;
}

const BASE: readonly Scenario[] = [
	{ name: "success", by: "shop", orders: { stock: {} } },
	{ name: "work throws", by: "shop", orders: { stock: {} }, fails: true },
	{ name: "handler fails, then succeeds", by: "shop", orders: { stock: { failures: 1 } } },
	{ name: "fan-out of two", by: "shop", orders: { stock: {}, mail: { failures: 1 } } },
	{
		name: "edit and retry",
		by: "shop",
		orders: { stock: { broken: true } },
		person: "edit",
		notes: true,
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
	{
		name: "graceful stop",
		by: "shop",
		orders: { stock: { failures: 1 }, mail: {} },
		stops: true,
	},
	{ name: "nested", by: "shop", orders: { stock: { forwards: true } } },
	{
		name: "nested in a handler that fails",
		by: "shop",
		orders: { stock: { forwards: true, failures: 1 } },
	},
	{ name: "recorded consumer", by: "shop", orders: { box: { failures: 1 } } },
	{ name: "nested on a recorded store", by: "shop", orders: { box: { forwards: true } } },
	{ name: "plain target", by: "shop", orders: { stock: {}, till: { failures: 1 } } },
];

/** What is played with direct delivery and over a broker. */
const BOTH = [
	"success",
	"work throws",
	"handler fails, then succeeds",
	"fan-out of two",
	"edit and retry",
	"discard",
	"discard before the retry",
	"asked about, never sent",
	"graceful stop",
	"recorded consumer",
];

const FAN_OUT = { by: "shop", orders: { stock: { failures: 1 }, mail: {} }, broker: true } as const;

export const SCENARIOS: readonly Scenario[] = [
	...BASE,
	...BASE.filter(({ name }) => BOTH.includes(name)).map((scenario) => ({
		...scenario,
		name: `${scenario.name}, over a broker`,
		broker: true,
	})),
	...(
		[
			"channel.publish:before",
			"channel.publish:after",
			"channel.ack:before",
			"channel.ack:after",
		] as const
	).map((brokerDies) => ({ ...FAN_OUT, name: `broker dies at ${brokerDies}`, brokerDies })),
	{
		name: "broker dies while a handler runs",
		by: "shop",
		orders: { stock: {} },
		broker: true,
		brokerDies: "participant.consume:done",
	},
];

/** Starts the transaction, noting what its caller is told. */
export async function begin(scenario: Scenario, world: World, told: Told): Promise<void> {
	const ended = world.transaction(scenario.fails === true).then(
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
 * @param told counts what was answered
 * @param hasRow whether the group's business row is there
 */
export async function lookAfter(
	scenario: Scenario,
	world: World,
	told: Told,
	hasRow: (group: string) => boolean,
): Promise<void> {
	const act = async (action: string, item: object) => {
		const items = [{ ...item, by: "ann" }];
		await world.during(world.call<ItemAnswer[]>(`lottor.${action}`, { items }));
		told.acts++;
	};
	for (const group of await world.groups()) {
		const { id } = group;
		if (group.state === "inDoubt") {
			if (scenario.rechecks) await act("groups.recheck", { id });
			await act(hasRow(id) ? "groups.commit" : "groups.rollback", { id });
		} else {
			for (const message of toLookAfter(scenario, group)) {
				if (scenario.person === "discard") await act("messages.discard", message);
				if (scenario.person !== "edit") continue;
				await act("messages.edit", { ...message, payload: {} });
				if (scenario.notes) await act("audit.add", NOTE);
				await act("messages.retry", message);
			}
		}
	}
}

const NOTE = { who: "ann", action: "note", result: "ok" };

function toLookAfter({ early }: Scenario, { messages }: GroupRecord): { id: string }[] {
	return messages
		.filter(
			({ state, attempts }) =>
				state === "failed" || (early && state === "pending" && attempts > 0),
		)
		.map(({ id }) => ({ id }));
}
