import { describe, it } from "@jest/globals";
import { type Browser, chromium } from "playwright-core";

import { findBrowser } from "../../scripts/servers/chromium.ts";

/** Starts the Chromium that is installed. @param executablePath its path */
export function launch(executablePath: string): Promise<Browser> {
	return chromium.launch({
		executablePath,
		args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
	});
}

/**
 * Declares tests that need a browser. Without one they are left out, and say how to have it; with
 * LOTTOR_REQUIRE_SERVERS=1 they fail.
 */
export function withBrowser(title: string, declare: (path: string) => void): void {
	const path = findBrowser();
	if (path !== undefined) {
		describe(title, () => declare(path));
		return;
	}
	const missing = `${title}: needs Chromium, which \`npm run browser\` installs`;
	if (process.env["LOTTOR_REQUIRE_SERVERS"] === "1") {
		it(title, () => {
			throw new Error(missing);
		});
		return;
	}
	process.stdout.write(`skipped: ${missing}\n`);
	describe.skip(missing, () => {
		it("needs its browser", () => undefined);
	});
}
