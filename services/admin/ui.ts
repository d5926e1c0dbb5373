import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { extname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** Where the build lies, seen from the sources as from the package. */
const BUILD = fileURLToPath(new URL("../../admin-ui/dist/", import.meta.url));

const TYPES: Readonly<Record<string, string>> = {
	".css": "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
	".woff2": "font/woff2",
};

interface Asset {
	readonly file: string;
	readonly bytes: number;
	/** The same, compressed, where the build made that. */
	readonly gzip?: { readonly file: string; readonly bytes: number };
}

/** The built admin UI, as HTTP serves it. */
export interface AdminUi {
	/**
	 * Answers a GET or HEAD for one of the UI's files, or with its page when a browser asks for one.
	 *
	 * @returns whether it answered
	 */
	serve(req: IncomingMessage, res: ServerResponse): Promise<boolean>;
}

/**
 * A build's files are listed once, and only what is listed is ever read: no path of a request reaches
 * the disk.
 *
 * @param build folder of the build. @default admin-ui/dist
 */
export function adminUi(build: string = BUILD): AdminUi {
	const index = join(build, "index.html");
	let listed: Promise<ReadonlyMap<string, Asset>> | undefined;
	let listedAt: number | undefined;

	/** The page's text, or undefined where there is no build; another build than before is listed anew. */
	async function page(): Promise<string | undefined> {
		const found = await stat(index).catch(() => undefined);
		if (found?.mtimeMs !== listedAt) listed = undefined;
		listedAt = found?.mtimeMs;
		return found && readFile(index, "utf8");
	}

	return {
		async serve(req, res) {
			if (req.method !== "GET" && req.method !== "HEAD") return false;
			const path = (req.url ?? "/").split("?")[0] ?? "/";
			if (path.startsWith("/api/")) return false;
			const assets = await (listed ??= list(build));
			const asset = path === "/index.html" ? undefined : assets.get(path);
			if (asset) {
				sendAsset(req, res, path, asset);
				return true;
			}
			if (!wantsPage(req)) return false;
			const html = await page();
			sendPage(req, res, html ?? UNBUILT, html === undefined ? 503 : 200);
			return true;
		},
	};
}

async function list(build: string): Promise<Map<string, Asset>> {
	const entries = await readdir(build, { recursive: true, withFileTypes: true }).catch(() => []);
	const files = new Map<string, { readonly file: string; readonly bytes: number }>();
	for (const entry of entries.filter((one) => one.isFile())) {
		const file = join(entry.parentPath, entry.name);
		const path = `/${relative(build, file).split(sep).join("/")}`;
		files.set(path, { file, bytes: (await stat(file)).size });
	}
	const assets = new Map<string, Asset>();
	for (const [path, own] of files) {
		const gzip = files.get(`${path}.gz`);
		if (TYPES[extname(path)]) assets.set(path, { ...own, ...(gzip && { gzip }) });
	}
	return assets;
}

function wantsPage(req: IncomingMessage): boolean {
	return (req.headers.accept ?? "").includes("text/html");
}

function sendAsset(req: IncomingMessage, res: ServerResponse, path: string, asset: Asset): void {
	const zipped = /\bgzip\b/.test(String(req.headers["accept-encoding"] ?? ""));
	const { file, bytes } = (zipped && asset.gzip) || asset;
	res.writeHead(200, {
		"Content-Type": TYPES[extname(path)],
		"Content-Length": bytes,
		...(asset.gzip && { Vary: "Accept-Encoding" }),
		...(file !== asset.file && { "Content-Encoding": "gzip" }),
		// Their names change with their content.
		"Cache-Control": path.startsWith("/assets/")
			? "public, max-age=31536000, immutable"
			: "public, max-age=3600",
	});
	if (req.method === "HEAD") {
		res.end();
		return;
	}
	const stream = createReadStream(file);
	stream.on("error", () => res.destroy());
	stream.pipe(res);
}

function sendPage(req: IncomingMessage, res: ServerResponse, html: string, status: number): void {
	res.writeHead(status, {
		"Content-Type": "text/html; charset=utf-8",
		"Content-Length": Buffer.byteLength(html),
		"Cache-Control": "no-cache",
	});
	res.end(req.method === "HEAD" ? undefined : html);
}

const UNBUILT = `<!doctype html>
<html lang="en">
	<head><meta charset="utf-8" /><title>Lottor</title></head>
	<body>
		<h1>The admin UI is not built</h1>
		<p>Run <code>npm run build:ui</code> and load this page again. The API works without it.</p>
	</body>
</html>
`;
