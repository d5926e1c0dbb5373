import { readSettings } from "../settings.ts";
import { LottorAdmin } from "./index.ts";

const { httpPort, admin } = readSettings();

/** The admin service as `npm start` runs it. */
export default LottorAdmin({ port: httpPort, ...admin });
