import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";

import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";

import { type Resolution, SqliteParticipantStore } from "../../adapters/participant-store/index.ts";
import { openSqliteFile } from "../../adapters/sqlite/index.ts";
import { newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";
import { settle } from "../support/manual-clock.ts";

const PEER = new URL("../support/participant-peer.ts", import.meta.url).pathname;
const KILLS = 5;
const ACKNOWLEDGED_BEFORE_KILL = 400;
const RACES = 300;

const options = { clock: systemClock, random: systemRandom };

let folder: string;
let path: string;
let peers: ChildProcess[];

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "lottor-kill-"));
	path = join(folder, "a.db");
	peers = [];
});

afterEach(async () => {
	await Promise.all(peers.map(kill));
	rmSync(folder, { recursive: true, force: true });
});

async function kill(peer: ChildProcess): Promise<void> {
	if (peer.exitCode !== null || peer.signalCode !== null) return;
	const exited = once(peer, "exit");
	peer.kill("SIGKILL");
	await exited;
}

/** Lets a peer work until it has acknowledged enough, and kills it in the middle. */
async function workAndKill(library = "sqlite"): Promise<string[]> {
	const peer = spawn(process.execPath, [PEER, path, "work", library], {
		stdio: ["ignore", "pipe", "inherit"],
	});
	peers.push(peer);
	const acknowledged: string[] = [];
	for await (const line of createInterface({ input: peer.stdout })) {
		acknowledged.push(line);
		if (acknowledged.length === ACKNOWLEDGED_BEFORE_KILL) peer.kill("SIGKILL");
	}
	await kill(peer);
	return acknowledged;
}

function read(sql: string): string[] {
	const db = new DatabaseSync(path);
	const ids = db
		.prepare(sql)
		.all()
		.map((row) => String(row["id"]));
	db.close();
	return ids;
}

const LIBRARIES = ["sqlite", "knex"];

describe.each(LIBRARIES)("a participant on %s whose process is killed", (library) => {
	it("has each acknowledged outcome and inbox row with its business row, none without the other", async () => {
		const acknowledged: string[] = [];
		for (let round = 1; round <= KILLS; round++) {
			acknowledged.push(...(await workAndKill(library)));
			const store = new SqliteParticipantStore(path, options);
			await store.open();
			await store.close();

			const rows = new Set([
				...read("SELECT id FROM lottor_outcome WHERE state = 'committed'"),
				...read("SELECT id FROM lottor_inbox WHERE state = 'consumed'"),
			]);
			const business = new Set(read("SELECT id FROM business"));
			const ids = acknowledged.map((line) => line.slice(line.indexOf(" ") + 1));
			expect(ids.length).toBeGreaterThanOrEqual(round * ACKNOWLEDGED_BEFORE_KILL);
			expect(ids.filter((id) => !rows.has(id) || !business.has(id))).toEqual([]);
			expect([...rows].filter((id) => !business.has(id))).toEqual([]);
			expect([...business].filter((id) => !rows.has(id))).toEqual([]);
		}
	}, 60_000);
});

describe("two processes on one SQLite file", () => {
	it.each(LIBRARIES)(
		"R14 a fence of one (%s) and a late commit of the other: exactly one of them wins",
		async (library) => {
			const store = new SqliteParticipantStore(path, options);
			await store.open();
			const file = await openSqliteFile(path);
			await file.write((tx) => {
				tx.run("CREATE TABLE business (id TEXT PRIMARY KEY)");
			});
			const peer = fork(PEER, [path, "fence", library], { execArgv: [] });
			peers.push(peer);
			await once(peer, "message");

			const owner = { nodeID: "n", instanceID: "i" };
			let committed = 0;
			for (let round = 0; round < RACES; round++) {
				const id = newGroupId(systemClock, systemRandom);
				const answer = once(peer, "message") as Promise<
					[{ id: string; stands: Resolution }]
				>;
				peer.send(id);
				await settle(round % 40);
				const request = { id, owner, coordinator: "c", timeout: 10_000 };
				const result = await store.run(request, async (tx) => {
					tx.run("INSERT INTO business VALUES (?)", id);
				});
				const [{ id: answered, stands }] = await answer;
				const [final] = await store.resolve([id]);

				expect(answered).toBe(id);
				if (result.state === "committed") {
					committed++;
					expect(stands.result).not.toBe("rolledBack");
					expect(final).toEqual({ result: "committed" });
				} else {
					expect(result).toEqual({ state: "fenced" });
					expect(final).toEqual({ result: "rolledBack" });
				}
			}
			await file.close();
			await store.close();
			expect(read("SELECT id FROM business")).toHaveLength(committed);
		},
		60_000,
	);

	it.each(LIBRARIES)(
		"R12 both get their turn at the lock, the other one on %s",
		async (library) => {
			const file = await openSqliteFile(path);
			await file.write((tx) => {
				tx.run("CREATE TABLE mine (n INTEGER)");
			});
			let done = false;
			const other = workAndKill(library).finally(() => (done = true));
			let turns = 0;
			while (!done) {
				await file.write((tx) => tx.run("INSERT INTO mine VALUES (1)"));
				turns++;
			}
			await file.close();

			expect((await other).length).toBeGreaterThanOrEqual(ACKNOWLEDGED_BEFORE_KILL);
			expect(read("SELECT n AS id FROM mine")).toHaveLength(turns);
		},
		60_000,
	);
});
