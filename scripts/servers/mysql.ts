import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { mainPort, type ServerKind } from "./kind.ts";
import { aptInstall, findProgram, run } from "./tools.ts";

const USER = "lottor";

/** MariaDB, as Debian's MySQL. */
export const mysql: ServerKind = {
	name: "mysql",
	variable: "MYSQL_URL",
	ports: ["client"],
	installed: () => findProgram("mariadbd") !== undefined,
	install: () => aptInstall(["mariadb-server"]),
	async command(place) {
		const data = join(place.folder, "data");
		const user = process.getuid?.() === 0 ? ["--user=root"] : [];
		if (!existsSync(data)) {
			const install = findProgram("mariadb-install-db") ?? "mariadb-install-db";
			const options = ["--no-defaults", `--datadir=${data}`, "--skip-test-db", ...user];
			await run(install, [...options, "--auth-root-authentication-method=normal"]);
		}
		const init = join(place.folder, "init.sql");
		const login = place.password ? ` IDENTIFIED BY '${place.password}'` : "";
		const statements = [
			`CREATE USER IF NOT EXISTS '${USER}'@'127.0.0.1'${login};`,
			`GRANT ALL ON *.* TO '${USER}'@'127.0.0.1';`,
			"CREATE DATABASE IF NOT EXISTS lottor CHARACTER SET utf8mb4;",
		];
		writeFileSync(init, `${statements.join("\n")}\n`, { mode: 0o600 });
		const options = {
			datadir: data,
			socket: join(place.folder, "mysql.sock"),
			"bind-address": "127.0.0.1",
			port: mainPort(mysql, place),
			"init-file": init,
			"innodb-flush-log-at-trx-commit": 1,
			"max-connections": 200,
		};
		return {
			file: findProgram("mariadbd") ?? "mariadbd",
			args: [
				"--no-defaults",
				"--skip-name-resolve",
				...user,
				...Object.entries(options).map(([name, value]) => `--${name}=${value}`),
			],
		};
	},
	async ready(place) {
		const address = ["-h", "127.0.0.1", "-P", String(mainPort(mysql, place)), "-u", USER];
		await run("mariadb-admin", ["--no-defaults", ...address, "ping"]);
		return true;
	},
	url(place) {
		const login = place.password ? `${USER}:${place.password}` : USER;
		return `mysql://${login}@127.0.0.1:${mainPort(mysql, place)}/lottor`;
	},
};
