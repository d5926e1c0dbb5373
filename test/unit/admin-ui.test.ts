import { describe, expect, test } from "@jest/globals";

import { queryString } from "../../admin-ui/src/lib/api/client.ts";
import { columnsOf, countFilters, filterOf, listQuery } from "../../admin-ui/src/lib/filters.ts";
import { flatten } from "../../admin-ui/src/lib/flatten.ts";
import {
	formatBytes,
	formatCount,
	formatRate,
	shortId,
} from "../../admin-ui/src/lib/format/number.ts";
import { isPath, jsonText, parseJson } from "../../admin-ui/src/lib/format/payload.ts";
import { exactTime, formatSpan, formatTime } from "../../admin-ui/src/lib/format/time.ts";
import { groupPrefix } from "../../admin-ui/src/lib/palette.ts";
import { withChosen } from "../../admin-ui/src/lib/selection.ts";
import { LOOKS } from "../../admin-ui/src/lib/states.ts";
import { parseViews } from "../../admin-ui/src/lib/views.ts";
import {
	GROUP_STATES,
	MESSAGE_STATES,
	newGroupId,
	systemClock,
	systemRandom,
} from "../../protocol/index.ts";

const NOW = Date.UTC(2026, 10, 25, 12, 0, 0);

describe("times", () => {
	test.each([
		[0, "now"],
		[-5_000, "5s ago"],
		[-90_000, "1m ago"],
		[7_500_000, "in 2h"],
		[-3 * 86_400_000, "3d ago"],
	])("%d ms from now is %s", (offset, text) => {
		expect(formatTime(NOW + offset, "relative", NOW, "en")).toBe(text);
	});

	test("in UTC, to the second", () => {
		expect(formatTime(NOW, "utc", NOW, "en")).toBe("2026-11-25 12:00:00Z");
		expect(exactTime(NOW + 7, "utc", "en")).toBe("12:00:00.007");
	});

	test.each([
		[0, "0 ms"],
		[850, "850 ms"],
		[4_290, "4.2 s"],
		[59_900, "59 s"],
		[200_000, "3 min 20 s"],
		[3_600_000, "1 h"],
		[187_200_000, "2 d 4 h"],
		[-5_000, "-5 s"],
	])("a span of %d ms is %s", (ms, text) => {
		expect(formatSpan(ms)).toBe(text);
	});
});

describe("numbers", () => {
	test("counts are whole as long as they can be read", () => {
		expect(formatCount(99_999, "en")).toBe("99,999");
		expect(formatCount(1_284_011, "en")).toBe("1.3M");
		expect(formatRate(0.25, "en")).toBe("0.3");
		expect(formatRate(124.4, "en")).toBe("124");
	});

	test("bytes in binary units", () => {
		expect([0, 999, 1_536, 524_288].map(formatBytes)).toEqual([
			"0 B",
			"999 B",
			"1.5 KiB",
			"512 KiB",
		]);
	});

	test("a long id keeps its begin and its end", () => {
		expect(shortId("01m8adjqj71y0vt1e3g1a6dsrx.0")).toBe("01m8adjq…dsrx.0");
		expect(shortId("short")).toBe("short");
	});
});

