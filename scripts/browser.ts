import { messageOf } from "../protocol/index.ts";
import { installBrowser } from "./servers/chromium.ts";

/** `npm run browser`: sees to it that there is a Chromium for the tests and screenshots. */
process.exitCode = await installBrowser().then(
	(path) => {
		console.log(`Chromium is installed: ${path}`);
		return 0;
	},
	(error: unknown) => {
		console.error(messageOf(error));
		return 1;
	},
);
