import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { mainPort, type ServerKind } from "./kind.ts";
import { aptInstall, findProgram, talk } from "./tools.ts";

const JAVA = "openjdk-17-jre-headless";
const JAR = "/usr/share/java/zookeeper.jar";

export const zookeeper: ServerKind = {
	name: "zookeeper",
	variable: "ZOOKEEPER_URL",
	ports: ["client"],
	installed: () => existsSync(JAR) && findProgram("java") !== undefined,
	install: () => aptInstall(["zookeeper", ...(findProgram("java") ? [] : [JAVA])]),
	async command(place) {
		const file = join(place.folder, "zoo.cfg");
		const config = {
			tickTime: 500,
			dataDir: join(place.folder, "data"),
			clientPort: mainPort(zookeeper, place),
			clientPortAddress: "127.0.0.1",
			"admin.enableServer": false,
			"4lw.commands.whitelist": "ruok,srvr,wchs",
			minSessionTimeout: 1_000,
			maxClientCnxns: 0,
		};
		const lines = Object.entries(config).map(([name, value]) => `${name}=${String(value)}`);
		writeFileSync(file, `${lines.join("\n")}\n`);
		const main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
		return { file: "java", args: ["-Xmx128m", "-cp", JAR, main, file] };
	},
	async ready(place) {
		// `ruok` says yes before the server takes sessions; `srvr` then says that it does not.
		return (await talk(mainPort(zookeeper, place), "srvr")).startsWith("Zookeeper version");
	},
	url: (place) => `zookeeper://127.0.0.1:${mainPort(zookeeper, place)}`,
};
