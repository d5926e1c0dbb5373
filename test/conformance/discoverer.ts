import { afterAll, it } from "@jest/globals";

import { cacheFolder } from "../../scripts/servers/tools.ts";
import { type CaseTable, renderCases } from "../support/case-table.ts";
import { Turns } from "../support/turns.ts";
import { type Case, CASES, type CaseName, CROWD, LONG } from "./discoverer/cases.ts";
import { type Servers, Stage } from "./discoverer/stage.ts";
import { type Subject, SUBJECTS } from "./discoverer/subjects.ts";

/** Of a case and its wait for its turn. */
const LIMIT_MS = 400_000;
const LIGHT = new Turns(12);
const HEAVY = new Turns(1);
const HOW_TO_START = "Start it by `npm run servers -- up redis nats etcd consul zookeeper eureka`";

/**
 * What every discoverer has to do, on a real registry and with a real transporter. Many cases, which
 * mostly wait, are played at the same time, each in a namespace of its own.
 *
 * @param env addresses of the servers; a discoverer whose server is missing is left out, or fails
 * where LOTTOR_REQUIRE_SERVERS is 1
 */
export function discovererSuite(env: Readonly<Record<string, string | undefined>>): void {
	const table: CaseTable<CaseName> = new Map();
	const chosen = env["LOTTOR_DISCOVERERS"]?.toLowerCase().split(",");
	const subjects = SUBJECTS.filter(({ name }) => chosen?.includes(name.toLowerCase()) ?? true);

	const missing = subjects.filter((one) => !serversOf(one, env)).map(({ name }) => name);
	if (missing.length > 0) {
		process.stdout.write(
			`\nWithout a server: ${missing.join(", ")}. ${HOW_TO_START}, then pass on what ` +
				"`npm run servers -- env` prints.\n",
		);
	}

	for (const name of Object.keys(CASES) as CaseName[]) table.set(name, new Map());
	// All on one level, since Jest plays only those of one level at the same time.
	for (const name of new Set([...LONG, ...table.keys()])) {
		for (const subject of subjects) {
			const known = subject.limits.includes(name);
			const present = serversOf(subject, env) !== undefined;
			const needed = present || env["LOTTOR_REQUIRE_SERVERS"] === "1";
			const cells = table.get(name);
			const test = needed ? (known ? it.concurrent.failing : it.concurrent) : it.skip;
			test(
				`${name}: ${subject.name}`,
				async () => {
					cells?.set(subject.name, known ? "(limit)" : "FAILED");
					const turns = name === CROWD ? HEAVY : LIGHT;
					const said = await turns.run(() => playFor(subject, env, CASES[name]));
					cells?.set(subject.name, said ?? "ok");
				},
				LIMIT_MS,
			);
		}
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
	play: Case,
): Promise<string | void> {
	const servers = serversOf(subject, env);
	if (!servers) {
		throw new Error(
			`${subject.kind.variable}, NATS_URL and REDIS_URL must be set. ${HOW_TO_START}`,
		);
	}
	const stage = new Stage(subject, servers);
	try {
		const said = await play(stage);
		if (stage.fatals.length > 0) throw new Error(`A node gave up: ${stage.fatals.join("; ")}`);
		return said;
	} finally {
		await stage.end();
	}
}

/** @returns the addresses, where they are given and the programs are there to start more */
function serversOf(
	{ kind }: Subject,
	env: Readonly<Record<string, string | undefined>>,
): Servers | undefined {
	const registry = env[kind.variable];
	const { NATS_URL: nats, REDIS_URL: redis } = env;
	if (!registry || !nats || !redis || !kind.installed(cacheFolder())) return undefined;
	return { registry, nats, redis };
}
