import { join } from "node:path";

import { mainPort, type ServerKind } from "./kind.ts";
import { aptInstall, findProgram, get } from "./tools.ts";

export const nats: ServerKind = {
	name: "nats",
	variable: "NATS_URL",
	ports: ["client", "monitor"],
	installed: () => findProgram("nats-server") !== undefined,
	install: () => aptInstall(["nats-server"]),
	async command(place) {
		return {
			file: findProgram("nats-server") ?? "nats-server",
			args: [
				...["-a", "127.0.0.1", "-p", String(mainPort(nats, place))],
				...["-m", String(place.ports["monitor"])],
				...["-js", "-sd", join(place.folder, "jetstream")],
			],
		};
	},
	async ready(place) {
		return (await get(`http://127.0.0.1:${String(place.ports["monitor"])}/healthz`)).ok;
	},
	url: (place) => `nats://127.0.0.1:${mainPort(nats, place)}`,
};
