// A process with a participant store of its own, under plain Node:
// `node participant-peer.ts <database> fence` resolves the groups that its parent names by IPC;
// `node participant-peer.ts <database> work` runs works and handlers until it is killed, and prints
// `<kind> <id>` for each that it was told is done.
import { openSqliteFile } from "../../adapters/sqlite/index.ts";
import { SqliteParticipantStore } from "../../adapters/participant-store/index.ts";
import { newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";

const LOOPS = 8;

const [path, mode] = process.argv.slice(2);
if (!path || !mode) throw new Error("usage: participant-peer.ts <database> fence|work");

const owner = { nodeID: "peer", instanceID: String(process.pid) };
const store = new SqliteParticipantStore(path, { clock: systemClock, random: systemRandom });
await store.open();

if (mode === "fence") {
	process.on("message", (id: string) => {
		void store.resolve([id]).then(([stands]) => process.send?.({ id, stands }));
	});
	process.send?.("ready");
} else {
	const file = await openSqliteFile(path);
	await file.write((tx) => {
		tx.run("CREATE TABLE IF NOT EXISTS business (id TEXT PRIMARY KEY)");
	});
	for (let i = 0; i < LOOPS; i++) void work();
}

async function work(): Promise<void> {
	for (;;) {
		const id = newGroupId(systemClock, systemRandom);
		const common = { owner, coordinator: "c", timeout: 10_000 };
		const ran = await store.run({ id, ...common }, async (tx) => {
			tx.run("INSERT INTO business VALUES (?)", id);
		});
		if (ran.state === "committed") process.stdout.write(`outcome ${id}\n`);

		const message = `${id}.0`;
		const copy = { id: message, group: id, attempt: 1, revision: 0, receipt: "r" };
		const consumed = await store.consume(
			{ ...copy, ...common, isAlive: () => true },
			async (tx) => {
				tx.run("INSERT INTO business VALUES (?)", message);
			},
		);
		if (consumed.result === "consumed") process.stdout.write(`inbox ${message}\n`);
	}
}
