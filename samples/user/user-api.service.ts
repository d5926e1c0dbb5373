import { readSettings } from "../../services/settings.ts";
import { sampleApi } from "../support/api.ts";

/** HTTP for `user`. */
export function userApi(port: number) {
	return sampleApi("user-api", port, {
		"POST /user": "user.create",
		"GET /produce": "user.create",
		"GET /users": "user.rows",
		"GET /users/:id": "user.get",
	});
}

export default userApi(readSettings().userPort);
