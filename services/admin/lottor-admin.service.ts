import { readSettings } from "../settings.ts";
import { LottorAdmin } from "./index.ts";

/** The admin service as `npm start` runs it. */
export default LottorAdmin({ port: readSettings().httpPort });
