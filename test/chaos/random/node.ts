// One of the processes of a chaos run: `node node.ts <orders as JSON>`.
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { type Service, ServiceBroker } from "moleculer";

import { Calm, Dice } from "./dice.ts";
import { Disk } from "./disk.ts";
import { consumer, coordinator, messages, order, producer } from "./services.ts";
import { deliveryOver, storeOver } from "./servers-over.ts";
import { ChaosTcp } from "./transporter.ts";
import {
	type CallerSaw,
	type Command,
	CONSUMERS,
	COORDINATORS,
	FIGURES,
	type Figures,
	type NodeOrders,
	PRODUCERS,
	READY,
	SERVICES,
} from "./words.ts";

/** Transactions of this process that are under way at once. */
const CALLERS = 4;
/** How often what is due of an offered rate is begun. */
const OFFER_MS = 20;

const orders = JSON.parse(process.argv[2] ?? "{}") as NodeOrders;
const { name, start, folder, guarantee, delivery, store, seed, ports, servers } = orders;
const { calm, coordinator: times, heartbeatTimeout, prepareTimeout } = orders;
const dice = new (calm ? Calm : Dice)(`${seed} ${start}`);
const disk = new Disk();
const counts = { begun: 0, results: {} as Record<string, number>, effects: 0 };
const effected = () => void counts.effects++;
const around = {
	...{ start, folder, guarantee, calm, dice, disk, effected },
	delivery: deliveryOver(delivery, servers.broker),
	store: storeOver(store, servers.store),
	coordinator: times,
	...(prepareTimeout !== undefined && { prepareTimeout }),
};

const broker = new ServiceBroker({
	nodeID: name,
	transporter: new ChaosTcp(ports),
	logger: {
		type: "Console",
		options: { colors: false, formatter: "{timestamp} {level} {mod}: {msg}" },
	},
	heartbeatInterval: 1,
	...(heartbeatTimeout !== undefined && { heartbeatTimeout }),
	requestTimeout: 5_000,
});

const producers: Service[] = [];
if (COORDINATORS.includes(name)) broker.createService(coordinator(around));
for (const service of SERVICES[name] ?? []) {
	if (CONSUMERS.includes(service)) broker.createService(consumer(service, around));
	if (PRODUCERS.includes(service))
		producers.push(broker.createService(producer(service, around)));
}

let loaded = false;
let pressing = 0;
let offered: NodeJS.Timeout | undefined;

/** Makes a transaction, and notes what it came to. */
async function transact(): Promise<void> {
	const kind = calm ? "plain" : dice.weighted({ plain: 80, throws: 12, slow: 3 });
	counts.begun++;
	const saw = await order(dice.pick(producers), { messages: messages(dice), kind }).then(
		(group): CallerSaw => ({ group, result: "ok" }),
		(error: { type?: string; data?: { group?: string } }): CallerSaw => ({
			group: error.data?.group ?? "",
			result: error.type ?? "ERROR",
		}),
	);
	counts.results[saw.result] = (counts.results[saw.result] ?? 0) + 1;
	appendFileSync(join(folder, `${name}.results`), `${JSON.stringify(saw)}\n`);
}

/** Makes transactions while there is to be load. */
async function call(): Promise<void> {
	for (;;) {
		await sleep(dice.between(20, 250));
		if (loaded) await transact();
	}
}

/** Makes one transaction after another, as one of so many callers. */
async function press(caller: number): Promise<void> {
	while (caller < pressing) await transact();
}

function offer(perSecond: number): void {
	clearInterval(offered);
	if (perSecond === 0) return;
	const since = performance.now();
	let begun = 0;
	offered = setInterval(() => {
		const due = ((performance.now() - since) * perSecond) / 1_000;
		for (; begun < due; begun++) void transact();
	}, OFFER_MS);
}

function figures(collect: boolean): Figures {
	if (collect) globalThis.gc?.();
	const { rss, heapUsed } = process.memoryUsage();
	return { ...counts, rss, heap: heapUsed };
}

function obey(command: Command): void {
	switch (command.do) {
		case "load":
			loaded = command.on;
			break;
		case "press": {
			const before = pressing;
			pressing = command.callers;
			for (let caller = before; caller < pressing; caller++) void press(caller);
			break;
		}
		case "offer":
			offer(command.perSecond);
			break;
		case "tell":
			console.log(FIGURES + JSON.stringify(figures(command.collect)));
			break;
		case "full":
			disk.full(command.on);
			break;
		case "ioError":
			disk.failCommit(command.after);
	}
}

const told = createInterface({ input: process.stdin });
told.on("line", (line) => obey(JSON.parse(line) as Command));
// The other end is closed when the run ends, however it ends.
told.on("close", () => process.exit());

await broker.start();
console.log(READY);
if (producers.length > 0) for (let i = 0; i < CALLERS; i++) void call();
