import { aptInstall, findProgram } from "./tools.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
/** The browser, and a font for pages in Chinese. */
const PACKAGES = ["chromium", "fonts-noto-cjk"];

/** The environment variable that has the browser's path. */
export const BROWSER_VARIABLE = "LOTTOR_BROWSER";

/** @returns the path of a Chromium that is installed here */
export function findBrowser(): string | undefined {
	const given = process.env[BROWSER_VARIABLE];
	if (given) return given;
	return NAMES.map(findProgram).find((path) => path !== undefined);
}

/** Installs a Chromium unless there is one. @returns its path */
export async function installBrowser(): Promise<string> {
	const found = findBrowser();
	if (found !== undefined) return found;
	await aptInstall(PACKAGES);
	const installed = findBrowser();
	if (installed === undefined) throw new Error("The installed Chromium was not found");
	return installed;
}
