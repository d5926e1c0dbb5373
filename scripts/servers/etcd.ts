import { join } from "node:path";

import { mainPort, type Place, type ServerKind } from "./kind.ts";
import { aptInstall, findProgram, get } from "./tools.ts";

async function post(place: Place, path: string, body: object): Promise<void> {
	const response = await fetch(`${address(place)}/v3/${path}`, {
		method: "POST",
		body: JSON.stringify(body),
	});
	if (!response.ok) throw new Error(`etcd refused ${path}: ${await response.text()}`);
}

const address = (place: Place) => `http://127.0.0.1:${mainPort(etcd, place)}`;

export const etcd: ServerKind = {
	name: "etcd",
	variable: "ETCD_URL",
	ports: ["client", "peer"],
	installed: () => findProgram("etcd") !== undefined,
	install: () => aptInstall(["etcd-server"]),
	async command(place) {
		const peer = `http://127.0.0.1:${String(place.ports["peer"])}`;
		return {
			file: "etcd",
			args: [
				...["--data-dir", join(place.folder, "data")],
				...["--listen-client-urls", address(place)],
				...["--advertise-client-urls", address(place)],
				...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
				...["--initial-cluster", `default=${peer}`],
			],
		};
	},
	async ready(place) {
		return (await get(`${address(place)}/health`)).text.includes("true");
	},
	async protect(place) {
		await post(place, "auth/user/add", { name: "root", password: place.password });
		await post(place, "auth/role/add", { name: "root" });
		await post(place, "auth/user/grant", { user: "root", role: "root" });
		await post(place, "auth/enable", {});
	},
	url: (place) => `etcd3://127.0.0.1:${mainPort(etcd, place)}`,
};
