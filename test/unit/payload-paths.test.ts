import { describe, expect, it } from "@jest/globals";

import { isPath, searchTerms, valuesAt } from "../../services/payload-paths.ts";

const PAYLOAD = {
	user: { id: "U-7", name: "Ada Lovelace", age: 36, active: true, nothing: null },
	items: [{ sku: "A1" }, { sku: "B2" }, 5],
	tags: ["new", "vip"],
};

describe("payload paths", () => {
	it.each([
		["user.name", ["Ada Lovelace"]],
		["items.sku", ["A1", "B2"]],
		["tags", ["new", "vip"]],
		["user.nothing", [null]],
		["user.nothing.more", []],
		["constructor.name", []],
		["user.name.length", []],
	])("%s", (path, values) => {
		expect(valuesAt(PAYLOAD, path)).toEqual(values);
	});

	it("are names joined by dots", () => {
		for (const path of ["a", "a.b", "user-id.x_y"]) expect(isPath(path)).toBe(true);
		for (const path of ["", ".", "a..b", "a.", "a b", 5, null])
			expect(isPath(path)).toBe(false);
	});
});

describe("search terms", () => {
	it("are the values at the paths, in lower case, each once", () => {
		const paths = [
			"user.id",
			"user.age",
			"user.active",
			"tags",
			"user.nothing",
			"items",
			"gone",
		];
		expect(searchTerms(JSON.stringify(PAYLOAD), paths)).toEqual([
			"u-7",
			"36",
			"true",
			"new",
			"vip",
			"5",
		]);
		expect(searchTerms('{"a":"X","b":"x"}', ["a", "b"])).toEqual(["x"]);
		expect(searchTerms("5", ["a"])).toEqual([]);
	});

	it("leave out what is too long, and are not too many", () => {
		expect(searchTerms(JSON.stringify({ a: "x".repeat(201), b: "" }), ["a", "b"])).toEqual([]);
		const many = JSON.stringify({ a: Array.from({ length: 100 }, (_, i) => i) });
		expect(searchTerms(many, ["a"])).toHaveLength(20);
	});
});
