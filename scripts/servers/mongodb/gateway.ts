import { createServer, type Server, type Socket } from "node:net";

import { BSON } from "mongodb";
import type pg from "pg";

import {
	CommandError,
	codeOf,
	isConflict,
	refusal,
	unpackState,
	WRITE_CONFLICT,
} from "./faults.ts";
import { type Login, ScramServer } from "./scram.ts";
import { Cursors, Transactions } from "./sessions.ts";
import { answerTo, type Command, commandOf, Messages, type Request } from "./wire.ts";

const MAX_DOCUMENT = 16 * 1024 * 1024;
const TRANSIENT = "TransientTransactionError";

/** Faults after which the whole transaction may succeed: conflict, no transaction, the server ends. */
const PASSING = new Set([WRITE_CONFLICT, 251, 91, 11_600]);

/** A command outside a transaction that met a faster one is run again this often, as MongoDB does. */
const CONFLICT_TRIES = 10;

const WRITES: Readonly<Record<string, "insert" | "update" | "delete" | "find_and_modify">> = {
	insert: "insert",
	update: "update",
	delete: "delete",
	findandmodify: "find_and_modify",
};

const PAGES: Readonly<Record<string, string>> = {
	find: "find_cursor_first_page",
	aggregate: "aggregate_cursor_first_page",
	listcollections: "list_collections_cursor_first_page",
	listindexes: "list_indexes_cursor_first_page",
};

/** Without a login these are answered all the same. */
const OPEN = new Set([
	"hello",
	"ismaster",
	"ping",
	"buildinfo",
	"saslstart",
	"saslcontinue",
	"endsessions",
]);

type Runner = pg.Pool | pg.PoolClient;
type Reply = BSON.Document | Uint8Array;

/** What one command runs in. */
interface Context {
	readonly command: Command;
	readonly session: Buffer | undefined;
	readonly number: number | undefined;
	/** The connection of the open transaction; undefined outside of one. */
	readonly client: pg.PoolClient | undefined;
}

/**
 * Speaks MongoDB's protocol in front of PostgreSQL with the DocumentDB extension: what Lottor, its
 * tests and the drivers need of it. It passes itself off as a mongos, since a client of a replica set
 * would go to the addresses that the server tells and past a test's proxy.
 */
export class Gateway {
	readonly #pool: pg.Pool;
	readonly #version: string;
	readonly #login: Login | undefined;
	readonly #transactions: Transactions;
	readonly #cursors = new Cursors();
	/** Retryable writes that run now, by session and number. */
	readonly #running = new Map<string, Promise<Reply>>();
	/** Until when it is no primary, by `performance.now()`. */
	#steppedDownUntil = 0;

	/** @param login what clients must prove to know; none leaves it open */
	constructor(pool: pg.Pool, version: string, login?: Login) {
		this.#pool = pool;
		this.#version = version;
		this.#login = login;
		this.#transactions = new Transactions(pool);
	}

