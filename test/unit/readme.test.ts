import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "@jest/globals";

import { ROUTES } from "../../services/admin/api/index.ts";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

/** What tests inject, and no user sets. */
const INTERNAL = ["clock", "random"];

/** Names of the fields of an interface, as its source has them. */
function fieldsOf(path: string, name: string): string[] {
	const source = read(path);
	const start = source.search(new RegExp(`export interface ${name}\\b`));
	const body = source.slice(start, source.indexOf("\n}", start));
	const fields = [...body.matchAll(/^\t(?:readonly )?(\w+)\??[:(]/gm)].map((match) => match[1]);
	return fields.filter((field): field is string => !INTERNAL.includes(field ?? ""));
}

const OPTIONS: readonly (readonly [path: string, name: string])[] = [
	["mixins/reliable-message/types.ts", "ReliableMessageOptions"],
	["mixins/reliable-message/types.ts", "TransactionOptions"],
	["mixins/reliable-message/types.ts", "MessageDefinition"],
	["services/coordinator/options.ts", "CoordinatorOptions"],
	["services/admin/options.ts", "LottorAdminOptions"],
];

describe.each(["README.md", "README.zh-CN.md"])("%s", (file) => {
	const text = read(file);
	const cells = text.split("\n").filter((line) => line.startsWith("| "));
	const rows = cells.map((line) => line.split("|")[1] ?? "");

	test.each(OPTIONS)("has a row for every field of %s %s", (path, name) => {
		const fields = fieldsOf(path, name);
		expect(fields.length).toBeGreaterThan(2);
		const missing = fields.filter((field) => !rows.some((row) => row.includes(`\`${field}`)));
		expect(missing).toEqual([]);
	});

	test("names every environment variable", () => {
		const source = read("services/settings.ts");
		const names = new Set(source.match(/\b(LOTTOR|USER|AUTH)_[A-Z_]+\b/g));
		expect(names.size).toBeGreaterThan(10);
		const documented = [...names].filter((name) => !name.startsWith("LOTTOR_INVALID"));
		expect(documented.filter((name) => !rows.some((row) => row.includes(name)))).toEqual([]);
	});

	test("has every path of the HTTP side", () => {
		const shown = rows.join(" ");
		for (const { path } of Object.values(ROUTES)) {
			const last = path.split("/").at(-1) as string;
			expect(shown.includes(path) || shown.includes(`…/${last}`)).toBe(true);
		}
	});

	test("names no file that does not exist", () => {
		const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1]);
		expect(links.length).toBeGreaterThan(3);
		const missing = links.filter(
			(link) => !existsSync(new URL(`../../${link}`, import.meta.url)),
		);
		expect(missing).toEqual([]);
	});
});

test("both READMEs have the same sections, tables and code", () => {
	const shape = (file: string) => {
		const lines = read(file).split("\n");
		return {
			headings: lines
				.filter((line) => /^#+ /.test(line))
				.map((line) => line.match(/^#+/)?.[0]),
			rows: lines.filter((line) => line.startsWith("| ")).length,
			fences: lines.filter((line) => line.startsWith("```")),
		};
	};
	expect(shape("README.zh-CN.md")).toEqual(shape("README.md"));
});
