import { readSettings } from "../settings.ts";
import { Coordinator } from "./index.ts";

const { delivery, lottorStore, searchFields, times } = readSettings();

/** The coordinator as `npm start` runs it, set up from the environment. */
export default Coordinator({ store: lottorStore, delivery, searchFields, ...times });
