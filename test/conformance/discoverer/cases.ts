import { setTimeout as sleep } from "node:timers/promises";

import { expect } from "@jest/globals";
import type { ServiceBroker } from "moleculer";

import { within } from "../../support/live-clock.ts";
import { addService, INTERVAL, type Peer, REGISTRY_TIMEOUT, seenBy, TIMEOUT } from "./nodes.ts";
import type { Stage } from "./stage.ts";

/** How long the registry is cut off, in seconds. */
const CUT_SECONDS = 60;
/** Half a second of jitter of Moleculer's timer, and some for registries on two busy cores. */
const SLACK = 1_000;
/** Between looks for what has expired, where a registry tells who lives. */
const SWEEP = 1_500;
/** A call takes a few; no call waits for a registry, whose requests have a limit of 3 seconds. */
const ANSWER = 2_000;
/** Moleculer gathers changes of services for so long before it tells them. */
const DEBOUNCE = 1_000;
/** Until the registry is whole again after a fault, by which all are to be back. */
const RECOVERY = 20_000;

/** One case, for one discoverer. What it resolves with is shown in the table. */
export type Case = (stage: Stage) => Promise<string | void>;

const sees = (broker: ServiceBroker, ...ids: string[]) => {
	return ids.every((id) => seenBy(broker).includes(id));
};
const who = (broker: ServiceBroker, service: string) => broker.call<string>(`${service}.who`);

/** The registry has just these; Eureka answers from a cache that is a second old. */
async function recorded(stage: Stage, nodeIDs: readonly string[]): Promise<void> {
	let members: string[] = [];
	await within(5_000, `only ${nodeIDs.join(", ")} are in the registry`, async () => {
		members = await stage.members();
		return members.join() === nodeIDs.join();
	}).catch((error: Error) => {
		throw new Error(`${error.message}; it has ${members.join(", ")}`);
	});
}

/** Two nodes that know each other, B with service `b`. */
async function pair(stage: Stage, registry?: string): Promise<[ServiceBroker, ServiceBroker]> {
	const spec = registry === undefined ? {} : { registry };
	const [a, b] = await Promise.all([
		stage.started("node-a", { ...spec, services: ["a"] }),
		stage.started("node-b", { ...spec, services: ["b"] }),
	]);
	await Promise.all([a.waitForServices("b", RECOVERY, 20), b.waitForServices("a", RECOVERY, 20)]);
	return [a, b];
}

/** Node A here and node B in a process of its own, with service `b`. */
async function pairApart(stage: Stage): Promise<[ServiceBroker, Peer]> {
	const peer = stage.peer("node-b", { services: ["b"] });
	const a = await stage.started("node-a", { services: ["a"] });
	await a.waitForServices("b", RECOVERY, 20);
	return [a, peer];
}

/** Both are in the registry again, serve each other and are found by a third. */
async function wholeAgain(
	stage: Stage,
	url: string,
	[a, b]: readonly ServiceBroker[],
	direct = url,
): Promise<void> {
	const nodes = ["node-a", "node-b"];
	await within(RECOVERY, "both are in the registry again", async () => {
		const members = await stage.members(direct).catch((): string[] => []);
		return nodes.every((id) => members.includes(id));
	});
	await within(RECOVERY, "both see each other", () => {
		return sees(a as ServiceBroker, "node-b") && sees(b as ServiceBroker, "node-a");
	});
	const c = await stage.started("node-c", { registry: url, services: ["c"] });
	await c.waitForServices(["a", "b"], RECOVERY, 20);
	expect([await who(c, "a"), await who(c, "b")]).toEqual(nodes);
	await (a as ServiceBroker).waitForServices("c", RECOVERY, 20);
}

interface Calls {
	readonly calls: number;
	/** Why calls failed. */
	readonly failures: readonly string[];
}

/** Calls between living nodes go on, unless the registry alone tells who lives. */
function callsHeld({ subject }: Stage, { calls, failures }: Calls): string {
	if (!subject.livesByRegistry) expect(failures).toEqual([]);
	if (failures.length === 0) return `${calls} calls`;
	return `limit: ${failures.length} of ${calls} lost`;
}

/** Calls from A to B, again and again, until told to stop. */
function keepCalling(a: ServiceBroker): () => Promise<Calls> {
	const result = { calls: 0, failures: [] as string[] };
	let going = true;
	const callOnce = async () => {
		let ended = false;
		// Without a limit by the wall clock, which also runs while this process does not.
		const call = a.call("b.who", {}, { timeout: 0 }).finally(() => (ended = true));
		await Promise.race([call, within(ANSWER, "b answers", () => ended)]);
	};
	const done = (async () => {
		while (going) {
			result.calls++;
			await callOnce().catch((error: Error) => result.failures.push(error.message));
			await sleep(250);
		}
	})();
	return async () => {
		going = false;
		await done;
		return result;
	};
}

const found: Case = async (stage) => {
	const start = performance.now();
	const [a, b] = await pair(stage);
	const took = Math.round(performance.now() - start);
	expect(await who(a, "b")).toBe("node-b");
	expect(await who(b, "a")).toBe("node-a");
	await recorded(stage, ["node-a", "node-b"]);
	return `${took} ms`;
};

