import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "@jest/globals";

const run = promisify(execFile);
const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

let folder: string;

interface Packed {
	readonly filename: string;
	readonly files: readonly { readonly path: string }[];
}
let packed: Packed;

/** What a user has who installed the tarball: it, and its peers. */
beforeAll(async () => {
	folder = mkdtempSync(join(tmpdir(), "lottor-package-"));
	const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", folder], {
		cwd: ROOT,
	});
	packed = (JSON.parse(stdout.slice(stdout.indexOf("[\n"))) as Packed[])[0] as Packed;
	const modules = join(folder, "node_modules");
	mkdirSync(join(modules, "moleculer-lottor"), { recursive: true });
	const target = join(modules, "moleculer-lottor");
	await run("tar", ["-xzf", join(folder, packed.filename), "-C", target, "--strip-components=1"]);
	for (const peer of ["moleculer", "moleculer-web", "@moleculer/channels"]) {
		mkdirSync(dirname(join(modules, peer)), { recursive: true });
		symlinkSync(join(ROOT, "node_modules", peer), join(modules, peer));
	}
	writeFileSync(join(folder, "package.json"), '{"type":"module"}');
}, 120_000);

afterAll(() => {
	rmSync(folder, { recursive: true, force: true });
});

async function script(name: string, source: string): Promise<string> {
	writeFileSync(join(folder, name), source);
	const { stdout } = await run(
		process.execPath,
		["--disable-warning=ExperimentalWarning", name],
		{ cwd: folder },
	);
	return stdout;
}

test("the tarball holds what runs and what documents it, and nothing of the tests", () => {
	const paths = packed.files.map((file) => file.path);
	expect(paths).toEqual(
		expect.arrayContaining([
			"README.md",
			"LICENSE",
			"CHANGELOG.md",
			"dist/index.js",
			"dist/index.d.ts",
			"dist/admin-ui/dist/index.html",
		]),
	);
	expect(
		paths.filter((path) => /^(test|samples|bench|scripts)\/|\.test\.|(?<!\.d)\.ts$/.test(path)),
	).toEqual([]);
});

test("each font of the admin UI comes with its licence", () => {
	const ui = join(folder, "node_modules/moleculer-lottor/dist/admin-ui/dist");
	const fonts = packed.files.filter(({ path }) => path.endsWith(".woff2"));
	const texts = readFileSync(join(ui, "licenses-of-fonts.md"), "utf8");
	expect(fonts.length).toBeGreaterThan(0);
	const named = [...texts.matchAll(/^## @fontsource\S* - \S+ \(OFL-1\.1\)$/gm)];
	expect(named).toHaveLength(fonts.length);
	expect(texts.match(/SIL OPEN FONT LICENSE Version 1\.1/g)).toHaveLength(fonts.length);
	for (const family of ["IBMPlexSans", "IBMPlexMono"]) expect(texts).toContain(family);
});

test("every entry point of the package loads under plain Node", async () => {
	const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
		exports: object;
	};
	const entries = Object.keys(manifest.exports).filter(
		(name) => !name.includes("*") && !name.endsWith(".json"),
	);
	const patterns = [
		"stores/coordinator/sqlite",
		"stores/participant/sqlite",
		"delivery/direct",
		"transporters/loopback-tcp",
	];
	const all = [...entries.map((name) => name.slice(1)), ...patterns.map((name) => `/${name}`)];
	const out = await script(
		"load.mjs",
		`for (const name of ${JSON.stringify(all)}) {
			const loaded = await import("moleculer-lottor" + name);
			if (Object.keys(loaded).length === 0) throw new Error(name + " exports nothing");
		}
		console.log("loaded", ${all.length});`,
	);
	expect(out).toContain(`loaded ${all.length}`);
});

test("a service made with the package commits, delivers and completes, also from CommonJS", async () => {
	const out = await script(
		"use.cjs",
		`const { ServiceBroker } = require("moleculer");
		const { Coordinator, ReliableMessage } = require("moleculer-lottor");
		const { LottorAdmin } = require("moleculer-lottor/admin");
		(async () => {
			const broker = new ServiceBroker({ logger: false });
			broker.createService(Coordinator({ store: "sqlite:./lottor.db" }));
			broker.createService(LottorAdmin({ port: 0 }));
			broker.createService({
				name: "auth",
				mixins: [ReliableMessage({ store: "sqlite:./auth.db" })],
				messages: { grant: (ctx) => console.log("granted", ctx.params.user) },
			});
			const user = broker.createService({ name: "user", mixins: [ReliableMessage({ store: "sqlite:./user.db" })] });
			await broker.start();
			const message = { target: "auth", type: "grant", payload: { user: "ann" } };
			const id = await user.reliable.transaction(null, [message], (tx) => tx.group);
			let state;
			do {
				await new Promise((resolve) => setTimeout(resolve, 10));
				state = (await broker.call("lottor.groups.get", { id })).group.state;
			} while (state !== "completed");
			console.log(state);
			await broker.stop();
		})();`,
	);
	expect(out.trim().split("\n")).toEqual(["granted ann", "completed"]);
});
