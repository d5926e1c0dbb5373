import { createHash } from "node:crypto";
import {
	cpSync,
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { cacheFolder, findProgram, run } from "../../scripts/servers/tools.ts";

const SOURCE = new URL("./spring-viewer/", import.meta.url).pathname;

/** An instance as a Spring Cloud application gets it from its DiscoveryClient. */
export interface SpringInstance {
	readonly instanceId: string;
	readonly serviceId: string;
	readonly host: string;
	readonly port: number;
	readonly secure: boolean;
	readonly uri: string;
	readonly metadata: Readonly<Record<string, string>>;
}

/** Whether there is what builds and runs it. */
export function springInstalled(): boolean {
	return findProgram("mvn") !== undefined && findProgram("java") !== undefined;
}

/** Builds the program; it is kept in the cache until its source changes. @returns its archive */
export async function buildSpringViewer(): Promise<string> {
	const hash = createHash("sha256");
	for (const file of readdirSync(SOURCE, { recursive: true, encoding: "utf8" }).sort()) {
		if (/\.\w+$/.test(file)) hash.update(file).update(readFileSync(join(SOURCE, file)));
	}
	const folder = join(cacheFolder(), "spring-viewer");
	const jar = join(folder, `${hash.digest("hex").slice(0, 16)}.jar`);
	if (existsSync(jar)) return jar;
	const build = mkdtempSync(join(tmpdir(), "lottor-spring-"));
	try {
		cpSync(SOURCE, build, { recursive: true });
		await run("mvn", ["-q", "-B", "-ntp", "package"], { cwd: build });
		mkdirSync(folder, { recursive: true });
		cpSync(join(build, "target", "spring-viewer.jar"), jar);
	} finally {
		rmSync(build, { recursive: true });
	}
	return jar;
}

/**
 * Looks services up as a Spring Cloud application does.
 *
 * @param properties of Spring, which name the registry
 * @returns the instances of each service
 */
export async function seenBySpring(
	jar: string,
	services: readonly string[],
	properties: Readonly<Record<string, string>>,
): Promise<Readonly<Record<string, readonly SpringInstance[]>>> {
	const out = await run("java", [
		...["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar", jar],
		`--services=${services.join(",")}`,
		...Object.entries(properties).map(([name, value]) => `--${name}=${value}`),
	]);
	const line = out.split("\n").find((one) => one.startsWith("SEEN "));
	if (line === undefined) throw new Error(`The Spring application said nothing: ${out}`);
	return JSON.parse(line.slice("SEEN ".length)) as Record<string, SpringInstance[]>;
}
