import { globSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { describe, expect, it } from "@jest/globals";

import { ERRORS } from "../../protocol/index.ts";

const RULES = Array.from({ length: 35 }, (_, index) => `R${index + 1}`);

/** What the original of this library did wrong; a title names each by its number. */
const DEFECTS = {
	"defect 1": "check-back never ran, and its answer was dropped",
	"defect 2": "the UI promised a retry that no endpoint had",
	"defect 3": "the broker send came before the database row: a fast consumer's result was lost",
	"defect 4": "confirm was dropped silently when the connection was down",
	"defect 5": "the producer's record went through a queue in memory: a crash lost the truth",
	"defect 6": "no idempotence, no backoff, no attempt limit, no dead letter",
	"defect 7": "scans every 60 minutes for what was older than 8 hours",
	"defect 8": "service and method names were compiled-in enums",
	"defect 9": "no authentication",
};

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A title is the first string of a test's or suite's call, or of a table's: `it.each(…)("…")`. */
const TITLE =
	/(?:\b(?:describe|it|test)(?:\.only|\.failing|\.concurrent)?\(|[)`]\()\s*(["'`])((?:\\.|(?!\1)[^\\])*)\1\s*,/gs;

function titlesIn(source: string): string[] {
	return [...source.matchAll(TITLE)].map((match) => match[2] ?? "");
}

const titles = globSync(["test/**/*.test.ts", "test/conformance/**/*.ts"], { cwd: ROOT })
	.filter((file) => !import.meta.url.endsWith(file))
	.flatMap((file) => titlesIn(readFileSync(`${ROOT}/${file}`, "utf8")));

/** The names that no title has as a word: R3 is not in R35, nor LOTTOR_STORE in LOTTOR_STORE_BUSY. */
function missing(names: readonly string[]): string[] {
	return names.filter((name) => !titles.some((title) => new RegExp(`\\b${name}\\b`).test(title)));
}

describe("the scan of titles", () => {
	it("finds them in calls, modified calls and tables, and nowhere else", () => {
		const source = [
			'describe("one", () => {});',
			"it('two', () => {});",
			"test.only(`three`, async () => {});",
			'it.each([[f(1), "no"]])(\n\t"four %s",\n\t() => {},\n);',
			'it.each`a\n${1}`("five", () => {});',
			'it.skip("skipped", () => {});',
			'it.todo("to do");',
			'expect(f()).toBe("no");',
		].join("\n");

		expect(titlesIn(source)).toEqual(["one", "two", "three", "four %s", "five"]);
	});
});

describe("every promise has a test of its name", () => {
	it("rules of the protocol", () => {
		expect(missing(RULES)).toEqual([]);
	});

	it("defects of the original", () => {
		expect(missing(Object.keys(DEFECTS))).toEqual([]);
	});

	it("error codes", () => {
		expect(missing(Object.keys(ERRORS))).toEqual([]);
	});
});
