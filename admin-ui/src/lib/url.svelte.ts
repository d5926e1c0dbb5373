import { searchParams } from "sv-router";

import { router } from "../router.ts";
import { queryString, type Query } from "./api/client.ts";

/** The query of the address: where lists keep their filters, so that a link shows the same. */
export const url = {
	get(name: string): string {
		return searchParams.toURLSearchParams().get(name) ?? "";
	},
	list(name: string): string[] {
		const value = url.get(name);
		return value === "" ? [] : value.split(",");
	},
	get search(): string {
		return searchParams.toString();
	},
	/** Changes some fields, empty ones are left out; `push` makes a step that Back returns from. */
	set(fields: Query, push = false): void {
		const now = Object.fromEntries(searchParams.toURLSearchParams());
		url.replaceAll(queryString({ ...now, ...fields }), push);
	},
	/** @param search with or without `?` */
	replaceAll(search: string, push = false): void {
		void router.navigate(router.route.pathname as "/", {
			search: search.replace(/^\?/, ""),
			replace: !push,
			scrollToTop: false,
		});
	},
};
