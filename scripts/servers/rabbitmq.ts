import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { mainPort, type ServerKind } from "./kind.ts";
import { aptInstall, findProgram, talk } from "./tools.ts";

// Debian's wrapper in /usr/sbin would switch the user.
const PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const USER = "lottor";
/** What the server has with a default installation, and takes from this machine only. */
const OPEN_LOGIN = "guest:guest";
const PROTOCOL_HEADER = "AMQP\u0000\u0000\u0009\u0001";
const METHOD_FRAME = "\u0001";

// The port mapper ends with the server, also where that one is killed.
const START = 'setpriv --pdeathsig KILL epmd & exec "$0"';

export const rabbitmq: ServerKind = {
	name: "rabbitmq",
	variable: "AMQP_URL",
	ports: ["amqp", "dist", "epmd"],
	installed: () => existsSync(PROGRAM),
	install: () => aptInstall(["rabbitmq-server"]),
	async command(place) {
		const file = join(place.folder, "rabbitmq.conf");
		const plugins = join(place.folder, "enabled_plugins");
		const settings = {
			"listeners.tcp.default": `127.0.0.1:${mainPort(rabbitmq, place)}`,
			"vm_memory_high_watermark.absolute": "512MB",
			"disk_free_limit.absolute": "50MB",
			"num_acceptors.tcp": 1,
			"log.console.level": "warning",
			...(place.password && { default_user: USER, default_pass: place.password }),
		};
		const lines = Object.entries(settings).map(([name, value]) => `${name} = ${String(value)}`);
		writeFileSync(file, `${lines.join("\n")}\n`, { mode: 0o600 });
		writeFileSync(plugins, "[].");
		const home = join(place.folder, "home");
		mkdirSync(home, { recursive: true });
		const loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
		return {
			file: findProgram("sh") ?? "/bin/sh",
			args: ["-c", START, PROGRAM],
			env: {
				HOME: home,
				// Without it the program would stay as a parent that a kill leaves an orphan behind.
				detached: "true",
				ERL_EPMD_ADDRESS: "127.0.0.1",
				ERL_EPMD_PORT: String(place.ports["epmd"]),
				RABBITMQ_NODENAME: "lottor@localhost",
				RABBITMQ_DIST_PORT: String(place.ports["dist"]),
				RABBITMQ_MNESIA_BASE: join(place.folder, "data"),
				RABBITMQ_LOGS: "-",
				RABBITMQ_CONFIG_FILE: file,
				RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
				RABBITMQ_PID_FILE: join(place.folder, "pid"),
				RABBITMQ_CONF_ENV_FILE: "/dev/null",
				RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `+S 1:1 +sbwt none +A 4 ${loopback}`,
			},
		};
	},
	async ready(place) {
		const answer = await talk(mainPort(rabbitmq, place), PROTOCOL_HEADER);
		return answer.startsWith(METHOD_FRAME);
	},
	url(place) {
		const login = place.password ? `${USER}:${place.password}` : OPEN_LOGIN;
		return `amqp://${login}@127.0.0.1:${mainPort(rabbitmq, place)}`;
	},
};
