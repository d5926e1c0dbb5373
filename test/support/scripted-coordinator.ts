import type { Context, ServiceSchema } from "moleculer";
import {
	COORDINATOR_SERVICE,
	type CoordinatorMetadata,
	type DecideItem,
	type Envelope,
	type ItemAnswer,
	messageId,
	type PrepareAnswer,
	type PrepareItem,
	type Report,
	WIRE_VERSION,
} from "../../protocol/index.ts";

/** A coordinator that keeps what it is told and answers as its script says. */
export interface ScriptedCoordinator {
	readonly schema: ServiceSchema;
	readonly storeId: string;
	readonly prepared: PrepareItem[];
	readonly committed: DecideItem[];
	readonly rolledBack: DecideItem[];
	readonly reported: Report[];
	/** Calls, each with the number of its items. */
	readonly calls: { readonly action: string; readonly items: number }[];
	prepare: (item: PrepareItem) => PrepareAnswer | Promise<PrepareAnswer>;
	commit: (item: DecideItem) => ItemAnswer | Promise<ItemAnswer>;
	rollback: (item: DecideItem) => ItemAnswer | Promise<ItemAnswer>;
	report: (item: Report) => ItemAnswer | Promise<ItemAnswer>;
}

/** @param storeId the coordinator store's id that it claims to have */
export function scriptedCoordinator(storeId = "coordinator-1"): ScriptedCoordinator {
	const script: ScriptedCoordinator = {
		storeId,
		prepared: [],
		committed: [],
		rolledBack: [],
		reported: [],
		calls: [],
		prepare: ({ id }) => ({ result: "prepared", id, state: "prepared", coordinator: storeId }),
		commit: () => ({ result: "ok" }),
		rollback: () => ({ result: "ok" }),
		report: () => ({ result: "ok" }),
		schema: {
			name: COORDINATOR_SERVICE,
			actions: {
				prepare: (ctx: Context<{ items: PrepareItem[] }>) =>
					answer("prepare", ctx, script.prepared, script.prepare),
				commit: (ctx: Context<{ items: DecideItem[] }>) =>
					answer("commit", ctx, script.committed, script.commit),
				rollback: (ctx: Context<{ items: DecideItem[] }>) =>
					answer("rollback", ctx, script.rolledBack, script.rollback),
				report: (ctx: Context<{ items: Report[] }>) =>
					answer("report", ctx, script.reported, script.report),
			},
			started() {
				const said: CoordinatorMetadata = {
					wire: WIRE_VERSION,
					roles: ["coordinator"],
					storeId,
					instanceID: this.broker.instanceID,
					ready: true,
				};
				this.metadata["lottor"] = said;
			},
		},
	};
	function answer<Item, Answer>(
		action: string,
		ctx: Context<{ items: Item[] }>,
		kept: Item[],
		each: (item: Item) => Answer | Promise<Answer>,
	): Promise<Answer[]> {
		const { items } = ctx.params;
		script.calls.push({ action, items: items.length });
		kept.push(...items);
		return Promise.all(items.map(async (item) => each(item)));
	}
	return script;
}

/** The envelope of a group's message, as the coordinator sends it. */
export function envelopeOf(
	group: PrepareItem,
	storeId: string,
	changes: Partial<Envelope> = {},
	index = 0,
): Envelope {
	const message = group.messages[index];
	if (!message) throw new Error("no such message");
	return {
		v: WIRE_VERSION,
		id: messageId(group.id, index),
		group: group.id,
		source: group.source,
		target: message.target,
		type: message.type,
		attempt: 1,
		revision: 1,
		receipt: "receipt",
		coordinator: "coordinator-1",
		storeId,
		createdAt: Date.now(),
		sentAt: Date.now(),
		orderingKey: message.orderingKey ?? null,
		context: group.context ?? "{}",
		content: message.content,
		...changes,
	};
}

/** Resolves once `test` is true; looks at it whenever the event loop turns. */
export async function until(test: () => boolean): Promise<void> {
	while (!test()) await new Promise((resolve) => setImmediate(resolve));
}
