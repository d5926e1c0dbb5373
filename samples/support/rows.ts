import type { Context } from "moleculer";
import type { SampleService } from "./stores.ts";

interface RowsParams {
	group?: string;
	limit: number;
	offset: number;
}

/** The action `rows` of both samples: what the service's table holds, all of it or one group's. */
export const rowsAction = {
	params: {
		group: { type: "string", optional: true },
		limit: { type: "number", integer: true, min: 1, convert: true, default: 1_000 },
		offset: { type: "number", integer: true, min: 0, convert: true, default: 0 },
	},
	handler(this: SampleService<object>, ctx: Context<RowsParams>) {
		const { group, limit, offset } = ctx.params;
		return this.adapter.find({ limit, offset, query: group ? { group } : {} });
	},
};
