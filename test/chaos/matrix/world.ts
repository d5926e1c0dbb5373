import { cpSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type Service, ServiceBroker, type ServiceSchema } from "moleculer";
import {
	type CoordinatorStore,
	sqliteCoordinatorStore,
} from "../../../adapters/coordinator-store/index.ts";
import { directDelivery } from "../../../adapters/delivery/index.ts";
import {
	type ParticipantStore,
	recordedSqliteStore,
	SqliteParticipantStore,
} from "../../../adapters/participant-store/index.ts";
import type { SqliteTx } from "../../../adapters/sqlite/index.ts";
import {
	type IncomingMessage,
	type OutgoingMessage,
	ReliableMessage,
	reliableOf,
} from "../../../mixins/reliable-message/index.ts";
import { type GroupRecord, LottorError, type Random } from "../../../protocol/index.ts";
import { Coordinator } from "../../../services/coordinator/index.ts";
import { seededRandom, SteppedClock } from "./clock.ts";
import { type Life, watchCalls, watchDelivery, watchParticipantStore } from "./instrument.ts";
import { watchCoordinatorStore } from "./instrument.ts";
import type { Point } from "./points.ts";

/** What a message tells its handler to do. */
export interface Order {
	/** Attempts that fail before one succeeds. @default 0 */
	readonly failures?: number;
	/** Fails for good, whatever the attempt, until the payload is edited. @default false */
	readonly broken?: boolean;
}

export interface Sends {
	stock: { order: Order };
	mail: { order: Order };
}

/** Who can start a transaction: on a transactional store, or on a recorded one. */
export type ProducerName = "shop" | "bank";

const ROWS = "CREATE TABLE IF NOT EXISTS orders (grp TEXT)";
const EFFECTS = "CREATE TABLE IF NOT EXISTS effects (message TEXT, revision INTEGER)";
/** Turns of the loop without a call after which nothing more comes by itself. */
const QUIET_TURNS = 8;

export interface WorldOptions {
	readonly folder: string;
	/** Milliseconds since 1970. */
	readonly now: number;
	readonly seed: number;
	/** Called at each fault point. */
	readonly reached: (point: Point, world: World) => void;
	/** The recorded producer can tell how its works ended by its own rows. @default false */
	readonly resolves?: boolean;
}

/** A whole embedded Lottor as one process start: coordinator, two producers, two consumers. */
export class World {
	readonly clock: SteppedClock;
	readonly life: Life & { dead: boolean };
	readonly broker: ServiceBroker;
	readonly #folder: string;
	readonly #store: CoordinatorStore;
	readonly #random: Random;
	readonly #connections: DatabaseSync[] = [];
	readonly #producers = new Map<ProducerName, Service>();

	private constructor(options: WorldOptions) {
		const { reached } = options;
		this.#folder = options.folder;
		this.clock = new SteppedClock(options.now);
		this.#random = seededRandom(options.seed);
		this.life = { dead: false, stirs: 0, reach: (point) => reached(point, this) };
		this.broker = new ServiceBroker({
			nodeID: "node",
			logger: false,
			skipProcessEventRegistration: true,
			middlewares: [watchCalls(this.life)],
		});
		this.#store = this.#createServices(options.resolves === true);
	}

	/** Starts it on the files in the folder, which are made where they are missing. */
	static async start(options: WorldOptions): Promise<World> {
		mkdirSync(options.folder, { recursive: true });
		prepareTables(options.folder);
		const world = new World(options);
		await world.during(world.broker.start());
		await world.settle();
		return world;
	}

	/** Starts a transaction, as a caller would. */
	transaction(by: ProducerName, orders: Partial<Record<keyof Sends, Order>>, fail: boolean) {
		const producer = this.#producers.get(by);
		if (!producer) throw new Error(`no producer ${by}`);
		const messages = Object.entries(orders).map(([target, payload]) => ({
			target,
			type: "order",
			payload,
		})) as OutgoingMessage<Sends>[];
		return reliableOf<Sends, SqliteTx>(producer).transaction(null, messages, (tx) => {
			if (by === "shop") tx.run("INSERT INTO orders (grp) VALUES (?)", tx.group);
			// What a recorded work has done before it fails, nobody undoes.
			if (fail) throw new Error("the work fails");
			if (by === "bank") this.#insertApart(tx.group);
			return tx.group;
		});
	}

	/** Calls an action, as a person would. */
	call<T>(action: string, params: object): Promise<T> {
		return this.broker.call<T, object>(action, params);
	}

	/** A store of each contract, as the services have them. */
	get stores(): { readonly coordinator: object; readonly participant: object } {
		const participant = new SqliteParticipantStore(this.#file("unused"), {
			clock: this.clock,
			random: this.#random,
		});
		return { coordinator: this.#store, participant };
	}

