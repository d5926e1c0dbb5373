import { cpSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type Context, type Service, ServiceBroker, type ServiceSchema } from "moleculer";
import {
	type CoordinatorStore,
	sqliteCoordinatorStore,
} from "../../../adapters/coordinator-store/index.ts";
import {
	channelDelivery,
	type Delivery,
	directDelivery,
	type Reception,
} from "../../../adapters/delivery/index.ts";
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
import { FileBroker, type FileBrokerOptions } from "./file-broker.ts";
import {
	type Life,
	PLAIN_TARGET,
	tellClaims,
	watchCalls,
	watchCoordinatorStore,
	watchDelivery,
	watchParticipantStore,
	watchPost,
} from "./instrument.ts";
import type { Point } from "./points.ts";

/** What a message tells its handler to do. */
export interface Order {
	/** Attempts that fail before one succeeds. @default 0 */
	readonly failures?: number;
	/** Fails for good, whatever the attempt, until the payload is edited. @default false */
	readonly broken?: boolean;
	/** Begins a transaction within the handler's, with a message to `mail` (R11). @default false */
	readonly forwards?: boolean;
}

export interface Sends {
	stock: { order: Order };
	mail: { order: Order };
	box: { order: Order };
	till: { order: Order };
}

/** `stock` and `mail` have transactional stores, `box` a recorded one, `till` is no part of Lottor. */
export type TargetName = keyof Sends;

/** Who can start a transaction: on a transactional store, or on a recorded one. */
export type ProducerName = "shop" | "bank";

/** Who takes part. */
export interface Cast {
	readonly by: ProducerName;
	readonly orders: Partial<Record<TargetName, Order>>;
	/** Messages go over a broker. @default false: by calls */
	readonly broker?: boolean;
	/** The recorded producer can tell how its works ended by its own rows. @default false */
	readonly resolves?: boolean;
}

const ROWS = "CREATE TABLE IF NOT EXISTS orders (grp TEXT);";
const EFFECTS = "CREATE TABLE IF NOT EXISTS effects (message TEXT, revision INTEGER);";
/** Business rows and effects. Those of participants on a recorded store are apart from its rows. */
const TABLES: Readonly<Record<string, string>> = {
	shop: ROWS,
	"bank-rows": ROWS,
	stock: ROWS + EFFECTS,
	mail: EFFECTS,
	"box-rows": ROWS + EFFECTS,
	till: EFFECTS,
};
/** Turns of the loop without a call after which nothing more comes by itself. */
export const QUIET_TURNS = 8;

export interface WorldOptions {
	readonly folder: string;
	/** Milliseconds since 1970. */
	readonly now: number;
	readonly seed: number;
	/** Called at each fault point. */
	readonly reached: (point: Point, world: World) => void;
	readonly cast: Cast;
	/** Called before a message is acknowledged to the broker. */
	readonly acking?: FileBrokerOptions["acking"];
	/**
	 * Called each time that a claim has brought something, before the coordinator gets it.
	 * @default nothing waits
	 */
	readonly claimed?: (world: World) => Promise<void>;
}

/** A whole embedded Lottor as one process start: coordinator, producer, consumers. */
export class World {
	readonly clock: SteppedClock;
	readonly life: Life & { dead: boolean };
	readonly broker: ServiceBroker;
	/** The message broker, where messages go over one. */
	readonly channels: FileBroker | undefined;
	readonly #options: WorldOptions;
	readonly #folder: string;
	readonly #random: Random;
	readonly #connections: DatabaseSync[] = [];
	readonly #receptions: Reception[] = [];
	readonly #producer: Service;
	#store: CoordinatorStore;
	#delivery: Delivery;
	#coordinator: Service;
	#restarting: Promise<void> | undefined;

	private constructor(options: WorldOptions) {
		const { reached } = options;
		this.#options = options;
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
		if (options.cast.broker) this.channels = this.#createChannels();
		this.#store = this.#createStore();
		this.#delivery = this.#createDelivery();
		this.#coordinator = this.#createCoordinator();
		this.#producer = this.#createProducer();
		for (const target of targetsOf(options.cast)) this.#createTarget(target);
	}

	/** Starts it on the files in the folder, which are made where they are missing. */
	static async start(options: WorldOptions): Promise<World> {
		mkdirSync(options.folder, { recursive: true });
		prepareTables(options);
		const world = new World(options);
		await world.during(world.broker.start());
		await world.settle();
		return world;
	}