describe("the address of a list", () => {
	test("becomes the server's filter; what is empty or unknown is left out", () => {
		const params = new URLSearchParams(
			"text= admin &states=failed,pending&target=auth&range=1h&cols=id&nonsense=1&source=",
		);
		expect(filterOf(params, NOW)).toEqual({
			text: "admin",
			states: ["failed", "pending"],
			target: "auth",
			since: NOW - 3_600_000,
		});
		expect(countFilters(params)).toBe(4);
	});

	test("a span beats moments, and moments must be numbers", () => {
		expect(filterOf(new URLSearchParams("since=5&until=9"), NOW)).toEqual({
			since: 5,
			until: 9,
		});
		expect(filterOf(new URLSearchParams("since=x&range=2y&until=9"), NOW)).toEqual({
			until: 9,
		});
	});

	test("asks for the fields of the payload columns", () => {
		const columns = ["id", "payload.user.name", "payload.role"];
		expect(listQuery(new URLSearchParams("sort=oldest"), columns, NOW)).toEqual({
			sort: "oldest",
			fields: ["user.name", "role"],
		});
	});

	test("columns: the usual ones unless chosen, five out of the payload at most", () => {
		const known = ["id", "state", "type"];
		expect(columnsOf(null, known, ["id"])).toEqual(["id"]);
		expect(columnsOf("type,evil,payload.a.b,payload.<x>", known, ["id"])).toEqual([
			"type",
			"payload.a.b",
		]);
		const many = Array.from({ length: 9 }, (_, n) => `payload.f${n}`).join(",");
		expect(columnsOf(many, known, ["id"])).toHaveLength(5);
	});

	test("a query leaves out what is empty and escapes the rest", () => {
		expect(queryString({ a: "x&y", b: "", c: ["1", "2"], d: undefined, e: 0, f: false })).toBe(
			"?a=x%26y&c=1%2C2&e=0&f=false",
		);
		expect(queryString({})).toBe("");
	});
});

test("saved views: what was stored by something else is left out", () => {
	const view = { page: "groups", name: "mine", search: "states=failed" };
	expect(parseViews(JSON.stringify([view, 1, { page: "groups" }]))).toEqual([view]);
	expect(parseViews("{")).toEqual([]);
	expect(parseViews(null)).toEqual([]);
});

test("payload paths are names joined by dots", () => {
	expect(["a", "user.roles.0", "$x-y"].map(isPath)).toEqual([true, true, true]);
	expect(["", "a..b", "a b", "<script>", "x".repeat(101)].some(isPath)).toBe(false);
	expect([jsonText("<b>"), jsonText({ a: 1 }), jsonText(null), jsonText(0)]).toEqual([
		"<b>",
		'{"a":1}',
		"",
		"0",
	]);
	expect(parseJson('{"a":1}')).toEqual({ value: { a: 1 } });
	expect(parseJson("{a}")).toHaveProperty("problem");
});

test("the palette knows the begin of an id, and a message's id for its group", () => {
	const id = newGroupId(systemClock, systemRandom);
	expect(groupPrefix(id)).toBe(id);
	expect(groupPrefix(` ${id.slice(0, 8).toUpperCase()} `)).toBe(id.slice(0, 8));
	expect(groupPrefix(`${id}.3`)).toBe(id);
	expect([groupPrefix("01m"), groupPrefix("settings"), groupPrefix("01m8 x")]).toEqual([
		undefined,
		undefined,
		undefined,
	]);
});

test("every state has a look", () => {
	expect(Object.keys(LOOKS).sort()).toEqual([...GROUP_STATES, ...MESSAGE_STATES].sort());
});

test("a choice of rows grows and shrinks without changing the former one", () => {
	const before = new Set(["a"]);
	expect([...withChosen(before, ["b", "c"], true)]).toEqual(["a", "b", "c"]);
	expect([...withChosen(before, ["a"], false)]).toEqual([]);
	expect([...before]).toEqual(["a"]);
});

test("a configuration as lines", () => {
	expect(flatten({ a: { b: 1, c: ["x", "y"] }, d: null, e: [], f: [{ g: true }] })).toEqual([
		{ path: "a.b", value: "1" },
		{ path: "a.c", value: "x, y" },
		{ path: "d", value: "–" },
		{ path: "e", value: "–" },
		{ path: "f.0.g", value: "true" },
	]);
	expect(flatten({ keepCompleted: 604_800_000, maxPayload: 524_288, maxChecks: 15 })).toEqual([
		{ path: "keepCompleted", value: "7 d" },
		{ path: "maxPayload", value: "512 KiB" },
		{ path: "maxChecks", value: "15" },
	]);
});
