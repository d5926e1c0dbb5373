import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";

import { adminUi } from "../../services/admin/ui.ts";

const BUILD = resolve(fileURLToPath(import.meta.url), "../../../admin-ui/dist");
const HTML = { accept: "text/html,*/*" };
const FIRST_LOAD = 200 * 1_024;

const servers: Server[] = [];
let folder: string;

beforeAll(() => {
	folder = mkdtempSync(join(tmpdir(), "lottor-ui-"));
	mkdirSync(join(folder, "build/assets"), { recursive: true });
	writeFileSync(join(folder, "build/index.html"), "<p>page</p>");
	writeFileSync(join(folder, "build/assets/app-1.js"), "go()");
	writeFileSync(join(folder, "build/built-from.txt"), "not for the public");
	writeFileSync(join(folder, "secret.js"), "secret");
});
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => {
	for (const server of servers.splice(0)) server.close();
});

async function serve(build: string): Promise<number> {
	const ui = adminUi(build);
	const server = createServer((req, res) => {
		void ui.serve(req, res).then((served) => {
			if (!served) res.writeHead(404).end();
		});
	});
	servers.push(server);
	await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
	return (server.address() as AddressInfo).port;
}

/** Sends the path as it is: `fetch` would tidy it up. */
function ask(port: number, path: string, headers: Record<string, string> = {}, method = "GET") {
	return new Promise<{ status: number; headers: Record<string, unknown>; body: Buffer }>(
		(done, fail) => {
			request({ host: "127.0.0.1", port, path, headers, method }, (res) => {
				const chunks: Buffer[] = [];
				res.on("data", (chunk: Buffer) => chunks.push(chunk));
				res.on("end", () =>
					done({
						status: res.statusCode ?? 0,
						headers: res.headers,
						body: Buffer.concat(chunks),
					}),
				);
			})
				.on("error", fail)
				.end();
		},
	);
}

describe("serving the UI", () => {
	test("every address of a page answers a browser with the page, never kept; a program gets 404", async () => {
		const port = await serve(join(folder, "build"));
		for (const path of ["/", "/groups", "/groups/01m8?x=1", "/index.html"]) {
			const page = await ask(port, path, HTML);
			expect([path, page.status, page.body.toString()]).toEqual([path, 200, "<p>page</p>"]);
			expect(page.headers["cache-control"]).toBe("no-cache");
		}
		expect((await ask(port, "/groups", { accept: "application/json" })).status).toBe(404);
		expect((await ask(port, "/api/nothing", HTML)).status).toBe(404);
		expect((await ask(port, "/groups", HTML, "POST")).status).toBe(404);
	});

	test("files whose names change with their content are kept for good", async () => {
		const port = await serve(join(folder, "build"));
		const file = await ask(port, "/assets/app-1.js");
		expect(file.headers["cache-control"]).toContain("immutable");
		expect(file.headers["content-type"]).toContain("text/javascript");
		expect(file.body.toString()).toBe("go()");
		const head = await ask(port, "/assets/app-1.js", {}, "HEAD");
		expect([head.headers["content-length"], head.body.length]).toEqual(["4", 0]);
	});

	test.each([
		"/../secret.js",
		"/assets/../../secret.js",
		"/..%2fsecret.js",
		"/assets/..%5c..%5csecret.js",
		"//etc/passwd",
		"/assets/%00",
		"/built-from.txt",
	])("no path leads out of the build, nor to what is not of the UI: %s", async (path) => {
		const port = await serve(join(folder, "build"));
		const answer = await ask(port, path);
		expect([answer.status, answer.body.toString()]).toEqual([404, ""]);
	});

	test("without a build, a browser is told which command makes it; a later build is found", async () => {
		const build = join(folder, "later");
		const port = await serve(build);
		const page = await ask(port, "/", HTML);
		expect(page.status).toBe(503);
		expect(page.body.toString()).toContain("npm run build:ui");

		mkdirSync(join(build, "assets"), { recursive: true });
		writeFileSync(join(build, "index.html"), "<p>page</p>");
		writeFileSync(join(build, "assets/app-2.js"), "again()");
		expect((await ask(port, "/", HTML)).body.toString()).toBe("<p>page</p>");
		expect((await ask(port, "/assets/app-2.js")).body.toString()).toBe("again()");
	});
});

describe("the build", () => {
	test("is there: `npm ci` or `npm run build:ui` makes it", () => {
		expect(existsSync(join(BUILD, "index.html"))).toBe(true);
	});

	test(`loads less than ${FIRST_LOAD / 1_024} KiB of JavaScript for the overview, charts and all`, async () => {
		const loaded = await firstLoad();
		const sizes = await Promise.all(
			loaded.map(async (name) => (await stat(join(BUILD, "assets", `${name}.gz`))).size),
		);
		const bytes = sizes.reduce((sum, size) => sum + size, 0);
		process.stdout.write(`admin UI, first load: ${Math.round(bytes / 1_024)} KiB gzipped\n`);
		expect(loaded.some((name) => name.startsWith("uPlot"))).toBe(true);
		expect(bytes).toBeLessThan(FIRST_LOAD);
	});

	test("names no other host to load anything from, and has no inline script or style", async () => {
		const html = await readFile(join(BUILD, "index.html"), "utf8");
		expect(html).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\bon\w+=|https?:\/\//);
		for (const name of readdirSync(join(BUILD, "assets"))) {
			if (!/\.(css|js)$/.test(name)) continue;
			const text = await readFile(join(BUILD, "assets", name), "utf8");
			expect([
				name,
				text.match(/(?:url\(|src=|fetch\(|import\()["']?(?:https?:)?\/\/[^"')]*/g),
			]).toEqual([name, null]);
		}
	});

	test("what is compressed is what is sent to browsers that take it", async () => {
		const port = await serve(BUILD);
		const name = readdirSync(join(BUILD, "assets")).find((one) => one.endsWith(".js")) ?? "";
		const plain = await ask(port, `/assets/${name}`);
		const zipped = await ask(port, `/assets/${name}`, { "accept-encoding": "gzip, br" });
		expect(zipped.headers["content-encoding"]).toBe("gzip");
		expect(gunzipSync(zipped.body).equals(plain.body)).toBe(true);
	});
});

/** @returns the chunks that the page, the overview and its charts load, one by one */
async function firstLoad(): Promise<string[]> {
	const names = readdirSync(join(BUILD, "assets")).filter((name) => name.endsWith(".js"));
	const html = await readFile(join(BUILD, "index.html"), "utf8");
	const first = names.filter((name) => html.includes(name) || /^(Overview|uPlot)/.test(name));
	const loaded = new Set<string>();
	const queue = [...first];
	for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
		if (loaded.has(name)) continue;
		loaded.add(name);
		const text = await readFile(join(BUILD, "assets", name), "utf8");
		const imports = text.matchAll(/(?:from|import)\s*["']\.\/([\w.-]+\.js)["']/g);
		queue.push(...[...imports].map((match) => match[1] as string));
	}
	return [...loaded].sort();
}
