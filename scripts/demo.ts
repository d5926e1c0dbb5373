import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { messageOf } from "../protocol/index.ts";
import { readBroker, readNetwork } from "../services/settings.ts";
import { command } from "./command.ts";
import { Cluster } from "./demo/cluster.ts";
import { announcement, details, type Played, table } from "./demo/report.ts";
import { makeDatabases } from "./demo/databases.ts";
import { expectedOf, type Scenario, SCENARIOS } from "./demo/scenarios.ts";
import { Stage } from "./demo/stage.ts";
import { Stored } from "./demo/stored.ts";
import { PLACE_SCHEMES, schemeOf } from "./places.ts";

const HELP = `npm run demo -- [options]

Plays what can go wrong between a producer, the coordinator and its consumers, with real processes
that are killed, and looks at what the databases have afterwards. Everything runs in a temporary
folder, on free ports, and in databases of its own. Exits with 0 only if every scenario ends as its store's guarantee says.

  --only <name>        play this scenario; may be given several times
  --json               tell the progress on stderr, and the result as one line of JSON on stdout
  --transporter <url>  what the processes talk over: nats://…, redis://…; else TCP on this machine
  --discoverer <url>   how they find each other: consul://…, zookeeper://…, eureka://…, etcd3://…,
                       redis://…; needs --transporter
  --broker <url>       what delivers the messages: amqp://…, kafka://…, nats://…, redis://…; else calls
  --coordinator-store <url>  where the coordinator keeps its groups: mongodb://…; else SQLite
  --participant-store <url>  where the services keep theirs: mongodb://…, postgres://…, mysql://…,
                       redis://…; else SQLite. Each gets a database of its own there, which is
                       removed afterwards
  --help               show this

scenarios: ${SCENARIOS.map(({ name }) => name).join(", ")}`;

const COORDINATOR_SCHEMES = ["mongodb", "mongodb+srv"];

function readArguments() {
	const { values } = parseArgs({
		options: {
			only: { type: "string", multiple: true },
			json: { type: "boolean", default: false },
			transporter: { type: "string" },
			discoverer: { type: "string" },
			broker: { type: "string" },
			"coordinator-store": { type: "string" },
			"participant-store": { type: "string" },
			help: { type: "boolean", default: false },
		},
	});
	const wanted = values.only ?? SCENARIOS.map(({ name }) => name);
	for (const name of wanted) {
		if (!SCENARIOS.some((scenario) => scenario.name === name)) {
			throw new Error(`There is no scenario "${name}"`);
		}
	}
	const servers = {
		coordinator: readServer(values, "coordinator-store", COORDINATOR_SCHEMES),
		participants: readServer(values, "participant-store", PLACE_SCHEMES),
	};
	const { transporter, discoverer } = readNetwork(values.transporter, values.discoverer, [
		"--transporter",
		"--discoverer",
	]);
	const delivery = readBroker(values.broker, "--broker");
	// Keeps this run apart from others that use the same servers.
	const namespace = `demo-${process.pid}-${Date.now()}`;
	const apart = transporter !== undefined || values.broker !== undefined;
	return {
		...values,
		servers,
		scenarios: SCENARIOS.filter(({ name }) => wanted.includes(name)),
		network: { transporter, discoverer, delivery, namespace: apart ? namespace : "" },
	};
}

/** @throws when the URL is of no server that the demo can use. It is not shown: it may hold a secret. */
function readServer<Name extends string>(
	values: Readonly<Partial<Record<Name, string | undefined>>>,
	name: Name,
	schemes: readonly string[],
): string | undefined {
	const url = values[name];
	if (url === undefined || schemes.includes(schemeOf(url))) return url;
	throw new Error(`--${name} must be a URL: ${schemes.map((one) => `${one}://…`).join(", ")}`);
}

async function play(scenario: Scenario, stage: Stage): Promise<Played> {
	const guarantee = scenario.guarantee ?? stage.guarantee;
	const start = Date.now();
	let group = "";
	let error: string | null = null;
	try {
		group = await scenario.play(stage);
	} catch (reason) {
		error = messageOf(reason);
	}
	const stored = group === "" ? undefined : await stage.group(group);
	return {
		name: scenario.name,
		ok: error === null && stage.checks.every((check) => check.held),
		guarantee,
		expected: expectedOf(scenario, guarantee),
		group,
		state: stored?.state ?? "",
		messages: (stored?.messages ?? []).map(({ id, target, state }) => ({ id, target, state })),
		checks: stage.checks,
		ms: Date.now() - start,
		error,
	};
}

async function playAll(
	scenarios: readonly Scenario[],
	cluster: Cluster,
	stored: Stored,
	tell: (text: string) => void,
): Promise<Played[]> {
	tell(`Starting the processes; files and logs are in ${cluster.folder}`);
	await cluster.start();
	await cluster.spawnMissing();
	const guarantee = await cluster.guaranteeOf("shop");
	tell(`Producers and consumers are ${guarantee}.`);
	const all: Played[] = [];
	for (const [place, scenario] of scenarios.entries()) {
		await cluster.spawnMissing();
		tell(announcement(scenario, place + 1, scenarios.length));
		const played = await play(scenario, new Stage(cluster, stored, guarantee));
		tell(details(played));
		all.push(played);
		// Whatever it left behind shall not count against the next one.
		if (!played.ok) await cluster.killAll();
	}
	return all;
}

/** Makes databases and processes for one run, and removes them, however it ends. */
async function withCluster<T>(
	folder: string,
	{ servers, network }: Pick<ReturnType<typeof readArguments>, "servers" | "network">,
	use: (cluster: Cluster, stored: Stored) => Promise<T>,
): Promise<T> {
	const databases = await makeDatabases(folder, servers);
	const cluster = new Cluster(folder, databases.urls, network);
	const stored = new Stored(databases.urls);
	const end = async () => {
		await cluster.stop();
		await stored.close();
		await databases.remove();
	};
	const interrupted = () => void end().finally(() => process.exit(130));
	process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
	try {
		return await use(cluster, stored);
	} finally {
		await end();
	}
}

async function demo(options: ReturnType<typeof readArguments>): Promise<number> {
	const tell = options.json ? console.error : console.log;
	const start = Date.now();
	const folder = mkdtempSync(join(tmpdir(), "lottor-demo-"));
	let all: Played[] = [];
	let ok = false;
	try {
		all = await withCluster(folder, options, (cluster, stored) =>
			playAll(options.scenarios, cluster, stored, tell),
		);
		ok = all.every((played) => played.ok);
	} catch (error) {
		tell(`The demo could not be played: ${messageOf(error)}`);
	}
	tell(`\n${table(all)}\n`);
	const seconds = ((Date.now() - start) / 1_000).toFixed(1);
	if (ok) {
		rmSync(folder, { recursive: true });
		tell(`All ${all.length} held, in ${seconds} s.`);
	} else {
		tell(`Not all held, in ${seconds} s. Files and logs are kept in ${folder}`);
	}
	if (options.json) console.log(JSON.stringify({ scenarios: all, ok }));
	return ok ? 0 : 1;
}

process.exitCode = await command(HELP, readArguments, demo);
