import { fileURLToPath } from "node:url";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import tailwindcss from "@tailwindcss/vite";
import { defineConfig } from "vite";

/** The running admin service that `npm run dev:ui` shows. */
const SERVER = `http://127.0.0.1:${process.env["LOTTOR_HTTP_PORT"] ?? "9666"}`;

const here = fileURLToPath(new URL(".", import.meta.url));

export default defineConfig({
	root: here,
	plugins: [svelte({ configFile: `${here}svelte.config.js` }), tailwindcss()],
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
