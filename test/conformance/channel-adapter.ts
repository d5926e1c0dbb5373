import { afterAll, beforeAll, describe, it } from "@jest/globals";

import { cacheFolder } from "../../scripts/servers/tools.ts";
import { type CaseTable, renderCases } from "../support/case-table.ts";
import { CASES, type CaseName, HEAVY } from "./channel-adapter/cases.ts";
import { Stage } from "./channel-adapter/stage.ts";
import { type Subject, SUBJECTS } from "./channel-adapter/subjects.ts";

const LIMIT_MS = 240_000;
const HOW_TO_START = "Start it by `npm run servers -- up redis rabbitmq kafka nats`";

/**
 * What every hardened channels adapter has to do, on a real broker, without Lottor. Adapters play a
 * case at the same time, each in a namespace of its own, and then the next one.
 *
 * @param env addresses of the servers; an adapter whose server is missing is left out, or fails
 * where LOTTOR_REQUIRE_SERVERS is 1
 */
export function channelAdapterSuite(env: Readonly<Record<string, string | undefined>>): void {
	const table: CaseTable<CaseName> = new Map();
	const chosen = env["LOTTOR_CHANNELS"]?.toLowerCase().split(",");
	const subjects = SUBJECTS.filter(({ name }) => chosen?.includes(name.toLowerCase()) ?? true);

	const missing = subjects.filter((one) => !urlOf(one, env)).map(({ name }) => name);
	if (missing.length > 0) {
		process.stdout.write(
			`\nWithout a server: ${missing.join(", ")}. ${HOW_TO_START}, then pass on what ` +
				"`npm run servers -- env` prints.\n",
		);
	}

	for (const [name, play] of Object.entries(CASES) as [CaseName, (typeof CASES)[CaseName]][]) {
		describe(name, () => {
			const played = new Map<Subject, Promise<string | void>>();
			const playOnce = (subject: Subject) => {
				const running = played.get(subject) ?? playFor(subject, env, play);
				played.set(subject, running);
				running.catch(() => undefined);
				return running;
			};

			beforeAll(() => {
				if (HEAVY.includes(name)) return;
				for (const subject of subjects.filter((one) => urlOf(one, env))) {
					void playOnce(subject);
				}
			});

			for (const subject of subjects) {
				const present = urlOf(subject, env) !== undefined;
				const test = present || env["LOTTOR_REQUIRE_SERVERS"] === "1" ? it : it.skip;
				const cells = table.get(name) ?? new Map<string, string>();
				table.set(name, cells);
				test(
					subject.name,
					async () => {
						cells.set(subject.name, "FAILED");
						const said = await playOnce(subject);
						cells.set(subject.name, said ?? "ok");
					},
					LIMIT_MS,
				);
			}
		});
	}

	afterAll(() => {
		const columns = subjects.map(({ name }) => name);
		// Not console.log, to which Jest adds where it was called.
		process.stdout.write(`\n${renderCases(table, columns)}\n\n`);
	});
}

async function playFor(
	subject: Subject,
	env: Readonly<Record<string, string | undefined>>,
	play: (typeof CASES)[CaseName],
): Promise<string | void> {
	const url = urlOf(subject, env);
	if (!url) throw new Error(`${subject.kind.variable} must be set. ${HOW_TO_START}`);
	const stage = new Stage(subject, url);
	try {
		return await play(stage);
	} finally {
		await stage.end();
	}
}

/** @returns the address, where it is given and the program is there to start another one */
function urlOf(
	{ kind }: Subject,
	env: Readonly<Record<string, string | undefined>>,
): string | undefined {
	return kind.installed(cacheFolder()) ? env[kind.variable] : undefined;
}
