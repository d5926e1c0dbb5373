import { describe, expect, test } from "@jest/globals";

import { MOST_LOOKED, type PageOf, searchOn } from "../../admin-ui/src/lib/page-of.ts";

/** A server with these pages; their cursors are their places. */
function server(pages: readonly (readonly string[])[], total?: PageOf<string>["total"]) {
	const asked: (string | undefined)[] = [];
	return {
		asked,
		load: async (cursor: string | undefined): Promise<PageOf<string>> => {
			asked.push(cursor);
			const at = Number(cursor ?? 0);
			return {
				items: pages[at] ?? [],
				next: at + 1 < pages.length ? String(at + 1) : null,
				...(cursor === undefined && total !== undefined && { total }),
			};
		},
	};
}

describe("a list whose pages may be empty", () => {
	test("goes on until it finds something, and keeps the first page's total", async () => {
		const { load, asked } = server([[], [], ["a"], ["b"]], { count: 0, exact: false });
		expect(await searchOn(load)).toEqual({
			items: ["a"],
			next: "3",
			total: { count: 0, exact: false },
		});
		expect(asked).toEqual([undefined, "1", "2"]);
	});

	test("stops after some pages, says where it got to, and goes on from there", async () => {
		const { load, asked } = server([...Array.from({ length: 9 }, () => []), ["a"]]);
		const first = await searchOn(load);
		expect(first).toMatchObject({ items: [], next: String(MOST_LOOKED) });
		expect(asked).toHaveLength(MOST_LOOKED);
		expect(await searchOn(load, first?.next ?? "")).toMatchObject({ items: ["a"], next: null });
	});

	test("is over where the last page is empty, or where all that match are none", async () => {
		const empty = server([[], []]);
		expect(await searchOn(empty.load)).toMatchObject({ items: [], next: null });
		const none = server([[], [], ["a"]], { count: 0, exact: true });
		expect(await searchOn(none.load)).toMatchObject({ items: [], next: null });
		expect(none.asked).toHaveLength(1);
	});

	test("a page with rows is the server's only page", async () => {
		const { load, asked } = server([["a"], ["b"]]);
		expect(await searchOn(load)).toEqual({ items: ["a"], next: "1", total: null });
		expect(asked).toHaveLength(1);
		expect(searchOn(() => undefined)).toBeUndefined();
	});
});
