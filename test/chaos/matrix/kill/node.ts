// One of the processes of the kill matrix: `node node.ts <orders as JSON>`.
import { writeSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { type Context, type ServiceSchema, ServiceBroker } from "moleculer";

import { sqliteCoordinatorStore } from "../../../../adapters/coordinator-store/index.ts";
import { directDelivery } from "../../../../adapters/delivery/index.ts";
import { SqliteParticipantStore } from "../../../../adapters/participant-store/index.ts";
import { openSqliteFile, type SqliteTx } from "../../../../adapters/sqlite/index.ts";
import {
	type IncomingMessage,
	ReliableMessage,
	reliableOf,
} from "../../../../mixins/reliable-message/index.ts";
import { LottorError, systemClock, systemRandom } from "../../../../protocol/index.ts";
import { Coordinator } from "../../../../services/coordinator/index.ts";
import { ChaosTcp } from "../../random/transporter.ts";
import {
	type Life,
	watchCalls,
	watchCoordinatorStore,
	watchDelivery,
	watchParticipantStore,
} from "../instrument.ts";
import type { Point } from "../points.ts";
import { ARMED, AT, type Command, COMMITTED, type NodeOrders, type Order, READY } from "./words.ts";

interface Sends {
	stock: { order: Order };
}

const TABLES = [
	"CREATE TABLE IF NOT EXISTS orders (grp TEXT)",
	"CREATE TABLE IF NOT EXISTS effects (message TEXT)",
];

const { role, folder, ports, armed } = JSON.parse(process.argv[2] ?? "{}") as NodeOrders;
const points = new Set<Point>(armed);

/** Stops the process where it stands: nothing of it goes on until it is killed. */
function stop(point: Point): void {
	writeSync(1, `${AT}${point}\n`);
	Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

const life: Life = {
	dead: false,
	stirs: 0,
	reach: (point) => {
		if (points.has(point)) stop(point);
	},
};

const broker = new ServiceBroker({
	nodeID: role,
	transporter: new ChaosTcp(ports),
	logger: {
		type: "Console",
		options: { colors: false, formatter: "{timestamp} {level} {mod}: {msg}" },
	},
	heartbeatInterval: 1,
	requestTimeout: 5_000,
	middlewares: [watchCalls(life)],
});

function participant(name: string) {
	const options = { clock: systemClock, random: systemRandom };
	const store = new SqliteParticipantStore(join(folder, `${name}.db`), options);
	return ReliableMessage({ store: watchParticipantStore(store, life), prepareTimeout: "3s" });
}

async function makeTables(name: string): Promise<void> {
	const file = await openSqliteFile(join(folder, `${name}.db`));
	await file.write((tx) => {
		for (const statement of TABLES) tx.run(statement);
	});
	await file.close();
}

async function handler(ctx: Context<Order>, tx: SqliteTx): Promise<void> {
	const { id, attempt } = ctx.locals["message"] as IncomingMessage;
	const { failures = 0, broken = false, slow = 0 } = ctx.params;
	tx.run("INSERT INTO effects (message) VALUES (?)", id);
	if (slow > 0) await sleep(slow);
	if (broken) {
		const error = new LottorError("LOTTOR_HANDLER_FAILED", "the payload is wrong");
		error.retryable = false;
		throw error;
	}
	if (attempt <= failures) throw new Error(`attempt ${attempt} fails`);
}

function serviceOf(): ServiceSchema {
	if (role === "lottor") {
		// Times that let a short run see all of the protocol.
		return Coordinator({
			store: watchCoordinatorStore(
				sqliteCoordinatorStore({ file: join(folder, "lottor.db") }),
				life,
			),
			delivery: watchDelivery(directDelivery(), life),
			checkAfter: "500ms",
			checkMaxDelay: "1s",
			askTimeout: "1s",
			callTimeout: "2s",
			lease: "500ms",
			ackTimeout: "700ms",
			askMaxDelay: "1s",
			pollInterval: "200ms",
		});
	}
	const messages = { order: { retryPolicy: { retries: 3, delay: 100 }, handler } };
	const schema = {
		name: role,
		mixins: [participant(role)],
		...(role === "stock" && { messages }),
	};
	return schema;
}

/** Starts a transaction, and, as a caller would, again where it was not prepared. */
async function order(order: Order, fails: boolean): Promise<void> {
	const sends = [{ target: "stock", type: "order", payload: order }] as const;
	for (;;) {
		try {
			const reliable = reliableOf<Sends, SqliteTx>(service);
			const group = await reliable.transaction(null, [...sends], (tx) => {
				tx.run("INSERT INTO orders (grp) VALUES (?)", tx.group);
				if (fails) throw new Error("the work fails");
				return tx.group;
			});
			console.log(`${COMMITTED}${group}`);
			return;
		} catch (error) {
			console.log(String(error));
			const notPrepared = ["LOTTOR_NO_COORDINATOR", "LOTTOR_PREPARE_FAILED"];
			if (!(error instanceof LottorError) || !notPrepared.includes(error.type)) return;
		}
	}
}

async function operate(action: string, ids: readonly string[]): Promise<void> {
	const items = ids.map((id) => ({ id, by: "ann", payload: {} }));
	try {
		await broker.call(`lottor.${action}`, { items });
	} catch (error) {
		console.log(String(error));
	}
}

function obey(command: Command): void {
	switch (command.do) {
		case "arm":
			points.clear();
			for (const point of command.points) points.add(point);
			console.log(ARMED);
			break;
		case "order":
			void order(command.order, command.fails);
			break;
		case "operate":
			void operate(command.action, command.ids);
	}
}

const told = createInterface({ input: process.stdin });
told.on("line", (line) => obey(JSON.parse(line) as Command));
// The other end is closed when the run ends, however it ends.
told.on("close", () => process.exit());

if (role !== "lottor") await makeTables(role);
const service = broker.createService(serviceOf());
await broker.start();
console.log(READY);
