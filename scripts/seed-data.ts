import { mkdirSync } from "node:fs";
import { parseArgs } from "node:util";

import { resolveCoordinatorStore } from "../adapters/coordinator-store/index.ts";
import { messageOf, systemRandom } from "../protocol/index.ts";
import { readSettings } from "../services/settings.ts";
import { setClock } from "./seed-data/clock.ts";
import { every, seed } from "./seed-data/seed.ts";

const HELP = `npm run seed-data -- [--groups 10000] [--days 30]

Fills the coordinator's store (LOTTOR_STORE, or data/lottor.db) with made-up groups, to try the admin
UI with. A coordinator may run meanwhile.`;

async function main(): Promise<number> {
	const { values } = parseArgs({
		options: {
			groups: { type: "string", default: "10000" },
			days: { type: "string", default: "30" },
			help: { type: "boolean", default: false },
		},
	});
	const [groups, days] = [Number(values.groups), Number(values.days)];
	if (values.help || !(groups > 0) || !(days > 0)) {
		console.log(HELP);
		return values.help ? 0 : 2;
	}
	const settings = readSettings();
	mkdirSync(settings.data, { recursive: true });
	const now = Date.now();
	const clock = setClock(now);
	const store = resolveCoordinatorStore(settings.lottorStore, "LOTTOR_STORE", {
		clock,
		random: systemRandom,
	});
	await store.open();
	try {
		await seed(store, clock, {
			groups,
			days,
			now,
			random: systemRandom,
			searchFields: settings.searchFields,
			progress: every(10_000, (stored) => console.log(`${stored} groups`)),
		});
	} finally {
		await store.close();
	}
	const seconds = ((Date.now() - now) / 1_000).toFixed(1);
	console.log(`${groups} groups are stored in ${store.description} (${seconds} s)`);
	return 0;
}

process.exitCode = await main().catch((error: unknown) => {
	console.error(messageOf(error));
	return 1;
});
