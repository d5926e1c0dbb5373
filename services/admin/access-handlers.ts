import type { AuditEntry } from "../../adapters/coordinator-store/contract.ts";
import type { Me } from "./api/index.ts";
import type { HandlerContext, Handlers } from "./handlers.ts";
import { ANYBODY, type Identity, permissionsOf } from "./identity.ts";
import { noteLogin } from "./notes.ts";
import { settingsView } from "./settings-view.ts";

export const accessHandlers = {
	me: async ({ identity, settings }) => meOf(identity ?? ANYBODY, settings),

	async login(context, { body }) {
		const { access, req, res, settings } = context;
		const { identity, cookie } = await access.login(req, body.token);
		res.setHeader("Set-Cookie", cookie);
		await noteLogin(context.call, identity, "token");
		return meOf(identity, settings);
	},

	async logout({ access, req, res }) {
		res.setHeader("Set-Cookie", access.logout(req));
		return { status: "logged out" };
	},

	async audit({ call }, { query }) {
		const page = await call<{ items: readonly AuditEntry[]; next?: string }>(
			"audit.list",
			query,
		);
		return { items: page.items, next: page.next ?? null };
	},

	async settings({ call, settings }) {
		const coordinator = await call<Record<string, unknown>>("settings", {});
		return { coordinator, admin: settingsView(settings) };
	},
} satisfies Partial<Handlers>;

function meOf(identity: Identity, settings: HandlerContext["settings"]): Me {
	const { name, role, via, csrf, expiresAt } = identity;
	const permissions = permissionsOf(identity, settings);
	return { name, role, permissions, via, readOnly: settings.readOnly, csrf, expiresAt };
}
