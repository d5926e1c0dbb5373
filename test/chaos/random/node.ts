// One of the processes of a chaos run: `node node.ts <orders as JSON>`.
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { type Service, ServiceBroker } from "moleculer";

import { Dice } from "./dice.ts";
import { Disk } from "./disk.ts";
import { consumer, coordinator, messages, order, producer } from "./services.ts";
import { ChaosTcp } from "./transporter.ts";
import {
	type CallerSaw,
	type Command,
	CONSUMERS,
	COORDINATORS,
	type NodeOrders,
	PRODUCERS,
	READY,
	SERVICES,
} from "./words.ts";

/** Transactions of this process that are under way at once. */
const CALLERS = 4;

const orders = JSON.parse(process.argv[2] ?? "{}") as NodeOrders;
const { name, start, folder, guarantee, delivery, store, seed, ports } = orders;
const dice = new Dice(`${seed} ${start}`);
const disk = new Disk();
const around = { start, folder, guarantee, delivery, store, dice, disk };

const broker = new ServiceBroker({
	nodeID: name,
	transporter: new ChaosTcp(ports),
	logger: {
		type: "Console",
		options: { colors: false, formatter: "{timestamp} {level} {mod}: {msg}" },
	},
	heartbeatInterval: 1,
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

/** Makes transactions while there is to be load, and notes what each came to. */
async function call(): Promise<void> {
	for (;;) {
		await sleep(dice.between(20, 250));
		if (!loaded) continue;
		const kind = dice.weighted({ plain: 80, throws: 12, slow: 3 });
		const saw = await order(dice.pick(producers), { messages: messages(dice), kind }).then(
			(group): CallerSaw => ({ group, result: "ok" }),
			(error: { type?: string; data?: { group?: string } }): CallerSaw => ({
				group: error.data?.group ?? "",
				result: error.type ?? "ERROR",
			}),
		);
		appendFileSync(join(folder, `${name}.results`), `${JSON.stringify(saw)}\n`);
	}
}

function obey(command: Command): void {
	switch (command.do) {
		case "load":
			loaded = command.on;
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
