import { chmodSync, cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { mainPort, type ServerKind } from "./kind.ts";
import { answers, urlOf } from "./mongodb.ts";
import { findProgram, run } from "./tools.ts";

/** The last of the line that brings a backend of its own, SQLite, and has no transactions. */
const MODULE = "github.com/FerretDB/FerretDB";
const VERSION = "v1.24.0";

const binary = (cache: string) => join(cache, "ferretdb", "ferretdb");

/** A server of MongoDB's protocol without transactions, as a standalone MongoDB is. */
export const ferretdb: ServerKind = {
	name: "ferretdb",
	variable: "FERRETDB_URL",
	ports: ["client"],
	installed: (cache) => existsSync(binary(cache)),
	async install(cache) {
		if (!findProgram("go"))
			throw new Error("Install Go 1.22 or newer first: it builds FerretDB");
		const told = await run("go", ["mod", "download", "-json", `${MODULE}@${VERSION}`]);
		const build = join(cache, "ferretdb", "build");
		rmSync(build, { recursive: true, force: true });
		mkdirSync(build, { recursive: true });
		cpSync((JSON.parse(told) as { Dir: string }).Dir, build, { recursive: true });
		// The module leaves out what its release writes here, and won't start without.
		const version = join(build, "build", "version");
		chmodSync(version, 0o755);
		writeFileSync(join(version, "version.txt"), VERSION);
		await run("go", ["build", "-o", binary(cache), "./cmd/ferretdb"], { cwd: build });
		await run("chmod", ["-R", "u+w", build]);
		rmSync(build, { recursive: true });
	},
	async command(place, cache) {
		return {
			file: binary(cache),
			args: [
				...["--handler=sqlite", `--sqlite-url=file:${place.folder}/`],
				...[`--state-dir=${place.folder}`, "--telemetry=disable", "--no-log-uuid"],
				...[`--listen-addr=127.0.0.1:${mainPort(ferretdb, place)}`, "--debug-addr=-"],
			],
		};
	},
	ready: async (place) => answers(ferretdb.url(place)),
	url: (place) => urlOf(ferretdb, place),
};
