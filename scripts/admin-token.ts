// Makes a token for the HTTP side: npm run admin:token -- <name> <viewer|operator|admin>
import { newAdminToken, type Role } from "../services/admin/index.ts";
import { readAdminOptions } from "../services/admin/options.ts";
import { messageOf } from "../protocol/index.ts";

const [name = "", role = ""] = process.argv.slice(2);
const { token, entry } = newAdminToken(name, role as Role);
try {
	readAdminOptions({ tokens: [entry] });
	console.log(`Token of ${name}, shown this once: ${token}`);
	console.log(`LOTTOR_ADMIN_TOKENS=${name}:${role}:${entry.hash}`);
} catch (error) {
	console.error(`${messageOf(error)}\nnpm run admin:token -- <name> <viewer|operator|admin>`);
	process.exitCode = 1;
}
