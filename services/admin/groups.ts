import type { GroupRecord, ItemAnswer } from "../../protocol/index.ts";
import type { Listed } from "../coordinator/index.ts";
import type { Done, Group } from "./api/index.ts";
import { groupView, type StoredGroup } from "./group-view.ts";
import type { HandlerContext, Handlers } from "./handlers.ts";
import { listParams, rowsOf } from "./lists.ts";
import { doneOf } from "./problem.ts";

export const groupHandlers = {
	async groups(context, { query }) {
		const { items, next, total } = await context.call<Listed<GroupRecord>>(
			"groups.list",
			listParams(query),
		);
		return {
			items: rowsOf(context, items),
			next: next ?? null,
			total: total ?? null,
		};
	},

	async group(context, { id }) {
		return detailOf(context, await context.call<StoredGroup>("groups.get", { id }));
	},

	commitGroup: (context, { id, body }) => order(context, "groups.commit", id, body.why),
	rollbackGroup: (context, { id, body }) => order(context, "groups.rollback", id, body.why),
	recheckGroup: (context, { id, body }) => order(context, "groups.recheck", id, body.why),
} satisfies Partial<Handlers>;

function detailOf({ identity, settings }: HandlerContext, stored: StoredGroup): Group {
	const mask = settings.mask[identity?.role ?? "viewer"];
	return groupView(stored, mask, settings.traceUrl);
}

async function order(
	{ call, identity }: HandlerContext,
	action: string,
	id: string,
	why: string | undefined,
): Promise<Done> {
	const item = { id, by: identity?.name, ...(why !== undefined && { why }) };
	return doneOf(await call<ItemAnswer[]>(action, { items: [item] }), "group", id);
}
