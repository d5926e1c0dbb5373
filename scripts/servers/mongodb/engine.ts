import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";

import pg from "pg";

import { run, waitFor } from "../tools.ts";

const USER = "lottor";
const BIN = "/usr/lib/postgresql/18/bin";
const START_MS = 30_000;

/** Connections that statements share; each open transaction and some cursors hold one. */
const POOL = 120;

const SETTINGS = {
	listen_addresses: "127.0.0.1",
	unix_socket_directories: "",
	max_connections: POOL + 20,
	// The root has no /dev/shm of its own.
	dynamic_shared_memory_type: "mmap",
	shared_preload_libraries: "pg_cron,pg_documentdb_core,pg_documentdb,pg_documentdb_extended_rum",
	// Indexes that give what they have in their order, as MongoDB's do; with the default ones every
	// page of a list is sorted anew.
	"documentdb.alternate_index_handler_name": "extended_rum",
	deadlock_timeout: "100ms",
};

/**
 * Answers of retryable writes, one a session. A write and its answer are stored in one transaction,
 * so that a client which sends it again gets the first answer, after a crash too.
 */
const RETRIES = `
CREATE EXTENSION IF NOT EXISTS documentdb CASCADE;
CREATE EXTENSION IF NOT EXISTS documentdb_extended_rum;
CREATE SCHEMA IF NOT EXISTS lottor;
CREATE TABLE IF NOT EXISTS lottor.retries (
	session bytea PRIMARY KEY, txn bigint NOT NULL, reply bytea NOT NULL, at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
DELETE FROM lottor.retries WHERE at < now() - interval '1 hour';
CREATE OR REPLACE FUNCTION lottor.once(kind text, db text, spec bytea, sequence bytea, of_session bytea, number bigint)
RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE answer bytea;
BEGIN
	SELECT reply INTO answer FROM lottor.retries WHERE session = of_session AND txn = number;
	IF FOUND THEN RETURN answer; END IF;
	CASE kind
	WHEN 'insert' THEN SELECT p_result::bytea INTO answer
		FROM documentdb_api.insert(db, spec::documentdb_core.bson, sequence::documentdb_core.bsonsequence);
	WHEN 'update' THEN SELECT p_result::bytea INTO answer
		FROM documentdb_api.update(db, spec::documentdb_core.bson, sequence::documentdb_core.bsonsequence);
	WHEN 'delete' THEN SELECT p_result::bytea INTO answer
		FROM documentdb_api.delete(db, spec::documentdb_core.bson, sequence::documentdb_core.bsonsequence);
	WHEN 'find_and_modify' THEN SELECT p_result::bytea INTO answer
		FROM documentdb_api.find_and_modify(db, spec::documentdb_core.bson);
	END CASE;
	INSERT INTO lottor.retries VALUES (of_session, number, answer)
		ON CONFLICT (session) DO UPDATE SET txn = excluded.txn, reply = excluded.reply, at = now();
	RETURN answer;
END $$;
`;

/** Where PostgreSQL with the DocumentDB extension runs. */
export interface EnginePlace {
	/** The root of the Debian release that has the extension. */
	readonly root: string;
	/** The folder of its data. */
	readonly folder: string;
	readonly port: number;
}

/** PostgreSQL with the DocumentDB extension, as a child of this process that ends with it. */
export class Engine {
	readonly pool: pg.Pool;
	readonly #process: ChildProcess;

	private constructor(process: ChildProcess, pool: pg.Pool) {
		this.#process = process;
		this.pool = pool;
	}

	/** Makes the data where there is none, starts and waits until it takes statements. */
	static async start(place: EnginePlace): Promise<Engine> {
		if (!existsSync(join(place.folder, "pg"))) await makeData(place);
		const options = Object.entries({ ...SETTINGS, port: place.port }).flatMap(
			([name, value]) => ["-c", `${name}=${value}`],
		);
		const [file, ...args] = inRoot(place, [`${BIN}/postgres`, "-D", "/srv/pg", ...options]);
		const login = { host: "127.0.0.1", port: place.port, user: USER, database: "postgres" };
		const pool = new pg.Pool({ ...login, max: POOL, idleTimeoutMillis: 60_000 });
		// A connection that ends while nobody uses it; the next statement makes another.
		pool.on("error", () => undefined);
		let child: ChildProcess | undefined;
		const ready = await waitFor(async () => {
			// It ends at once where one that was killed has not let go of its data yet.
			if (!child || child.exitCode !== null) {
				child = spawn(file, args, { stdio: ["ignore", "inherit", "inherit"] });
			}
			await pool.query(RETRIES);
			return true;
		}, START_MS);
		if (!ready || !child) throw new Error("PostgreSQL did not start");
		return new Engine(child, pool);
	}

	/** Resolves when it has ended. */
	async ended(): Promise<void> {
		if (this.#process.exitCode === null && this.#process.signalCode === null) {
			await once(this.#process, "exit");
		}
	}

	/** Ends it at once; what was committed stays. */
	async stop(): Promise<void> {
		this.#process.kill("SIGINT");
		await this.ended();
	}
}

/**
 * A command inside the root, as its user `postgres`, with the data folder at /srv. The mounts are
 * seen by this process alone and end with it; it ends with the process that started it.
 */
function inRoot({ root, folder }: EnginePlace, command: readonly string[]): [string, ...string[]] {
	const script =
		'mount --rbind /dev "$1/dev" && mount --bind "$2" "$1/srv" && ' +
		'root=$1 && shift 2 && exec chroot --userspec=postgres:postgres "$root" setpriv --pdeathsig QUIT "$@"';
	const mounted = ["--mount", "--", "sh", "-c", script, "sh", root, folder, ...command];
	return ["unshare", ...mounted];
}

async function makeData(place: EnginePlace): Promise<void> {
	mkdirSync(place.folder, { recursive: true });
	const id = async (flag: string) =>
		Number(await run("chroot", [place.root, "id", flag, "postgres"]));
	chownSync(place.folder, await id("-u"), await id("-g"));
	const initdb = [`${BIN}/initdb`, "-D", "/srv/pg", "-U", USER, "--auth=trust"];
	const [file, ...args] = inRoot(place, [...initdb, "-E", "UTF8", "--locale=C.UTF-8"]);
	await run(file, args);
}
