import { LOTTOR_VERSION } from "../../protocol/index.ts";
import type { AdminSettings } from "./options.ts";

/** The effective settings as an administrator may see them: no hash of a token, no object. */
export function settingsView(settings: AdminSettings): Readonly<Record<string, unknown>> {
	const { tokens, oidc, traceUrl } = settings;
	const plain = Object.entries(settings).filter(
		([name]) => name !== "clock" && name !== "random",
	);
	return {
		version: LOTTOR_VERSION,
		...Object.fromEntries(plain),
		tokens: tokens.map(({ name, role }) => ({ name, role, hash: "•••" })),
		oidc: oidc ?? null,
		traceUrl: traceUrl ?? null,
	};
}
