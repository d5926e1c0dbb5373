import { api } from "./api/calls.ts";
import type { Facets } from "./api/types.ts";

const KEEP = 60_000;
const NONE: Facets = { sources: [], targets: [], types: [], errorCodes: [] };

let shown = $state.raw<Facets>(NONE);
let at = 0;

/** What there is to filter by; asked for once a minute at most. */
export const facets = {
	get current(): Facets {
		return shown;
	},
	load(): void {
		if (Date.now() - at < KEEP) return;
		at = Date.now();
		api.facets(undefined).then(
			(loaded) => (shown = loaded),
			() => (at = 0),
		);
	},
};
