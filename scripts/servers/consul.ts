import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { mainPort, type Place, type ServerKind } from "./kind.ts";
import { aptUnpack, findProgram, get } from "./tools.ts";

/** Debian 12 has no Consul; the one of Debian 11 needs nothing but libc. */
const RELEASE = "bullseye";
const unpacked = (cache: string) => join(cache, "consul", "usr", "bin", "consul");

const address = (place: Place) => `127.0.0.1:${mainPort(consul, place)}`;

export const consul: ServerKind = {
	name: "consul",
	variable: "CONSUL_URL",
	ports: ["http", "server", "serf_lan", "serf_wan"],
	installed: (cache) => findProgram("consul") !== undefined || existsSync(unpacked(cache)),
	install: (cache) => aptUnpack("consul", RELEASE, join(cache, "consul")),
	async command(place, cache) {
		const file = join(place.folder, "consul.json");
		const config = {
			bind_addr: "127.0.0.1",
			client_addr: "127.0.0.1",
			data_dir: join(place.folder, "data"),
			server: true,
			bootstrap_expect: 1,
			disable_update_check: true,
			log_level: "WARN",
			performance: { raft_multiplier: 1 },
			ports: { ...place.ports, dns: -1, grpc: -1 },
			...(place.password && {
				acl: {
					enabled: true,
					default_policy: "deny",
					tokens: { master: place.password, agent: place.password },
				},
			}),
		};
		writeFileSync(file, JSON.stringify(config), { mode: 0o600 });
		return {
			file: findProgram("consul") ?? unpacked(cache),
			args: ["agent", `-config-file=${file}`],
		};
	},
	async ready(place) {
		const leader = await get(`http://${address(place)}/v1/status/leader`);
		if (!leader.ok || !leader.text.includes(":")) return false;
		// The catalog knows the node only a moment after the election; sessions need it.
		const headers = { "X-Consul-Token": place.password ?? "" };
		const nodes = await fetch(`http://${address(place)}/v1/catalog/nodes`, { headers });
		return nodes.ok && ((await nodes.json()) as unknown[]).length > 0;
	},
	url: (place) => `consul://${address(place)}`,
};
