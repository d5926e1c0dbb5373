import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { type Guarantee, GUARANTEES } from "../../../protocol/index.ts";
import type { ServerKind } from "../../../scripts/servers/kind.ts";
import { check } from "../../support/check.ts";
import { CoordinatorDatabase } from "./coordinator-database.ts";
import { type CoordinatorData, CoordinatorFile } from "./coordinator-file.ts";
import { compare, type Verdict } from "./ledger.ts";
import { Network } from "./network.ts";
import { neverMissing, plan } from "./plan.ts";
import { Processes } from "./processes.ts";
import { Recovery } from "./recovery.ts";
import { BROKERS, ChaosServer, STORES } from "./servers.ts";
import { settled } from "./settled.ts";
import { type Played, storm } from "./storm.ts";
import { HEARTBEAT_TIMEOUT_S, type Peer, type ServerName, SQLITE } from "./words.ts";

const HELP = `npm run chaos -- [options]

Runs two coordinators, three producers and three consumers as processes, under load, and does to
them what goes wrong in real life: kills, pauses, broken connections, full disks. Then all is left
in peace, and the databases are compared. Exits with 0 only if all is as the guarantee promises.

  --seconds <n>    how long things go wrong (default 60)
  --seed <text>    what the schedule is made from (default: made up, and told)
  --guarantee <g>  transactional (default) or recorded: the participants' stores
  --delivery <d>   direct (default), redis, nats, rabbitmq or kafka: a broker of the run's own
  --store <s>      sqlite (default), or mongodb: the coordinators' store, a server of the run's own
  --keep           keep databases and logs even if all is well
  --json           print the result as one line of JSON on stdout
  --help           show this`;

const DIRECT = "direct";
/** How long the rest may take once nothing goes wrong any more. */
const SETTLE_MS = 90_000;
const RECOVERY_BAR_MS = 15_000;
const PROGRESS_MS = 5_000;
const SHOWN_FINDINGS = 30;

interface Options {
	readonly seconds: number;
	readonly seed: string;
	readonly guarantee: Guarantee;
	readonly delivery: string;
	readonly store: string;
	readonly keep: boolean;
	readonly json: boolean;
	readonly help: boolean;
}

function readOptions(): Options {
	const { values } = parseArgs({
		options: {
			seconds: { type: "string", default: "60" },
			seed: { type: "string", default: String(Date.now() % 1_000_000) },
			guarantee: { type: "string", default: "transactional" },
			delivery: { type: "string", default: DIRECT },
			store: { type: "string", default: SQLITE },
			keep: { type: "boolean", default: false },
			json: { type: "boolean", default: false },
			help: { type: "boolean", default: false },
		},
	});
	const seconds = Number(values.seconds);
	if (!(seconds >= 1)) throw new Error("--seconds must be a number of 1 or more");
	const guarantee = GUARANTEES.find((known) => known === values.guarantee);
	if (guarantee !== "transactional" && guarantee !== "recorded") {
		throw new Error("--guarantee must be transactional or recorded");
	}
	mustBeOneOf(values.delivery, "delivery", [DIRECT, ...BROKERS.map(({ name }) => name)]);
	mustBeOneOf(values.store, "store", [SQLITE, ...STORES.map(({ name }) => name)]);
	return { ...values, seconds, guarantee };
}

function mustBeOneOf(value: string, option: string, known: readonly string[]): void {
	if (!known.includes(value)) throw new Error(`--${option} must be one of ${known.join()}`);
}

/** Starts the server of this name; undefined for what needs none. */
async function serverOf(kinds: readonly ServerKind[], name: string) {
	const kind = kinds.find((one) => one.name === name);
	return kind && (await ChaosServer.start(kind));
}

interface Outcome extends Verdict, Played {
	/** Processes that were killed. */
	readonly crashes: number;
	readonly recovery: readonly number[];
	readonly misbehaviour: readonly string[];
	/** Faults that every such run has, and that struck nobody. */
	readonly missing: readonly string[];
}

