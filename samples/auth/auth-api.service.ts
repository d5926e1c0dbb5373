import { readSettings } from "../../services/settings.ts";
import { sampleApi } from "../support/api.ts";

/** HTTP for `auth`. */
export function authApi(port: number) {
	return sampleApi("auth-api", port, { "GET /roles": "auth.rows" });
}

export default authApi(readSettings().authPort);
