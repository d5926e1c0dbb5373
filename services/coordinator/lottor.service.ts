import { readSettings } from "../settings.ts";
import { Coordinator } from "./index.ts";

const settings = readSettings();

/** The coordinator as `npm start` runs it, set up from the environment. */
export default Coordinator({
	store: settings.lottorStore,
	delivery: settings.delivery,
	...settings.times,
});
