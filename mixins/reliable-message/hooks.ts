import type { Context, Service, ServiceSchema } from "moleculer";
import { isRecord, PARTICIPANT_ACTIONS } from "../../protocol/index.ts";

const OWN: ReadonlySet<unknown> = new Set(Object.values(PARTICIPANT_ACTIONS));
const KINDS = ["before", "after", "error"] as const;

/**
 * Keeps the service's action hooks away from the mixin's own actions. A `before: { "*": … }` that
 * asks who the caller is would else refuse every call of a coordinator, and nothing be delivered.
 */
export function exemptFromHooks(schema: ServiceSchema): void {
	for (const kind of KINDS) {
		const hooks: unknown = schema.hooks?.[kind];
		if (!isRecord(hooks)) continue;
		for (const [pattern, given] of Object.entries(hooks)) {
			const all: unknown[] = Array.isArray(given) ? given : [given];
			hooks[pattern] = all.map((hook) => exempt(hook, kind));
		}
	}
}

function exempt(hook: unknown, kind: (typeof KINDS)[number]) {
	return function (this: Service, ctx: Context, value: unknown): unknown {
		const own = ctx.action !== null && OWN.has(Reflect.get(ctx.action, "rawName"));
		// As in Moleculer, a text names a method, and one that does not exist is passed over.
		const run: unknown = typeof hook === "string" ? Reflect.get(this, hook) : hook;
		if (!own && typeof run === "function") return Reflect.apply(run, this, [ctx, value]);
		if (kind === "error") throw value;
		return value;
	};
}