	listen(port: number): Promise<Server> {
		const server = createServer((socket) => this.#serve(socket));
		return new Promise((resolve, reject) => {
			server.once("error", reject);
			server.listen(port, "127.0.0.1", () => resolve(server));
		});
	}

	#serve(socket: Socket): void {
		const messages = new Messages();
		const scram = this.#login && new ScramServer(this.#login);
		let turn = Promise.resolve();
		socket.setNoDelay(true);
		socket.on("error", () => socket.destroy());
		socket.on("data", (data) => {
			try {
				for (const request of messages.take(data)) {
					turn = turn.then(() => this.#answer(socket, request, scram));
				}
			} catch {
				socket.destroy();
			}
		});
	}

	async #answer(socket: Socket, request: Request, scram: ScramServer | undefined): Promise<void> {
		const reply = await this.#reply(request, scram).catch(
			(error: unknown) => refusal(error).reply,
		);
		if (!request.answered || socket.destroyed) return;
		const bytes =
			reply instanceof Uint8Array ? reply : BSON.serialize(reply, { ignoreUndefined: true });
		socket.write(answerTo(request, bytes));
	}

	async #reply(request: Request, scram: ScramServer | undefined): Promise<Reply> {
		const command = commandOf(request);
		const name = command.name.toLowerCase();
		if (scram) {
			if (name === "saslstart" || name === "saslcontinue") return scram.step(command.whole());
			if (!scram.done && !OPEN.has(name)) {
				throw new CommandError(
					13,
					"Unauthorized",
					`command ${command.name} requires authentication`,
				);
			}
		}
		const own = this.#own(name, command);
		if (own) return own;
		const down = performance.now() < this.#steppedDownUntil;
		if (down) {
			throw new CommandError(10_107, "NotWritablePrimary", "not primary", [
				"RetryableWriteError",
			]);
		}
		const lsid = command.fields["lsid"] as { id?: { buffer: Uint8Array } } | undefined;
		const session = lsid?.id && Buffer.from(lsid.id.buffer);
		const number = command.fields["txnNumber"];
		const about = {
			command,
			session,
			number: number === undefined ? undefined : Number(number),
		};
		if (command.fields["autocommit"] !== false) {
			return this.#withTries(() => this.#run(name, { ...about, client: undefined }));
		}
		return this.#inTransaction(name, about);
	}

	/** Commands that the engine has no part in. */
	#own(name: string, command: Command): BSON.Document | undefined {
		switch (name) {
			case "hello":
			case "ismaster":
				return {
					[name === "hello" ? "isWritablePrimary" : "ismaster"]: true,
					helloOk: true,
					msg: "isdbgrid",
					maxBsonObjectSize: MAX_DOCUMENT,
					maxMessageSizeBytes: 48_000_000,
					maxWriteBatchSize: 100_000,
					localTime: new Date(),
					logicalSessionTimeoutMinutes: 30,
					connectionId: 1,
					minWireVersion: 0,
					maxWireVersion: 21,
					readOnly: false,
					...(this.#login && { saslSupportedMechs: ["SCRAM-SHA-256"] }),
					ok: 1,
				};
			case "ping":
			case "endsessions":
				return { ok: 1 };
			case "buildinfo":
				return {
					version: "7.0.0",
					versionArray: [7, 0, 0, 0],
					documentdb: this.#version,
					maxBsonObjectSize: MAX_DOCUMENT,
					ok: 1,
				};
			case "replsetstepdown":
				// For tests of what clients do about it: for so many seconds it is no primary.
				this.#steppedDownUntil =
					performance.now() + Number(command.whole()[command.name]) * 1_000;
				return { ok: 1 };
			case "setparameter": {
				const seconds = Number(command.whole()["transactionLifetimeLimitSeconds"]);
				if (!(seconds >= 1)) throw new CommandError(2, "BadValue", "no such parameter");
				const was = this.#transactions.lifetimeLimitSeconds;
				this.#transactions.lifetimeLimitSeconds = seconds;
				return { was, ok: 1 };
			}
			case "killcursors": {
				const ids = command.whole()["cursors"] as readonly (bigint | number)[];
				for (const id of ids) this.#cursors.drop(BigInt(id));
				return { cursorsKilled: ids, ok: 1 };
			}
			default:
				return undefined;
		}
	}

	async #inTransaction(name: string, about: Omit<Context, "client">): Promise<Reply> {
		const { command, number } = about;
		const session = about.session?.toString("hex");
		if (session === undefined || number === undefined) {
			throw new CommandError(
				72,
				"InvalidOptions",
				"a transaction needs a session and a number",
			);
		}
		try {
			if (name === "committransaction") {
				await this.#transactions.commit(session, number);
				return { ok: 1 };
			}
			if (name === "aborttransaction") {
				await this.#transactions.end(session, "ROLLBACK");
				return { ok: 1 };
			}
			const client =
				command.fields["startTransaction"] === true
					? await this.#transactions.begin(session, number)
					: this.#transactions.clientOf(session, number);
			const reply = await this.#run(name, { ...about, client });
			// As in MongoDB, a write that fails ends the transaction, and a conflict fails the command.
			if (!(reply instanceof Uint8Array) && reply["writeErrors"]) {
				await this.#transactions.end(session, "ROLLBACK");
				const errors = reply["writeErrors"] as readonly { code: number; errmsg: string }[];
				const conflict = errors.find(({ code }) => code === WRITE_CONFLICT);
				if (conflict)
					throw new CommandError(WRITE_CONFLICT, "WriteConflict", conflict.errmsg);
			}
			return reply;
		} catch (error) {
			await this.#transactions.end(session, "ROLLBACK").catch(() => undefined);
			const { code, codeName, message, labels } = refusal(error);
			const transient = PASSING.has(code);
			const known = labels.filter((label) => label !== "RetryableWriteError");
			throw new CommandError(
				code,
				codeName,
				message,
				transient ? [...new Set([...known, TRANSIENT])] : known,
				error,
			);
		}
	}

	async #withTries(attempt: () => Promise<Reply>): Promise<Reply> {
		for (let tried = 1; ; tried++) {
			try {
				return await attempt();
			} catch (error) {
				const state = (error as { code?: unknown }).code;
				if (typeof state !== "string" || !isConflict(state) || tried === CONFLICT_TRIES)
					throw error;
			}
		}
	}

	#run(name: string, context: Context): Promise<Reply> {
		const write = WRITES[name];
		if (write) return this.#writeOnce(write, context);
		const page = PAGES[name];
		if (page !== undefined) return this.#firstPage(page, context);
		return this.#other(name, context);
	}

	/** A retryable write that came before gets its first answer, one that runs still is waited for. */
	#writeOnce(kind: string, context: Context): Promise<Reply> {
		const { client, session, number } = context;
		if (client || !session || number === undefined) return this.#write(kind, context);
		const key = `${session.toString("hex")} ${number}`;
		let running = this.#running.get(key);
		if (!running) {
			running = this.#write(kind, context).finally(() => this.#running.delete(key));
			this.#running.set(key, running);
		}
		return running;
	}

	async #write(kind: string, { command, session, number, client }: Context): Promise<Reply> {
		const { db, spec, sequence = null } = command;
		const retryable = !client && session && number !== undefined;
		const reply = await this.#limited(command, client, async (runner) =>
			retryable
				? first(runner, "SELECT lottor.once($1, $2, $3, $4, $5, $6) AS reply", [
						kind,
						db,
						spec,
						sequence,
						session,
						number,
					])
				: kind === "find_and_modify"
					? first(
							runner,
							"SELECT p_result::bytea AS reply FROM documentdb_api.find_and_modify($1, $2::bytea::documentdb_core.bson)",
							[db, spec],
						)
					: first(
							runner,
							`SELECT p_result::bytea AS reply FROM documentdb_api.${kind}($1, $2::bytea::documentdb_core.bson, $3::bytea::documentdb_core.bsonsequence)`,
							[db, spec, sequence],
						),
		);
		return withCodes(reply);
	}

	/** Runs a statement within the command's `maxTimeMS`. */
	async #limited(
		{ fields }: Command,
		client: pg.PoolClient | undefined,
		run: (runner: Runner) => Promise<Buffer>,
	): Promise<Buffer> {
		const limit = Number(fields["maxTimeMS"] ?? 0);
		if (client || limit <= 0) return run(client ?? this.#pool);
		const own = await this.#pool.connect();
		let broken = false;
		try {
			await own.query(`BEGIN; SET LOCAL statement_timeout = ${Math.ceil(limit)}`);
			const reply = await run(own);
			await own.query("COMMIT");
			return reply;
		} catch (error) {
			await own.query("ROLLBACK").catch(() => (broken = true));
			throw error;
		} finally {
			own.release(broken);
		}
	}

	async #firstPage(page: string, { command, client }: Context): Promise<Reply> {
		const id = this.#cursors.next();
		const own = client ?? (await this.#pool.connect());
		let held = client !== undefined;
		let broken = false;
		try {
			const limit = Number(command.fields["maxTimeMS"] ?? 0);
			const limited = !client && limit > 0;
			if (limited) await own.query(`SET statement_timeout = ${Math.ceil(limit)}`);
			const { rows } = await own.query<{ page: Buffer; more: Buffer | null; keep: boolean }>({
				name: page,
				text: `SELECT cursorpage::bytea AS page, continuation::bytea AS more, persistconnection AS keep FROM documentdb_api.${page}($1, $2::bytea::documentdb_core.bson, $3)`,
				values: [command.db, command.spec, String(id)],
			});
			if (limited) await own.query("RESET statement_timeout");
			const [row] = rows;
			if (!row) throw new Error("no page");
			if (row.more) {
				held ||= row.keep;
				this.#cursors.keep(id, row.more, row.keep && !client ? own : undefined);
			}
			return row.page;
		} catch (error) {
			broken = true;
			throw error;
		} finally {
			if (!held) own.release(broken);
		}
	}

	async #nextPage({ command, client }: Context): Promise<Reply> {
		const id = BigInt(command.whole()["getMore"] as bigint | number);
		const cursor = this.#cursors.get(id);
		const runner = cursor.held ?? client ?? this.#pool;
		const { rows } = await runner.query<{ page: Buffer; more: Buffer | null }>({
			name: "more",
			text: "SELECT cursorpage::bytea AS page, continuation::bytea AS more FROM documentdb_api.cursor_get_more($1, $2::bytea::documentdb_core.bson, $3::bytea::documentdb_core.bson)",
			values: [command.db, command.spec, cursor.continuation],
		});
		const [row] = rows;
		if (!row) throw new Error("no page");
		if (row.more) cursor.continuation = row.more;
		else this.#cursors.drop(id);
		return row.page;
	}

	async #other(name: string, context: Context): Promise<Reply> {
		const { command, client } = context;
		const runner = client ?? this.#pool;
		const { db, spec } = command;
		const named = () => String(command.whole()[command.name]);
		const bson = "::bytea::documentdb_core.bson";
		switch (name) {
			case "getmore":
				return this.#nextPage(context);
			case "count":
				return this.#limited(command, client, (own) =>
					first(
						own,
						`SELECT document::bytea AS reply FROM documentdb_api.count_query($1, $2${bson})`,
						[db, spec],
					),
				);
			case "distinct":
				return this.#limited(command, client, (own) =>
					first(
						own,
						`SELECT document::bytea AS reply FROM documentdb_api.distinct_query($1, $2${bson})`,
						[db, spec],
					),
				);
			case "createindexes":
				return first(
					runner,
					`SELECT documentdb_api_internal.create_indexes_non_concurrently($1, $2${bson}, true)::bytea AS reply`,
					[db, spec],
				);
			case "dropindexes": {
				const { rows } = await runner.query<{ retval: string }>(
					`CALL documentdb_api.drop_indexes($1, $2${bson}, null)`,
					[db, spec],
				);
				return Buffer.from((rows[0]?.retval ?? "").slice("BSONHEX".length), "hex");
			}
			case "create":
				await runner.query("SELECT documentdb_api.create_collection($1, $2)", [
					db,
					named(),
				]);
				return { ok: 1 };
			case "drop":
				await runner.query("SELECT documentdb_api.drop_collection($1, $2)", [db, named()]);
				return { ok: 1 };
			case "dropdatabase":
				await runner.query("SELECT documentdb_api.drop_database($1)", [db]);
				return { dropped: db, ok: 1 };
			case "listdatabases":
				return first(
					runner,
					`SELECT documentdb_api.list_databases($1${bson})::bytea AS reply`,
					[spec],
				);
			case "collstats":
				return first(
					runner,
					"SELECT documentdb_api.coll_stats($1, $2, 1)::bytea AS reply",
					[db, named()],
				);
			case "explain":
				return this.#explain(command);
			default:
				throw new CommandError(59, "CommandNotFound", `no such command: '${command.name}'`);
		}
	}

	/** The plan as PostgreSQL tells it. */
	async #explain(command: Command): Promise<BSON.Document> {
		const inner = command.whole()["explain"] as BSON.Document;
		const kind = "find" in inner ? "find" : "pipeline";
		const { rows } = await this.#pool.query<Record<string, unknown>>(
			`EXPLAIN (FORMAT JSON) SELECT document FROM documentdb_api_catalog.bson_aggregation_${kind}($1, $2::bytea::documentdb_core.bson)`,
			[command.db, Buffer.from(BSON.serialize(inner))],
		);
		return { queryPlanner: { winningPlan: rows[0]?.["QUERY PLAN"] }, ok: 1 };
	}
}

/** Runs a prepared statement. @returns the one value of its one row, as its bytes */
async function first(runner: Runner, text: string, values: unknown[]): Promise<Buffer> {
	const { rows } = await runner.query<{ reply: Buffer }>({ name: nameOf(text), text, values });
	const [row] = rows;
	if (!row) throw new Error(`no answer to ${text}`);
	return row.reply;
}

const names = new Map<string, string>();

/** Names of prepared statements are short: PostgreSQL cuts them at 63 bytes. */
function nameOf(text: string): string {
	let name = names.get(text);
	if (name === undefined) names.set(text, (name = `s${names.size}`));
	return name;
}

const WRITE_ERRORS = "writeErrors";

/** Gives write errors the codes of MongoDB. */
function withCodes(reply: Buffer): Reply {
	if (!reply.includes(WRITE_ERRORS)) return reply;
	const document = BSON.deserialize(reply);
	const errors = document[WRITE_ERRORS] as { code: number }[] | undefined;
	for (const error of errors ?? []) error.code = codeOf(unpackState(error.code))[0];
	return document;
}