	/** What the coordinator store has. */
	async groups(): Promise<readonly GroupRecord[]> {
		return (await this.#store.list({}, { limit: 100 })).items;
	}

	/** Lets everything run that needs no time. */
	async settle(): Promise<void> {
		let seen = -1;
		for (let turns = 0; turns < QUIET_TURNS && !this.life.dead; turns++) {
			if (seen !== this.life.stirs) turns = 0;
			seen = this.life.stirs;
			await new Promise((resolve) => setImmediate(resolve));
		}
	}

	/** Moves time to the next timer, and lets everything run that follows from it. */
	async step(): Promise<void> {
		if (!this.clock.step()) throw new Error("nothing is planned any more");
		await this.settle();
	}

	/** Waits for the promise while time goes on; for ever when the process dies meanwhile. */
	async during<T>(promise: Promise<T>): Promise<T> {
		let ended = false;
		const end = () => (ended = true);
		promise.then(end, end);
		await this.settle();
		while (!ended && !this.life.dead) await this.step();
		return this.life.dead ? new Promise(() => undefined) : promise;
	}

	/** Copies the files as a crash at this moment would leave them. */
	snapshot(folder: string): void {
		mkdirSync(folder, { recursive: true });
		for (const file of readdirSync(this.#folder)) {
			if (!file.endsWith("-shm")) cpSync(join(this.#folder, file), join(folder, file));
		}
	}

	/** Ends the process without any of its goodbyes. */
	kill(): void {
		this.life.dead = true;
		this.clock.stop();
	}

	/** Gives the files back, once the process is dead. */
	dispose(): void {
		this.kill();
		for (const db of this.#connections) if (db.isOpen) db.close();
	}

	#createServices(resolves: boolean): CoordinatorStore {
		const { clock } = this;
		const surroundings = { clock, random: this.#random };
		const store = sqliteCoordinatorStore({
			file: this.#file("lottor"),
			...surroundings,
			connect: (file, timeout) => this.#connect(file, timeout),
		});
		this.broker.createService(
			Coordinator({
				store: watchCoordinatorStore(store, this.life),
				delivery: watchDelivery(directDelivery(), this.life),
				pollInterval: "20s",
				...surroundings,
			}),
		);
		const connect = (file: string) => this.#connect(file, 10);
		const transactional = (name: string) =>
			new SqliteParticipantStore(this.#file(name), { ...surroundings, connect });
		const bank = recordedSqliteStore(this.#file("bank"), { ...surroundings, connect });
		this.#producers.set(
			"shop",
			this.broker.createService({
				name: "shop",
				mixins: [this.#mixin(transactional("shop"))],
			}),
		);
		this.#producers.set(
			"bank",
			this.broker.createService({
				name: "bank",
				mixins: [this.#mixin(bank)],
				methods: resolves
					? {
							resolveTransaction: ({ id }: { id: string }) =>
								hasRow(this.#file("bank-rows"), id) ? "committed" : "rolledBack",
						}
					: {},
			}),
		);
		for (const name of ["stock", "mail"] as const) {
			this.broker.createService({
				name,
				mixins: [this.#mixin(transactional(name))],
				messages: { order: { retryPolicy: { retries: 1, delay: "30s" }, handler } },
			} as unknown as ServiceSchema);
		}
		return store;
	}

	#mixin(store: ParticipantStore) {
		return ReliableMessage({
			store: watchParticipantStore(store, this.life),
			clock: this.clock,
			random: this.#random,
		});
	}

	#file(name: string): string {
		return join(this.#folder, `${name}.db`);
	}

	#connect(file: string, timeout: number): DatabaseSync {
		const db = new DatabaseSync(file, { timeout });
		this.#connections.push(db);
		return db;
	}

	#insertApart(group: string): void {
		const db = new DatabaseSync(this.#file("bank-rows"));
		db.prepare("INSERT INTO orders (grp) VALUES (?)").run(group);
		db.close();
	}
}

function handler(ctx: { params: Order; locals: Record<string, unknown> }, tx: SqliteTx): void {
	const { id, attempt, revision } = ctx.locals["message"] as IncomingMessage;
	tx.run("INSERT INTO effects (message, revision) VALUES (?, ?)", id, revision);
	if (ctx.params.broken) {
		const error = new LottorError("LOTTOR_HANDLER_FAILED", "the payload is wrong");
		error.retryable = false;
		throw error;
	}
	if (attempt <= (ctx.params.failures ?? 0)) throw new Error(`attempt ${attempt} fails`);
}

function prepareTables(folder: string): void {
	const make = (name: string, sql: string) => {
		const file = join(folder, `${name}.db`);
		if (existsSync(file)) return;
		const db = new DatabaseSync(file);
		db.exec("PRAGMA journal_mode = WAL");
		db.exec(sql);
		db.close();
	};
	make("shop", ROWS);
	make("bank-rows", ROWS);
	make("stock", EFFECTS);
	make("mail", EFFECTS);
}

function hasRow(file: string, group: string): boolean {
	const db = new DatabaseSync(file, { readOnly: true });
	const row = db.prepare("SELECT 1 FROM orders WHERE grp = ?").get(group);
	db.close();
	return row !== undefined;
}
