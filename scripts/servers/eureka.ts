import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { mainPort, type Place, type ServerKind } from "./kind.ts";
import { findProgram, get, run } from "./tools.ts";

/** A small Spring Boot program, since Eureka's server comes as a library. */
const SOURCE = new URL("./eureka/", import.meta.url).pathname;
const jar = (cache: string) => join(cache, "eureka", "eureka.jar");

const address = (place: Place) => `127.0.0.1:${mainPort(eureka, place)}/eureka`;

export const eureka: ServerKind = {
	name: "eureka",
	variable: "EUREKA_URL",
	ports: ["http"],
	installed: (cache) => existsSync(jar(cache)) && findProgram("java") !== undefined,
	async install(cache) {
		if (!findProgram("mvn") || !findProgram("java")) {
			throw new Error(
				"Install Maven and Java 17 or newer first: they build the Eureka server",
			);
		}
		const build = join(cache, "eureka", "build");
		mkdirSync(build, { recursive: true });
		cpSync(SOURCE, build, { recursive: true });
		await run("mvn", ["-q", "-B", "-ntp", "clean", "package"], { cwd: build });
		cpSync(join(build, "target", "eureka.jar"), jar(cache));
		rmSync(build, { recursive: true });
	},
	async command(place, cache) {
		return {
			file: "java",
			args: ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar", jar(cache)],
			env: {
				SERVER_PORT: String(mainPort(eureka, place)),
				...(place.password && { EUREKA_PASSWORD: place.password }),
			},
		};
	},
	async ready(place) {
		if (!place.password) return (await get(`http://${address(place)}/apps`)).ok;
		return (await fetch(`http://${address(place)}/apps`)).status === 401;
	},
	url(place) {
		const login = place.password ? `eureka:${place.password}@` : "";
		return `eureka://${login}${address(place)}`;
	},
};
