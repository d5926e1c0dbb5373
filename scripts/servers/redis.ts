import { mainPort, type ServerKind } from "./kind.ts";
import { aptInstall, findProgram, talk } from "./tools.ts";

export const redis: ServerKind = {
	name: "redis",
	variable: "REDIS_URL",
	ports: ["client"],
	installed: () => findProgram("redis-server") !== undefined,
	install: () => aptInstall(["redis-server"]),
	async command(place) {
		const options = {
			bind: "127.0.0.1",
			port: mainPort(redis, place),
			dir: place.folder,
			save: "",
			appendonly: "yes",
			appendfsync: "always",
			daemonize: "no",
			...(place.password && { requirepass: place.password }),
		};
		return {
			file: "redis-server",
			args: Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]),
		};
	},
	async ready(place) {
		const answer = await talk(mainPort(redis, place), "PING\r\n");
		return /^(\+PONG|-NOAUTH)/.test(answer);
	},
	url(place) {
		const login = place.password ? `:${place.password}@` : "";
		return `redis://${login}127.0.0.1:${mainPort(redis, place)}`;
	},
};