const serviceAdded: Case = async (stage) => {
	const [a, b] = await pair(stage);
	await sleep(500);
	addService(b, "late");
	const limit = DEBOUNCE + 2 * INTERVAL * 1_000 + SLACK;
	const took = await within(limit, "the new service is seen", () => {
		return a.registry.hasService("late", "node-b");
	});
	expect(await who(a, "late")).toBe("node-b");
	return `${took} ms`;
};

const leave: Case = async (stage) => {
	const [a, b] = await pair(stage);
	const left = performance.now();
	const stopped = b.stop();
	await within(1_000, "the node is gone", () => !sees(a, "node-b"));
	const took = Math.round(performance.now() - left);
	await stopped;
	await recorded(stage, ["node-a"]);
	await sleep((TIMEOUT + INTERVAL) * 1_000);
	expect(seenBy(a)).toEqual([]);
	return `${took} ms`;
};

/** How long a node may be taken for alive after its last sign of life. */
const silence = ({ subject }: Stage) => {
	if (subject.livesByRegistry) return (REGISTRY_TIMEOUT + INTERVAL) * 1_000 + SLACK + SWEEP;
	return (TIMEOUT + INTERVAL) * 1_000 + SLACK;
};

const killed: Case = async (stage) => {
	const [a, peer] = await pairApart(stage);
	peer.process.kill("SIGKILL");
	const took = await within(silence(stage), "the node is gone", () => !sees(a, "node-b"));
	await sleep(2_000);
	expect(seenBy(a)).toEqual([]);
	return `${took} ms`;
};

const downAtStart: Case = async (stage) => {
	const { proxy, url } = await stage.proxy();
	await proxy.close();
	const nodes = ["node-a", "node-b"].map((nodeID) =>
		stage.node(nodeID, { registry: url, services: [nodeID] }),
	) as [ServiceBroker, ServiceBroker];
	let up = 0;
	const starts = nodes.map((broker) => broker.start().then(() => up++));
	await sleep(3_000);
	expect(up).toBe(0);
	await proxy.open();
	const took = await within(RECOVERY, "both have joined", () => up === 2);
	await Promise.all(starts);
	await nodes[0].waitForServices("node-b", RECOVERY, 20);
	expect(await who(nodes[0], "node-b")).toBe("node-b");
	return `${took} ms`;
};

const restarted: Case = async (stage) => {
	const server = await stage.ownRegistry();
	const [a, b] = await pair(stage, server.url);
	const stopCalling = keepCalling(a);
	await server.kill();
	await sleep((TIMEOUT + 2 * INTERVAL) * 1_000);
	await server.start();
	await wholeAgain(stage, server.url, [a, b]);
	return callsHeld(stage, await stopCalling());
};

const cutOff: Case = async (stage) => {
	const { proxy, url } = await stage.proxy();
	const [a, b] = await pair(stage, url);
	const stopCalling = keepCalling(a);
	proxy.blackhole();
	await sleep((CUT_SECONDS / 2) * 1_000);
	addService(b, "during");
	if (!stage.subject.livesByRegistry) {
		await within(10_000, "a service added meanwhile is seen", () => {
			return a.registry.hasService("during", "node-b");
		});
	}
	await sleep((CUT_SECONDS / 2) * 1_000);
	proxy.mend();
	await wholeAgain(stage, url, [a, b], stage.servers.registry);
	return callsHeld(stage, await stopCalling());
};

const wiped: Case = async (stage) => {
	const server = await stage.ownRegistry();
	const [a, b] = await pair(stage, server.url);
	const stopCalling = keepCalling(a);
	await sleep(1_000);
	await stage.subject.wipe(server.url);
	await wholeAgain(stage, server.url, [a, b]);
	return callsHeld(stage, await stopCalling());
};

const paused: Case = async (stage) => {
	const [a, peer] = await pairApart(stage);
	peer.process.kill("SIGSTOP");
	await within(silence(stage), "the paused node is gone", () => !sees(a, "node-b"));
	await sleep(8_000);
	expect(seenBy(a)).toEqual([]);
	peer.process.kill("SIGCONT");
	const took = await within(10_000, "the node is back", () => {
		return a.registry.hasService("b", "node-b");
	});
	expect(await who(a, "b")).toBe("node-b");
	await within(10_000, "the node sees the other", async () => {
		return (await a.call<string[]>("b.sees")).includes("node-a");
	});
	await within(RECOVERY, "both are in the registry", async () => {
		return (await stage.members()).join() === "node-a,node-b";
	});
	return `${took} ms`;
};

const duplicate: Case = async (stage) => {
	const [a] = await pair(stage);
	const second = stage.peer("node-b", { services: ["impostor"] });
	const late = sleep(40_000, "still running" as const, { ref: false });
	expect(await Promise.race([second.exited, late])).toBe(1);
	expect(second.output()).toMatch(/NodeID 'node-b' belongs to another living node/);
	await sleep(INTERVAL * 2_000);
	expect(await who(a, "b")).toBe("node-b");
	expect(a.registry.hasService("impostor", "node-b")).toBe(false);
};