	/** Starts a transaction, as a caller would. */
	transaction(fail: boolean) {
		const { by, orders } = this.#options.cast;
		const messages = Object.entries(orders).map(([target, payload]) => ({
			target,
			type: "order",
			payload,
			...(target === PLAIN_TARGET && { deliver: "action" }),
		})) as OutgoingMessage<Sends>[];
		return reliableOf<Sends, SqliteTx>(this.#producer).transaction(null, messages, (tx) => {
			if (by === "shop") tx.run("INSERT INTO orders (grp) VALUES (?)", tx.group);
			// What a recorded work has done before it fails, nobody undoes.
			if (fail) throw new Error("the work fails");
			if (by === "bank") this.#runApart("bank-rows", INSERT_ROW, tx.group);
			return tx.group;
		});
	}

	/**
	 * Stops the coordinator in an orderly way and starts another: others live on. Ends by itself while
	 * time goes on.
	 */
	restartCoordinator(): void {
		this.#restarting ??= this.#restart().finally(() => (this.#restarting = undefined));
	}

	/** Waits for a restart of the coordinator that is under way. */
	async restarted(): Promise<void> {
		if (this.#restarting) await this.during(this.#restarting);
	}

	/** Calls an action, as a person would. */
	call<T>(action: string, params: object): Promise<T> {
		return this.broker.call<T, object>(action, params);
	}

	/** A store of each contract, as the services have them. */
	get stores(): {
		readonly coordinator: CoordinatorStore;
		readonly participant: ParticipantStore;
	} {
		return { coordinator: this.#store, participant: this.#transactional("stock") };
	}

	/** What the coordinator store has. */
	async groups(): Promise<readonly GroupRecord[]> {
		return (await this.#store.list({}, { limit: 100 })).items;
	}

	/** How many of a person's acts the audit log has. */
	async audits(): Promise<number> {
		return (await this.#store.audits({}, { limit: 500 })).items.length;
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
		for (const reception of this.#receptions) void reception.stop();
		void this.#delivery.stop();
		for (const db of this.#connections) if (db.isOpen) db.close();
	}

	get #surroundings() {
		return { clock: this.clock, random: this.#random };
	}

	#createStore(): CoordinatorStore {
		return sqliteCoordinatorStore({
			file: this.#file("lottor"),
			...this.#surroundings,
			connect: (file, timeout) => this.#connect(file, timeout),
		});
	}

	#createChannels(): FileBroker {
		return new FileBroker({
			file: this.#file("broker"),
			clock: this.clock,
			connect: (file) => this.#connect(file, 10),
			watch: (post) => watchPost(post, this.life),
			...(this.#options.acking && { acking: this.#options.acking }),
		});
	}

	#createDelivery(): Delivery {
		return this.channels ? channelDelivery(this.channels) : directDelivery();
	}

	#createCoordinator(): Service {
		const store = watchCoordinatorStore(this.#store, this.life);
		return this.broker.createService(
			Coordinator({
				store: tellClaims(store, async () => this.#options.claimed?.(this)),
				delivery: watchDelivery(this.#delivery, this.life),
				pollInterval: "20s",
				...this.#surroundings,
			}),
		);
	}

	async #restart(): Promise<void> {
		await this.broker.destroyService(this.#coordinator);
		this.#store = this.#createStore();
		this.#delivery = this.#createDelivery();
		this.#coordinator = this.#createCoordinator();
		await this.settle();
	}

	#createProducer(): Service {
		const { by, resolves } = this.#options.cast;
		const resolveTransaction = ({ id }: { id: string }) =>
			hasRow(this.#file("bank-rows"), id) ? "committed" : "rolledBack";
		return this.broker.createService({
			name: by,
			mixins: [this.#mixin(by === "shop" ? this.#transactional(by) : this.#recorded(by))],
			methods: resolves ? { resolveTransaction } : {},
		});
	}

	#createTarget(name: TargetName): void {
		if (name === "till") {
			this.#createPlain(name);
			return;
		}
		const isRecorded = name === "box";
		const store = isRecorded ? this.#recorded(name) : this.#transactional(name);
		const handler = isRecorded
			? handlerApart((sql, ...values) => this.#runApart("box-rows", sql, ...values))
			: handle;
		this.broker.createService({
			name,
			mixins: [this.#mixin(store)],
			messages: { order: { retryPolicy: { retries: 1, delay: "30s" }, handler } },
		} as unknown as ServiceSchema);
	}

	#createPlain(name: string): void {
		this.broker.createService({
			name,
			actions: {
				order: (ctx: Context<Order, { lottor: { id: string; attempt: number } }>) => {
					const { id, attempt } = ctx.meta.lottor;
					failIfTold(ctx.params, attempt);
					this.#runApart(name, INSERT_EFFECT, id, 0);
				},
			},
		});
	}

	#transactional(name: string): SqliteParticipantStore {
		const connect = (file: string) => this.#connect(file, 10);
		return new SqliteParticipantStore(this.#file(name), { ...this.#surroundings, connect });
	}

	#recorded(name: string): ParticipantStore {
		const connect = (file: string) => this.#connect(file, 10);
		return recordedSqliteStore(this.#file(name), { ...this.#surroundings, connect });
	}

	#mixin(store: ParticipantStore) {
		return ReliableMessage({
			store: watchParticipantStore(store, this.life),
			delivery: this.#takingDelivery(),
			...this.#surroundings,
		});
	}

	/** Remembers what is to be ended with the world. */
	#takingDelivery(): Delivery {
		const delivery = this.#createDelivery();
		if (!delivery.receive) return delivery;
		const receive = delivery.receive.bind(delivery);
		const remembering: typeof receive = async (receiver) => {
			const reception = await receive(receiver);
			this.#receptions.push(reception);
			return reception;
		};
		return Object.assign(Object.create(delivery) as Delivery, { receive: remembering });
	}

	#file(name: string): string {
		return join(this.#folder, `${name}.db`);
	}

	#connect(file: string, timeout: number): DatabaseSync {
		const db = new DatabaseSync(file, { timeout });
		this.#connections.push(db);
		return db;
	}

	#runApart(name: string, sql: string, ...values: (string | number)[]): void {
		const db = new DatabaseSync(this.#file(name));
		db.prepare(sql).run(...values);
		db.close();
	}
}

const INSERT_ROW = "INSERT INTO orders (grp) VALUES (?)";
const INSERT_EFFECT = "INSERT INTO effects (message, revision) VALUES (?, ?)";
const FORWARDED = { target: "mail", type: "order", payload: {} } as const;

async function handle(this: Service, ctx: Context<Order>, tx: SqliteTx): Promise<void> {
	const { id, attempt, revision } = ctx.locals["message"] as IncomingMessage;
	tx.run(INSERT_EFFECT, id, revision);
	if (ctx.params.forwards) {
		const reliable = reliableOf<Sends, SqliteTx>(this);
		await reliable.transaction(ctx, [FORWARDED], (inner) => inner.run(INSERT_ROW, inner.group));
	}
	failIfTold(ctx.params, attempt);
}

/** What a handler on a recorded store does is not undone: it fails before that. */
function handlerApart(run: (sql: string, ...values: (string | number)[]) => void) {
	return async function (this: Service, ctx: Context<Order>): Promise<void> {
		const { id, attempt, revision } = ctx.locals["message"] as IncomingMessage;
		failIfTold(ctx.params, attempt);
		run(INSERT_EFFECT, id, revision);
		if (!ctx.params.forwards) return;
		const reliable = reliableOf<Sends>(this);
		await reliable.transaction(ctx, [FORWARDED], ({ group }) => run(INSERT_ROW, group));
	};
}

function failIfTold({ broken = false, failures = 0 }: Order, attempt: number): void {
	if (broken) {
		const error = new LottorError("LOTTOR_HANDLER_FAILED", "the payload is wrong");
		error.retryable = false;
		throw error;
	}
	if (attempt <= failures) throw new Error(`attempt ${attempt} fails`);
}

/** @returns who gets messages, those from within handlers included */
function targetsOf({ orders }: Cast): Set<TargetName> {
	const targets = new Set(Object.keys(orders) as TargetName[]);
	if (Object.values(orders).some(({ forwards }) => forwards)) targets.add("mail");
	return targets;
}

function prepareTables({ folder, cast }: WorldOptions): void {
	const names = new Set<string>([cast.by, ...targetsOf(cast)]);
	for (const [name, tables] of Object.entries(TABLES)) {
		const file = join(folder, `${name}.db`);
		if (!names.has(name.replace("-rows", "")) || existsSync(file)) continue;
		const db = new DatabaseSync(file);
		db.exec("PRAGMA journal_mode = WAL");
		db.exec(tables);
		db.close();
	}
}

function hasRow(file: string, group: string): boolean {
	const db = new DatabaseSync(file, { readOnly: true });
	const row = db.prepare("SELECT 1 FROM orders WHERE grp = ?").get(group);
	db.close();
	return row !== undefined;
}
