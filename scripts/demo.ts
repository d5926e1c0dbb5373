import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { messageOf } from "../protocol/index.ts";
import { readBroker, readNetwork } from "../services/settings.ts";
import { Cluster } from "./demo/cluster.ts";
import { announcement, details, type Played, table } from "./demo/report.ts";
import { type Scenario, SCENARIOS } from "./demo/scenarios.ts";
import { Stage } from "./demo/stage.ts";

const HELP = `npm run demo -- [options]

Plays what can go wrong between a producer, the coordinator and its consumers, with real processes
that are killed, and looks at what the databases have afterwards. Everything runs in a temporary
folder and on free ports. Exits with 0 only if every scenario ends as its store's guarantee says.

  --only <name>        play this scenario; may be given several times
  --json               tell the progress on stderr, and the result as one line of JSON on stdout
  --transporter <url>  what the processes talk over: nats://…, redis://…; else TCP on this machine
  --discoverer <url>   how they find each other: consul://…, zookeeper://…, eureka://…, etcd3://…,
                       redis://…; needs --transporter
  --broker <url>       what delivers the messages: amqp://…, kafka://…, nats://…, redis://…; else calls
  --help               show this

scenarios: ${SCENARIOS.map(({ name }) => name).join(", ")}`;

const USAGE_ERROR = 2;

function readArguments() {
	const { values } = parseArgs({
		options: {
			only: { type: "string", multiple: true },
			json: { type: "boolean", default: false },
			transporter: { type: "string" },
			discoverer: { type: "string" },
			broker: { type: "string" },
			help: { type: "boolean", default: false },
		},
	});
	const wanted = values.only ?? SCENARIOS.map(({ name }) => name);
	for (const name of wanted) {
		if (!SCENARIOS.some((scenario) => scenario.name === name)) {
			throw new Error(`There is no scenario "${name}"`);
		}
	}
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
		scenarios: SCENARIOS.filter(({ name }) => wanted.includes(name)),
		network: { transporter, discoverer, delivery, namespace: apart ? namespace : "" },
	};
}

async function play(scenario: Scenario, cluster: Cluster): Promise<Played> {
	const stage = new Stage(cluster);
	const start = Date.now();
	let group = "";
	let error: string | null = null;
	try {
		group = await scenario.play(stage);
	} catch (reason) {
		error = messageOf(reason);
	}
	const stored = group === "" ? undefined : await stage.group(group);
	const { name, guarantee, expected } = scenario;
	return {
		name,
		ok: error === null && stage.checks.every((check) => check.held),
		guarantee,
		expected,
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
	tell: (text: string) => void,
): Promise<Played[]> {
	tell(`Starting the processes; databases and logs are in ${cluster.folder}`);
	await cluster.start();
	const all: Played[] = [];
	for (const [place, scenario] of scenarios.entries()) {
		await cluster.spawnMissing();
		tell(announcement(scenario, place + 1, scenarios.length));
		const played = await play(scenario, cluster);
		tell(details(played));
		all.push(played);
		// Whatever it left behind shall not count against the next one.
		if (!played.ok) await cluster.killAll();
	}
	return all;
}

async function main(): Promise<number> {
	let options: ReturnType<typeof readArguments>;
	try {
		options = readArguments();
	} catch (error) {
		console.error(`${messageOf(error)}\n\n${HELP}`);
		return USAGE_ERROR;
	}
	if (options.help) {
		console.log(HELP);
		return 0;
	}
	const tell = options.json ? console.error : console.log;
	const start = Date.now();
	const folder = mkdtempSync(join(tmpdir(), "lottor-demo-"));
	const cluster = new Cluster(folder, options.network);
	const interrupted = () => void cluster.stop().finally(() => process.exit(130));
	process.once("SIGINT", interrupted).once("SIGTERM", interrupted);

	let all: Played[] = [];
	let ok = false;
	try {
		all = await playAll(options.scenarios, cluster, tell);
		ok = all.every((played) => played.ok);
	} catch (error) {
		tell(`The demo could not be played: ${messageOf(error)}`);
	} finally {
		await cluster.stop();
	}
	tell(`\n${table(all)}\n`);
	const seconds = ((Date.now() - start) / 1_000).toFixed(1);
	if (ok) {
		rmSync(folder, { recursive: true });
		tell(`All ${all.length} held, in ${seconds} s.`);
	} else {
		tell(`Not all held, in ${seconds} s. Databases and logs are kept in ${folder}`);
	}
	if (options.json) console.log(JSON.stringify({ scenarios: all, ok }));
	return ok ? 0 : 1;
}

process.exitCode = await main();
