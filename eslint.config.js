import js from "@eslint/js";
import prettier from "eslint-config-prettier";
import svelte from "eslint-plugin-svelte";
import { defineConfig } from "eslint/config";
import tseslint from "typescript-eslint";

const nodeGlobals = Object.fromEntries(
	["Buffer", "URL", "clearTimeout", "console", "fetch", "process", "setTimeout"].map((name) => [
		name,
		"readonly",
	]),
);
const commonJsGlobals = { module: "writable", require: "readonly", __dirname: "readonly" };

export default defineConfig(
	{ ignores: ["**/dist/", "**/node_modules/", "coverage/"] },
	js.configs.recommended,
	{
		files: ["**/*.ts"],
		extends: [tseslint.configs.strict, tseslint.configs.recommendedTypeChecked],
		languageOptions: {
			parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
		},
		rules: {
			"@typescript-eslint/no-explicit-any": "error",
			"@typescript-eslint/no-floating-promises": "error",
			"@typescript-eslint/consistent-type-imports": "error",
			// A contract's methods are asynchronous even where one implementation has nothing to await.
			"@typescript-eslint/require-await": "off",
			// `void | Promise<void>` is what a handler may return.
			"@typescript-eslint/no-invalid-void-type": "off",
			"@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
			"@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
		},
	},
	{
		files: ["**/*.js", "**/*.mjs"],
		languageOptions: { globals: nodeGlobals },
	},
	{
		files: ["**/*.cjs"],
		languageOptions: {
			sourceType: "commonjs",
			globals: { ...nodeGlobals, ...commonJsGlobals },
		},
	},
	svelte.configs.recommended,
	{
		files: ["admin-ui/src/**/*.svelte", "admin-ui/src/**/*.svelte.ts"],
		extends: [tseslint.configs.strict],
		languageOptions: {
			// Types are svelte-check's work; asking them here, too, takes a minute.
			parserOptions: { parser: tseslint.parser, projectService: false, project: null },
		},
		rules: {
			...tseslint.configs.disableTypeChecked.rules,
			"no-undef": "off",
			"@typescript-eslint/no-explicit-any": "error",
			"@typescript-eslint/consistent-type-imports": "error",
			"@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
			// The router's own links; there is no SvelteKit here.
			"svelte/no-navigation-without-resolve": "off",
		},
	},
	prettier,
	svelte.configs.prettier,
);
