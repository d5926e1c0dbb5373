// Fills a coordinator store with made-up but lifelike groups:
//   npm run seed-data -- --groups 100000 [--store sqlite:./data/lottor.db]
// On SQLite they are spread over the last six days; other stores have a clock of their own.
import { parseArgs } from "node:util";

import { resolveCoordinatorStore } from "../adapters/coordinator-store/index.ts";
import { systemRandom } from "../protocol/index.ts";
import { readSettings } from "../services/settings.ts";
import { seed, SEEDED_FIELDS } from "./seed/seed.ts";

const SPAN_MS = 6 * 86_400_000;

const { values } = parseArgs({
	options: {
		groups: { type: "string", default: "100000" },
		store: { type: "string", default: readSettings().lottorStore },
	},
});
const groups = Number(values.groups);
if (!Number.isSafeInteger(groups) || groups < 1) {
	console.error("--groups must be a whole number of 1 or more");
	process.exit(1);
}

let now = Date.now() - SPAN_MS;
const clock = { now: () => now, after: () => ({ cancel: () => undefined }) };
const store = resolveCoordinatorStore(values.store, "--store", { clock, random: systemRandom });
await store.open();
const began = performance.now();
await seed(
	store,
	groups,
	(done) => {
		now = Math.round(Date.now() - SPAN_MS * (1 - done / groups));
	},
	(done) => {
		if (done % 50_000 === 0 || done === groups) console.log(`${done} of ${groups} groups`);
	},
);
await store.close();
console.log(`${Math.round((performance.now() - began) / 1_000)} s, in ${store.description}`);
console.log(
	`To search by their payloads: LOTTOR_SEARCH_FIELDS=${SEEDED_FIELDS.join(",")} npm start`,
);
