import { afterAll, beforeAll, describe, it } from "@jest/globals";

import { cacheFolder } from "../../scripts/servers/tools.ts";
import { type CaseTable, renderCases } from "../support/case-table.ts";
import { serverUrl } from "../support/servers.ts";
import { CASES, type CaseName } from "./delivery/cases.ts";
import { DeliveryStage } from "./delivery/stage.ts";
import { type DeliverySubject, SUBJECTS } from "./delivery/subjects.ts";

/** Far above what it takes: a busy machine is no failure. */
const LIMIT_MS = 600_000;

/**
 * What delivery has to do through everything that can happen on the way, from the producer's commit to
 * the consumer's database: by calls, and over each message broker, on real servers. All ways play a
 * case at the same time, each in a namespace of its own, and then the next one.
 */
export function deliverySuite(): void {
	const table: CaseTable<CaseName> = new Map();
	const missing = SUBJECTS.filter((one) => urlOf(one) === undefined);
	for (const { name, broker } of missing) {
		process.stdout.write(
			`skipped: ${name}, which \`npm run servers -- up ${broker?.kind.name}\` brings up\n`,
		);
	}

	for (const name of Object.keys(CASES) as CaseName[]) {
		describe(name, () => {
			const played = new Map<DeliverySubject, Promise<string>>();
			const playOnce = (subject: DeliverySubject) => {
				const playing = played.get(subject) ?? play(subject, name);
				played.set(subject, playing);
				playing.catch(() => undefined);
				return playing;
			};

			beforeAll(() => {
				for (const subject of SUBJECTS)
					if (!missing.includes(subject)) void playOnce(subject);
			});

			for (const subject of SUBJECTS) {
				const present = !missing.includes(subject);
				const test =
					present || process.env["LOTTOR_REQUIRE_SERVERS"] === "1" ? it : it.skip;
				const cells = table.get(name) ?? new Map<string, string>();
				table.set(name, cells);
				test(
					subject.name,
					async () => {
						cells.set(subject.name, "FAILED");
						cells.set(subject.name, await playOnce(subject));
					},
					LIMIT_MS,
				);
			}
		});
	}

	afterAll(() => {
		const columns = SUBJECTS.map(({ name }) => name);
		// Not console.log, to which Jest adds where it was called.
		process.stdout.write(`\n${renderCases(table, columns, "")}\n\n`);
	});
}

async function play(subject: DeliverySubject, name: CaseName): Promise<string> {
	const url = urlOf(subject);
	if (url === undefined) throw new Error(`${subject.broker?.kind.variable} must be set`);
	const stage = new DeliveryStage(subject, url);
	try {
		return (await CASES[name](stage)) ?? "ok";
	} finally {
		await stage.end();
	}
}

/** @returns the server's address, where its program is there too, to start another one */
function urlOf({ broker }: DeliverySubject): string | undefined {
	if (!broker) return "";
	return broker.kind.installed(cacheFolder()) ? serverUrl(broker.kind) : undefined;
}
