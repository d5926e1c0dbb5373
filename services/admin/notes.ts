import type { CallCoordinator } from "./coordinator-calls.ts";
import type { Identity } from "./identity.ts";

/** Writes a login to the audit log; a coordinator that is away keeps nobody out. */
export async function noteLogin(
	call: CallCoordinator,
	{ name, role }: Identity,
	by: "token" | "link",
): Promise<void> {
	await note(call, { who: name, action: "login", result: "ok", data: { role, by } });
}

/** Writes to the audit log that somebody was refused. */
export async function noteRefusal(
	call: CallCoordinator,
	{ name, role }: Identity,
	route: string,
	subject: string | undefined,
): Promise<void> {
	const data = { role, ...(subject !== undefined && { id: subject }) };
	await note(call, { who: name, action: route, result: "refused", data });
}

async function note(call: CallCoordinator, entry: object): Promise<void> {
	await call("audit.add", { items: [entry] }).catch(() => undefined);
}
