// Builds the admin UI into admin-ui/dist, unless what is there was built from the same sources.
// As `prepare` it runs inside every `npm ci`, also where there is nothing to build with (production
// installs, an old Node): then it says so and ends well. With --must it fails instead.
"use strict";

const { createHash } = require("node:crypto");
const { existsSync, readdirSync, readFileSync, writeFileSync } = require("node:fs");
const { join, relative } = require("node:path");
const { gzipSync } = require("node:zlib");

const UI = join(__dirname, "../admin-ui");
const LOCK = join(__dirname, "../package-lock.json");
const STAMP = join(UI, "dist/built-from.txt");
const must = process.argv.includes("--must");

function sources() {
	const files = readdirSync(UI, { recursive: true, withFileTypes: true })
		.filter((entry) => entry.isFile())
		.map((entry) => join(entry.parentPath ?? entry.path, entry.name))
		.filter((file) => !relative(UI, file).startsWith("dist"))
		.sort();
	const hash = createHash("sha256");
	for (const file of [...files, LOCK].filter((name) => existsSync(name))) {
		hash.update(relative(UI, file)).update("\0").update(readFileSync(file)).update("\0");
	}
	return hash.digest("hex");
}

/** Once here instead of with each request. */
function compress(folder) {
	for (const name of readdirSync(folder).filter((file) => /\.(js|css)$/.test(file))) {
		const file = join(folder, name);
		writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
	}
}

function lacking() {
	if (!existsSync(UI)) return "its sources are not here";
	if (!process.features.typescript) return `Node ${process.version} is too old`;
	try {
		require.resolve("vite/package.json");
	} catch {
		return "the development dependencies are not installed";
	}
	return undefined;
}

async function main() {
	const why = lacking();
	if (why !== undefined) {
		console.log(`The admin UI was not built: ${why}. \`npm run build:ui\` makes it.`);
		return must ? 1 : 0;
	}
	const stamp = sources();
	if (existsSync(STAMP) && readFileSync(STAMP, "utf8") === stamp) return 0;
	const { build } = await import("vite");
	await build({ configFile: join(UI, "vite.config.ts"), logLevel: "warn" });
	compress(join(UI, "dist/assets"));
	writeFileSync(STAMP, stamp);
	return 0;
}

main().then(
	(code) => {
		process.exitCode = code;
	},
	(error) => {
		console.error(error);
		process.exitCode = 1;
	},
);
