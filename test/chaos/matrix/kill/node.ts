// One of the processes of the kill matrix: `node node.ts <orders as JSON>`.
import { writeSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { type Context, type ServiceSchema, ServiceBroker } from "moleculer";

import { sqliteCoordinatorStore } from "../../../../adapters/coordinator-store/index.ts";
import {
	channelDelivery,
	type Delivery,
	directDelivery,
} from "../../../../adapters/delivery/index.ts";
import {
	type ParticipantStore,
	recordedSqliteStore,
	SqliteParticipantStore,
} from "../../../../adapters/participant-store/index.ts";
import { openSqliteFile, type SqliteTx } from "../../../../adapters/sqlite/index.ts";
import {
	type IncomingMessage,
	type OutgoingMessage,
	ReliableMessage,
	reliableOf,
} from "../../../../mixins/reliable-message/index.ts";
import { LottorError, systemClock, systemRandom } from "../../../../protocol/index.ts";
import { Coordinator } from "../../../../services/coordinator/index.ts";
import { ChaosTcp } from "../../random/transporter.ts";
import { turns } from "../clock.ts";
import { FileBroker } from "../file-broker.ts";
import {
	type Life,
	PLAIN_TARGET,
	tellClaims,
	watchCalls,
	watchCoordinatorStore,
	watchDelivery,
	watchParticipantStore,
	watchPost,
} from "../instrument.ts";
import type { Point } from "../points.ts";
import { ARMED, AT, type Command, COMMITTED, type NodeOrders, type Order, READY } from "./words.ts";

interface Sends {
	stock: { order: Order };
	till: { order: Order };
}

/** How often a process looks for what another has published. */
const BROKER_POLL_MS = 50;
/** Turns of the loop in which a stop that was begun has come to its parts. */
const STOP_TURNS = 50;
const NOTE = { who: "ann", action: "note", result: "ok" };
const INSERT_ORDER = "INSERT INTO orders (grp, plain, resolves) VALUES (?, ?, ?)";
const TABLES = [
	"CREATE TABLE IF NOT EXISTS orders (grp TEXT, plain INTEGER, resolves INTEGER)",
	"CREATE TABLE IF NOT EXISTS effects (message TEXT)",
];

const {
	role,
	folder,
	ports,
	armed,
	broker: overBroker,
} = JSON.parse(process.argv[2] ?? "{}") as NodeOrders;
const points = new Set<Point>(armed);
let stops = false;

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

const delivery: Delivery = overBroker
	? channelDelivery(
			new FileBroker({
				file: join(folder, "broker.db"),
				clock: systemClock,
				connect: (file) => new DatabaseSync(file, { timeout: 5_000 }),
				watch: (post) => watchPost(post, life),
				poll: BROKER_POLL_MS,
			}),
		)
	: directDelivery();

function participant(store: ParticipantStore) {
	return ReliableMessage({
		store: watchParticipantStore(store, life),
		delivery,
		prepareTimeout: "3s",
		keep: "20s",
	});
}

function transactional(name: string): ParticipantStore {
	const options = { clock: systemClock, random: systemRandom };
	return new SqliteParticipantStore(join(folder, `${name}.db`), options);
}

function recorded(name: string): ParticipantStore {
	const options = { clock: systemClock, random: systemRandom };
	return recordedSqliteStore(join(folder, `${name}.db`), options);
}

/** On a connection of its own, apart from any participant store. */
function apart<T>(name: string, use: (db: DatabaseSync) => T): T {
	const db = new DatabaseSync(join(folder, `${name}.db`), { timeout: 5_000 });
	try {
		return use(db);
	} finally {
		db.close();
	}
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

/** A stop that is begun while a claim is on its way back. */
async function stopIfTold(): Promise<void> {
	if (!stops) return;
	stops = false;
	void broker.destroyService(service);
	await turns(STOP_TURNS);
}

function coordinator(): ServiceSchema {
	const store = sqliteCoordinatorStore({ file: join(folder, "lottor.db") });
	// Times that let a short run see all of the protocol.
	return Coordinator({
		store: tellClaims(watchCoordinatorStore(store, life), stopIfTold),
		delivery: watchDelivery(delivery, life),
		checkAfter: "500ms",
		checkMaxDelay: "1s",
		maxChecks: 2,
		askTimeout: "1s",
		callTimeout: "2s",
		lease: "500ms",
		ackTimeout: "700ms",
		askMaxDelay: "1s",
		plainTimeout: "700ms",
		pollInterval: "200ms",
		keepCompleted: "10s",
		keepRolledBack: "10s",
	});
}

/** The recorded producer. */
const bank: ServiceSchema = {
	name: "bank",
	mixins: [participant(recorded("bank"))],
	methods: {
		resolveTransaction({ id }: { id: string }) {
			const sql = "SELECT 1 FROM orders WHERE grp = ? AND resolves = 1";
			const known = apart("bank-rows", (db) => db.prepare(sql).get(id));
			return known ? "committed" : "unknown";
		},
	},
};

/** A target without the mixin. */
const till: ServiceSchema = {
	name: PLAIN_TARGET,
	actions: {
		order(ctx: Context<Order, { lottor: { id: string } }>) {
			const sql = "INSERT INTO effects (message) VALUES (?)";
			apart(PLAIN_TARGET, (db) => db.prepare(sql).run(ctx.meta.lottor.id));
		},
	},
};

function serviceOf(): ServiceSchema {
	if (role === "lottor") return coordinator();
	const messages = { order: { retryPolicy: { retries: 3, delay: 100 }, handler } };
	const schema = {
		name: role,
		mixins: [participant(transactional(role))],
		...(role === "stock" && { messages }),
	};
	return schema;
}

/** Starts a transaction, and, as a caller would, again where it was not prepared. */
async function order(order: Order, fails: boolean): Promise<void> {
	for (;;) {
		try {
			console.log(`${COMMITTED}${await transaction(order, fails)}`);
			return;
		} catch (error) {
			console.log(String(error));
			const notPrepared = ["LOTTOR_NO_COORDINATOR", "LOTTOR_PREPARE_FAILED"];
			if (!(error instanceof LottorError) || !notPrepared.includes(error.type)) return;
		}
	}
}

function transaction(order: Order, fails: boolean): Promise<string> {
	const { recorded: isRecorded = false, plain = false, resolves = false } = order;
	const sends: OutgoingMessage<Sends>[] = [{ target: "stock", type: "order", payload: order }];
	if (plain) sends.push({ target: "till", type: "order", payload: order, deliver: "action" });
	const producer = isRecorded ? broker.getLocalService("bank") : service;
	return reliableOf<Sends, SqliteTx>(producer).transaction(null, sends, (tx) => {
		const row = [tx.group, Number(plain), Number(resolves)] as const;
		if (isRecorded) apart("bank-rows", (db) => db.prepare(INSERT_ORDER).run(...row));
		else tx.run(INSERT_ORDER, ...row);
		if (fails) throw new Error("the work fails");
		return tx.group;
	});
}

async function operate(action: string, ids: readonly string[]): Promise<void> {
	const acts = ids.map((id) => ({ id, by: "ann", payload: {} }));
	const items = action === "audit.add" ? [NOTE] : acts;
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
		case "stop":
			stops = true;
			break;
		case "operate":
			void operate(command.action, command.ids);
	}
}

const told = createInterface({ input: process.stdin });
told.on("line", (line) => obey(JSON.parse(line) as Command));
// The other end is closed when the run ends, however it ends.
told.on("close", () => process.exit());

/** Databases with business rows or effects, by role. */
const FILES = { lottor: [], shop: ["shop", "bank-rows"], stock: ["stock", PLAIN_TARGET] };

for (const name of FILES[role]) await makeTables(name);
const service = broker.createService(serviceOf());
if (role === "shop") broker.createService(bank);
if (role === "stock") broker.createService(till);
await broker.start();
console.log(READY);
