import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import tailwindcss from "@tailwindcss/vite";
import { defineConfig, type Plugin } from "vite";

/** The running admin service that `npm run dev:ui` shows. */
const SERVER = `http://127.0.0.1:${process.env["LOTTOR_HTTP_PORT"] ?? "9666"}`;

const here = fileURLToPath(new URL(".", import.meta.url));

/**
 * Puts the licence text of each bundled font beside it, which their licence (OFL) asks for; Vite's
 * own list has scripts only.
 */
function fontLicenses(): Plugin {
	return {
		name: "lottor-font-licenses",
		apply: "build",
		generateBundle(_options, bundle) {
			const fonts = Object.values(bundle)
				.flatMap((file) => (file.type === "asset" ? file.originalFileNames : []))
				.filter((name) => name.endsWith(".woff2"));
			const packages = new Set(fonts.map((font) => packageOf(resolve(here, font))));
			const texts = [...packages].sort().map((folder) => {
				const manifest = readFileSync(join(folder, "package.json"), "utf8");
				const { name, version, license } = JSON.parse(manifest) as Record<string, string>;
				const text = readFileSync(join(folder, "LICENSE"), "utf8");
				return `## ${name} - ${version} (${license})\n\n${text.trim()}\n`;
			});
			const source = `# Licenses of the fonts\n\n${texts.join("\n")}`;
			this.emitFile({ type: "asset", fileName: "licenses-of-fonts.md", source });
		},
	};
}

/** The folder of the package that a file belongs to. */
function packageOf(file: string): string {
	const folder = dirname(file);
	return existsSync(join(folder, "package.json")) ? folder : packageOf(folder);
}

export default defineConfig({
	root: here,
	plugins: [svelte({ configFile: `${here}svelte.config.js` }), tailwindcss(), fontLicenses()],
	build: {
		target: "es2023",
		// The content security policy forbids data: and inline script.
		assetsInlineLimit: 0,
		modulePreload: { polyfill: false },
		license: { fileName: "licenses.md" },
		reportCompressedSize: false,
		rolldownOptions: { checks: { pluginTimings: false } },
	},
	server: {
		host: "127.0.0.1",
		port: 9667,
		proxy: Object.fromEntries(
			["/api", "/healthz", "/readyz", "/login"].map((path) => [path, { target: SERVER }]),
		),
	},
});