async function run(
	options: Options,
	folder: string,
	tell: (text: string) => void,
): Promise<Outcome> {
	const { seconds, seed, guarantee } = options;
	const broker = await serverOf(BROKERS, options.delivery);
	const store = await serverOf(STORES, options.store);
	const servers = { ...(broker && { broker }), ...(store && { store }) };
	const names = Object.keys(servers) as ServerName[];
	const network = new Network<Peer>();
	for (const name of names) network.listens(name, servers[name]?.port);
	const processes = new Processes({
		folder,
		guarantee,
		delivery: broker?.url ?? DIRECT,
		store: store?.url ?? SQLITE,
		seed,
		network,
		servers: names,
		heartbeatTimeout: HEARTBEAT_TIMEOUT_S,
		tell,
	});
	const clear = async () => {
		await processes.clear();
		await Promise.all([broker?.dispose(), store?.dispose()]);
	};
	const interrupted = () => void clear().finally(() => process.exit(130));
	process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
	let data: CoordinatorData | undefined;
	let progress: NodeJS.Timeout | undefined;
	try {
		await processes.start();
		const stored = (data = store
			? new CoordinatorDatabase(store.url)
			: new CoordinatorFile(folder));
		const recovery = new Recovery(processes, stored);
		const start = Date.now();
		const progressed = async () => {
			const states = JSON.stringify(await stored.states());
			tell(`${((Date.now() - start) / 1_000).toFixed(1)} s: ${states}`);
		};
		progress = setInterval(() => {
			progressed().catch(() => tell("The store can't be asked how far it is"));
		}, PROGRESS_MS);
		processes.load(true);
		const played = await storm(plan(seed, seconds, guarantee, names), seconds * 1_000, {
			processes,
			network,
			servers,
			killed: (node) => recovery.killed(node),
			tell,
		});
		processes.load(false);
		tell("Nothing goes wrong any more; waiting for the rest");
		const quiet = await settled(stored, SETTLE_MS);
		const times = await recovery.stop();
		tell(quiet ? "All is quiet; ending the processes" : "It does not get quiet");
		await processes.stop();
		const { crashes, harmed, misbehaviour } = processes;
		const verdict = await compare(folder, harmed, stored);
		const missing = neverMissing(names).filter((kind) => played.faults[kind] === undefined);
		return { ...played, ...verdict, crashes, recovery: times, misbehaviour, missing };
	} finally {
		clearInterval(progress);
		await data?.close();
		await clear();
		network.close();
		process.off("SIGINT", interrupted).off("SIGTERM", interrupted);
	}
}

/** Whether all is as PROTOCOL, section 1, promises. */
function isOk(outcome: Outcome, guarantee: Guarantee): boolean {
	const { lost, phantom, doubles, unexplained, inDoubt, unfinished } = outcome;
	const { recovery, misbehaviour, missing } = outcome;
	const sound = lost + phantom + unexplained + unfinished + misbehaviour.length === 0;
	if (missing.length > 0 || outcome.transactions === 0) return false;
	const inTime = recovery.every((ms) => ms <= RECOVERY_BAR_MS);
	return sound && inTime && (guarantee === "recorded" || doubles + inDoubt === 0);
}

async function chaos(options: Options) {
	const tell = console.error;
	const { seed, seconds, guarantee, delivery, store } = options;
	const folder = mkdtempSync(join(tmpdir(), "lottor-chaos-"));
	tell(
		`Seed ${seed}, ${seconds} s, ${guarantee} stores, store ${store}, delivery ${delivery}, in ${folder}`,
	);
	let ok = false;
	try {
		const outcome = await run(options, folder, tell);
		const { findings, misbehaviour, missing } = outcome;
		if (missing.length > 0) tell(`Struck nobody: ${missing.join()}`);
		for (const text of [...misbehaviour, ...findings].slice(0, SHOWN_FINDINGS)) tell(text);
		ok = isOk(outcome, guarantee);
		return resultOf(options, outcome, ok);
	} finally {
		if (ok && !options.keep) rmSync(folder, { recursive: true });
		else tell(`Databases and logs are kept in ${folder}`);
	}
}

function resultOf(
	{ seed, seconds, guarantee, store, delivery }: Options,
	outcome: Outcome,
	ok: boolean,
) {
	const { transactions, faults, points, lost, phantom, doubles, inDoubt, unfinished } = outcome;
	const { recovery, groups, effects, misbehaviour } = outcome;
	return {
		seed,
		seconds,
		guarantee,
		store,
		delivery,
		transactions,
		groups,
		effects,
		faults,
		points,
		crashes: outcome.crashes,
		lost,
		phantom,
		doubles,
		unexplained: outcome.unexplained,
		inDoubt,
		unfinished,
		misbehaviour: misbehaviour.length,
		recovery: {
			p50_ms: recovery[Math.floor((recovery.length - 1) / 2)] ?? 0,
			max_ms: recovery.at(-1) ?? 0,
		},
		ok,
	};
}

process.exitCode = await check(HELP, readOptions, chaos);
