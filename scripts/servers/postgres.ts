import { chownSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { type Command, mainPort, type Place, type ServerKind } from "./kind.ts";
import { aptInstall, findProgram, run } from "./tools.ts";

const USER = "lottor";

const dataOf = (place: Place) => join(place.folder, "data");

/**
 * PostgreSQL refuses to run as root. Its own user can't enter root's folders, so it keeps the one
 * capability that this takes.
 */
function asPostgres(file: string, args: readonly string[]): Command {
	const program = findProgram(file) ?? file;
	if (process.getuid?.() !== 0) return { file: program, args };
	const caps = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"];
	const user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
	return { file: "setpriv", args: [...user, ...caps, program, ...args] };
}

async function makeData(place: Place): Promise<void> {
	const data = dataOf(place);
	if (existsSync(data)) return;
	mkdirSync(data, { mode: 0o700 });
	if (process.getuid?.() === 0) {
		const id = async (flag: string) => Number(await run("id", [flag, "postgres"]));
		chownSync(data, await id("-u"), await id("-g"));
	}
	const login = ["--auth=trust"];
	if (place.password !== undefined) {
		const file = join(place.folder, "password");
		writeFileSync(file, place.password, { mode: 0o600 });
		login.splice(0, 1, "--auth=scram-sha-256", `--pwfile=${file}`);
	}
	const init = asPostgres("initdb", ["-D", data, "-U", USER, "-E", "UTF8", ...login]);
	await run(init.file, init.args, { cwd: place.folder });
}

export const postgres: ServerKind = {
	name: "postgres",
	variable: "POSTGRES_URL",
	ports: ["client"],
	// SIGTERM would wait until every client has left.
	signal: "SIGINT",
	installed: () => findProgram("initdb") !== undefined,
	install: () => aptInstall(["postgresql"]),
	async command(place) {
		await makeData(place);
		const settings = {
			listen_addresses: "127.0.0.1",
			port: mainPort(postgres, place),
			unix_socket_directories: "",
			max_connections: 200,
		};
		const options = Object.entries(settings).flatMap(([name, value]) => [
			"-c",
			`${name}=${value}`,
		]);
		return asPostgres("postgres", ["-D", dataOf(place), ...options]);
	},
	async ready(place) {
		const program = findProgram("pg_isready") ?? "pg_isready";
		await run(program, ["-q", "-h", "127.0.0.1", "-p", String(mainPort(postgres, place))]);
		return true;
	},
	url(place) {
		const login = place.password ? `${USER}:${place.password}` : USER;
		return `postgres://${login}@127.0.0.1:${mainPort(postgres, place)}/postgres`;
	},
};
