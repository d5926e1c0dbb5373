import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "@jest/globals";

import { en } from "../../admin-ui/src/lib/i18n/en.ts";
import { fill, type Key, type Text } from "../../admin-ui/src/lib/i18n/message.ts";
import { zh } from "../../admin-ui/src/lib/i18n/zh.ts";
import { ROUTES } from "../../services/admin/api/index.ts";

const SOURCES = resolve(fileURLToPath(import.meta.url), "../../../admin-ui/src");

const sources = readdirSync(SOURCES, { recursive: true, encoding: "utf8" })
	.filter((name) => /\.(svelte|ts)$/.test(name) && !/i18n\/(en|zh)\.ts$/.test(name))
	.map((name) => ({ name, text: readFileSync(join(SOURCES, name), "utf8") }));

const textsOf = (text: Text): string[] =>
	typeof text === "string" ? [text] : [text.one, text.other];
const namesIn = (text: Text): string[] =>
	[...new Set(textsOf(text).flatMap((one) => one.match(/\{\w+\}/g) ?? []))].sort();

describe("the catalogues", () => {
	test("have the same keys, none of them empty", () => {
		expect(Object.keys(zh).sort()).toEqual(Object.keys(en).sort());
		for (const catalogue of [en, zh] as Readonly<Record<string, Text>>[]) {
			for (const [key, text] of Object.entries(catalogue)) {
				expect([key, ...textsOf(text)]).not.toContain("");
			}
		}
	});

	test("name the same values", () => {
		for (const key of Object.keys(en) as Key[]) {
			const wanted = namesIn(en[key]).filter((name) => namesIn(zh[key]).includes(name));
			expect([key, namesIn(zh[key])]).toEqual([key, wanted]);
		}
	});

	test("have every key that a page names, and no page says anything that is not in them", () => {
		const missing = sources.flatMap(({ name, text }) =>
			[...text.matchAll(/\bt\(\s*"([^"]+)"/g)]
				.map((match) => match[1] as string)
				.filter((key) => !Object.hasOwn(en, key))
				.map((key) => `${name}: ${key}`),
		);
		expect(missing).toEqual([]);

		const bare = sources
			.filter(({ name }) => name.endsWith(".svelte"))
			.flatMap(({ name, text }) => {
				const markup = text
					.replace(/<script[\s\S]*?<\/script>/g, "")
					.replace(/<!--[\s\S]*?-->/g, "")
					.replace(/\b(class|style:\w+)=("[^"]*"|\{[^}]*\})/g, "");
				const said = [
					...markup.matchAll(/\b(?:placeholder|title|aria-label|alt)="([^"{]+)"/g),
					...markup.matchAll(/^\s*([A-Z][a-z]+(?: [a-z]+)+)\s*$/gm),
				].map((match) => match[1] as string);
				return said.filter((one) => one !== "user.name").map((one) => `${name}: ${one}`);
			});
		expect(bare).toEqual([]);
	});

	test("have no key that nothing uses", () => {
		const all = sources.map(({ text }) => text).join("\n");
		const built = [...all.matchAll(/`([a-zA-Z]+)\.[^`]*\$\{/g)].map((match) => match[1]);
		const unused = Object.keys(en).filter(
			(key) => !all.includes(`"${key}"`) && !built.includes(key.split(".")[0]),
		);
		expect(unused).toEqual([]);
	});

	test("have a name for every action that the audit log can show", () => {
		const changes = Object.entries(ROUTES).filter(([, { method }]) => method !== "GET");
		expect(changes.map(([name]) => `audit.${name}`).filter((key) => !(key in en))).toEqual([]);
	});
});

test("a text takes values, and the form for one thing or for many", () => {
	expect(fill(en, "list.loaded", { count: 1 }, "en")).toBe("1 loaded");
	expect(fill(en, "bulk.retry.title", { count: 1 }, "en")).toBe("Retry 1 message");
	expect(fill(en, "bulk.retry.title", { count: 1_000 }, "en")).toBe("Retry 1,000 messages");
	expect(fill(zh, "bulk.retry.title", { count: 1 }, "zh")).toBe("重试 1 条消息");
	expect(fill(en, "views.remove", {}, "en")).toBe("Remove the view {name}");
});
