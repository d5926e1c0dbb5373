import { describe, it } from "@jest/globals";

import type { ServerKind } from "../../scripts/servers/kind.ts";
import { Running } from "../../scripts/servers/running.ts";
import { cacheFolder } from "../../scripts/servers/tools.ts";

/** @returns the address of a server: of the environment, or one that `npm run servers` has up */
export function serverUrl(kind: ServerKind): string | undefined {
	return process.env[kind.variable] || new Running(cacheFolder()).url(kind);
}

/**
 * Declares tests that need a server. Without it they are left out, and say how to have them; with
 * LOTTOR_REQUIRE_SERVERS=1 they fail.
 */
export function withServer(kind: ServerKind, title: string, declare: (url: string) => void): void {
	const url = serverUrl(kind);
	if (url) return declare(url);
	const missing = `${title}: needs ${kind.name}, which \`npm run servers -- up ${kind.name}\` brings up`;
	if (process.env["LOTTOR_REQUIRE_SERVERS"] === "1") {
		it(title, () => {
			throw new Error(missing);
		});
		return;
	}
	// Jest itself does not tell the names of what it leaves out.
	process.stdout.write(`skipped: ${missing}\n`);
	describe.skip(missing, () => {
		it("needs its server", () => undefined);
	});
}