const crowd: Case = async (stage) => {
	const ids = Array.from({ length: 20 }, (_, place) => `node-${String(place).padStart(2, "0")}`);
	const brokers = new Map<string, ServiceBroker>();
	/** Moleculer's own discoverers cannot be started again: a new broker comes, as of a new process. */
	const join = (id: string): ServiceBroker => {
		const former = stage.subject.livesByRegistry ? undefined : brokers.get(id);
		const broker = former ?? stage.node(id, { services: [id] });
		brokers.set(id, broker);
		return broker;
	};
	const up = new Set<string>();
	const seed = Date.now() % 100_000;
	let state = seed;
	const random = (below: number) => {
		state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
		return Math.floor((state / 2_147_483_648) * below);
	};
	// Each node does one thing after another; twenty of them do so at the same time.
	await Promise.all(
		ids.map(async (id) => {
			await sleep(random(1_500));
			for (let turn = 0; turn < 3; turn++) {
				const broker = join(id);
				await broker.start();
				up.add(id);
				await sleep(random(1_500));
				if (turn === 2 && random(2) === 0) return;
				await broker.stop();
				up.delete(id);
				await sleep(random(700));
			}
		}),
	);
	const left = [...up].sort();
	const seeEachOther = () =>
		left.every((id) => {
			const others = left.filter((other) => other !== id);
			return seenBy(brokers.get(id) as ServiceBroker).join() === others.join();
		});
	await within(
		silence(stage) + INTERVAL * 1_000,
		`${left.join()} see just each other (seed ${seed})`,
		seeEachOther,
	);
	await sleep((TIMEOUT + INTERVAL) * 1_000);
	await within(silence(stage), `${left.join()} still see just each other`, seeEachOther);
	await recorded(stage, left);
	return `${left.length} left`;
};

const namespaces: Case = async (stage) => {
	const other = `${stage.namespace}-other`;
	const [here, there] = await Promise.all([
		stage.started("node-a", { services: ["here"] }),
		// The same nodeID: it is not taken, since the namespace is another.
		stage.started("node-a", { services: ["there"], namespace: other }),
		stage.started("node-b", { services: ["b"], namespace: other }),
	]);
	await there.waitForServices("b", RECOVERY, 20);
	await sleep(INTERVAL * 2_500);
	expect(seenBy(here)).toEqual([]);
	expect(seenBy(there)).toEqual(["node-b"]);
	await recorded(stage, ["node-a"]);
};

const refused: Case = async (stage) => {
	const right = "S3cret-right-0123";
	const wrong = "S3cret-wrong-0123";
	const { subject } = stage;
	const server = await stage.ownRegistry(right);
	// ZooKeeper checks a password only against what somebody has protected with it.
	const registry = subject.withSecret(server.url, right);
	await stage.started("node-a", { registry, services: ["a"] });
	const peer = stage.peer("node-b", { registry: subject.withSecret(server.url, wrong) });
	await within(2 * RECOVERY, `node-b says why: ${peer.output()}`, () => {
		return subject.refusal.test(peer.output());
	});
	expect(peer.output()).not.toContain(wrong);
	expect(peer.output()).not.toContain("PEER STARTED");
};

const names: Case = async (stage) => {
	const { unfitFor = /(?!)/g } = stage.subject;
	const clean = (name: string) => name.replaceAll(unfitFor, "_");
	const nodeA = clean("knoten a/1.ä");
	const nodeB = clean("節點 b/2.é~%");
	const service = clean("dienst ü/ß.服务");
	// NATS has no room for such names in its subjects.
	const transporter = stage.servers.redis;
	const a = await stage.started(nodeA, { transporter });
	const b = await stage.started(nodeB, { transporter, services: [service] });
	await a.waitForServices([service], RECOVERY, 20);
	expect(await who(a, service)).toBe(nodeB);
	await recorded(stage, [nodeA, nodeB].sort());
	await b.stop();
	await within(1_000, "the node is gone", () => !sees(a, nodeB));
	await recorded(stage, [nodeA]);
};

/** All cases, in their order. */
export const CASES = {
	"two nodes find each other": found,
	"service added later": serviceAdded,
	"graceful leave": leave,
	"killed (SIGKILL)": killed,
	"registry down at start": downAtStart,
	"registry restarted": restarted,
	"registry cut off for a minute": cutOff,
	"registry wiped clean": wiped,
	"node paused and resumed": paused,
	"duplicate nodeID refused": duplicate,
	"20 nodes come and go": crowd,
	"namespaces keep apart": namespaces,
	"wrong token or password": refused,
	"names of all characters": names,
} as const satisfies Record<string, Case>;

export type CaseName = keyof typeof CASES;

/** So many nodes in one process that discoverers must not play it at the same time. */
export const CROWD: CaseName = "20 nodes come and go";

/** Cases that take long, for which reason they begin first. */
export const LONG: readonly CaseName[] = [
	"registry cut off for a minute",
	CROWD,
	"registry restarted",
	"registry wiped clean",
	"wrong token or password",
];
