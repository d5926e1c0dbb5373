import type { FailureKind, MessageRow } from "../../adapters/coordinator-store/contract.ts";
import { type ItemAnswer, parseMessageId } from "../../protocol/index.ts";
import type { Listed } from "../coordinator/index.ts";
import type { BodyOf, Done, Job } from "./api/index.ts";
import { groupView, type StoredGroup } from "./group-view.ts";
import type { HandlerContext, Handlers } from "./handlers.ts";
import { ANYBODY, demand } from "./identity.ts";
import { listParams, rowsOf } from "./lists.ts";
import { unmasked } from "./mask.ts";
import { doneOf, invalidField } from "./problem.ts";

/** States in which a message can be retried or discarded. */
const RETRIED = ["failed"];
const DISCARDED = ["failed", "pending", "delivering"];

export const messageHandlers = {
	async messages(context, { query }) {
		const { items, next, total } = await context.call<Listed<MessageRow>>(
			"messages.list",
			listParams(byGroup(query)),
		);
		return {
			items: rowsOf(context, items),
			next: next ?? null,
			total: total ?? null,
		};
	},

	async failures({ call }) {
		const kinds = await call<FailureKind[]>("failures", {});
		return {
			items: kinds.map(({ newest, ...kind }) => ({
				...kind,
				newest: {
					id: newest.id,
					message: newest.error?.message ?? "",
					stateAt: newest.stateAt,
				},
			})),
		};
	},

	retryMessage: (context, { id, body }) => order(context, "messages.retry", { id, ...body }),
	discardMessage: (context, { id, body }) => order(context, "messages.discard", { id, ...body }),

	async editPayload(context, { id, body }) {
		const payload = await meantPayload(context, id, body.payload);
		return order(context, "messages.edit", { id, ...body, payload });
	},

	retryMany: (context, { body }) => begin(context, "retry", body, RETRIED),
	discardMany: (context, { body }) => begin(context, "discard", body, DISCARDED),

	jobs: async ({ jobs }) => ({ items: jobs.list() }),
	job: async ({ jobs }, { id }) => jobs.get(id),
	async cancelJob({ jobs, settings, identity = ANYBODY }, { id }) {
		demand(identity, jobs.get(id).action, settings);
		return jobs.cancel(id, identity.name);
	},
} satisfies Partial<Handlers>;

async function order(
	{ call, identity }: HandlerContext,
	action: string,
	item: Readonly<Record<string, unknown>> & { readonly id: string },
): Promise<Done> {
	const items = [{ ...item, by: identity?.name }];
	return doneOf(await call<ItemAnswer[]>(action, { items }), "message", item.id);
}

/** The edited payload, with what the caller may not see as it was. */
async function meantPayload(
	{ call, settings, identity }: HandlerContext,
	id: string,
	edited: unknown,
): Promise<unknown> {
	const mask = settings.mask[identity?.role ?? "viewer"];
	if (mask.length === 0) return edited;
	const group = parseMessageId(id)?.group;
	const view = groupView(await call<StoredGroup>("groups.get", { id: group }));
	const stored = view.messages.find((message) => message.id === id)?.payload;
	const meant = unmasked(edited, stored, mask);
	if (!meant) {
		throw invalidField("payload", "has a hidden value where none is stored: leave it out");
	}
	return meant.payload;
}

async function begin(
	{ jobs, identity }: HandlerContext,
	action: "retry" | "discard",
	{ ids, filter, why }: BodyOf<"retryMany">,
	states: readonly string[],
): Promise<Job> {
	if ((ids === undefined) === (filter === undefined)) {
		throw invalidField("ids", "or filter must be given, one of the two");
	}
	const wrong = filter?.states?.find((state) => !states.includes(state));
	if (wrong !== undefined) {
		throw invalidField("filter.states", `can only have ${states.join(", ")}, not ${wrong}`);
	}
	return jobs.start({
		action,
		by: identity?.name ?? "operator",
		why: why ?? null,
		...(ids && { ids: [...new Set(ids)] }),
		...(filter && { filter: { states: ["failed"], ...byGroup(filter) } }),
	});
}

/** The coordinator calls a message by its group and its place there. */
function byGroup(query: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
	const { idPrefix, ...rest } = query;
	if (typeof idPrefix !== "string") return rest;
	const [groupPrefix, place] = idPrefix.split(".");
	return { ...rest, groupPrefix, ...(place && { index: Number(place) }) };
}
