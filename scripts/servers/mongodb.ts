import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

import { mainPort, type Place, type ServerKind } from "./kind.ts";
import { aptInstall, debianMirror, findProgram, run } from "./tools.ts";

const MAIN = new URL("./mongodb/main.ts", import.meta.url).pathname;
const USER = "lottor";

/** MongoDB's own server can't be had as a package; DocumentDB, an extension of PostgreSQL, is in Debian. */
const RELEASE = "sid";
const PACKAGES = "postgresql-18,postgresql-18-documentdb";

const rootOf = (cache: string) => join(cache, "mongodb", "root");

/** The DocumentDB engine behind a gateway that speaks MongoDB's protocol, with transactions. */
export const mongodb: ServerKind = {
	name: "mongodb",
	variable: "MONGODB_URL",
	ports: ["client", "engine"],
	installed: (cache) => existsSync(rootOf(cache)),
	async install(cache) {
		if (process.getuid?.() !== 0)
			throw new Error("The MongoDB engine needs root: it runs in a chroot");
		if (!findProgram("mmdebstrap")) await aptInstall(["mmdebstrap"]);
		const root = rootOf(cache);
		const making = `${root}.new`;
		rmSync(making, { recursive: true, force: true });
		mkdirSync(join(cache, "mongodb"), { recursive: true });
		await run("mmdebstrap", [
			...["--mode=root", "--variant=apt", `--include=${PACKAGES}`],
			'--aptopt=Acquire::Check-Valid-Until "false"',
			'--aptopt=APT::Install-Recommends "false"',
			...[RELEASE, making, await debianMirror()],
		]);
		renameSync(making, root);
	},
	async command(place, cache) {
		const ports = [place.ports["engine"], mainPort(mongodb, place)].map(String);
		return {
			file: process.execPath,
			args: [MAIN, rootOf(cache), join(place.folder, "data"), ...ports],
			...(place.password !== undefined && {
				env: { LOTTOR_MONGODB_PASSWORD: place.password },
			}),
		};
	},
	ready: async (place) => answers(mongodb.url(place)),
	url: (place) => urlOf(mongodb, place),
};

/** @returns whether a server of MongoDB's protocol lets a client in and answers it */
export async function answers(url: string): Promise<boolean> {
	const { MongoClient } = await import("mongodb");
	const client = new MongoClient(url, { serverSelectionTimeoutMS: 1_000 });
	try {
		await client.db("admin").command({ ping: 1 });
		return true;
	} finally {
		await client.close();
	}
}

/** The address as clients take it. */
export function urlOf(kind: Pick<ServerKind, "name" | "ports">, place: Place): string {
	const login = place.password === undefined ? "" : `${USER}:${place.password}@`;
	return `mongodb://${login}127.0.0.1:${mainPort(kind, place)}/`;
}
