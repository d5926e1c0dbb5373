import { randomBytes } from "node:crypto";

import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { type ClientSession, Long, MongoClient } from "mongodb";

import type { ParticipantStore, TxBase } from "../../adapters/participant-store/index.ts";
import { mongoParticipantStore, type MongoTx } from "../../adapters/participant-store/mongo.ts";
import { newGroupId, systemClock, systemRandom } from "../../protocol/index.ts";
import { ferretdb } from "../../scripts/servers/ferretdb.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { MONGO_DRIVERS } from "../support/mongo-drivers.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

const owner = { nodeID: "n", instanceID: "i" };
const newId = () => newGroupId(systemClock, systemRandom);
const request = (id: string, timeout = 30_000) => ({ id, owner, coordinator: "c", timeout });
const copy = (id: string) => ({
	id,
	group: id.slice(0, 26),
	attempt: 1,
	revision: 0,
	receipt: "r",
	coordinator: "c",
	owner,
	isAlive: () => true,
	timeout: 30_000,
});

withServer(mongodb, "participant store mongo on DocumentDB: transactions", (server) => {
	describe("participant store mongo on DocumentDB: transactions", () => {
		let client: MongoClient;
		let proxy: FaultProxy;
		let store: ParticipantStore;
		let url: URL;

		beforeEach(async () => {
			const { hostname, port } = new URL(server);
			proxy = await FaultProxy.start({ host: hostname, port: Number(port) });
			url = new URL(server);
			url.pathname = `/test_${randomBytes(8).toString("hex")}`;
			client = new MongoClient(url.href);
			await client.db().createCollection("business");
			url.port = String(proxy.port);
			store = mongoParticipantStore(url.href);
			await store.open();
		});

		afterEach(async () => {
			await store.close();
			await client.db().dropDatabase();
			await client.close();
			await proxy.close();
		});

		const insert = ({ db, session }: Pick<MongoTx, "db" | "session">, name: string) =>
			db.collection("business").insertOne({ name }, { session });
		const rows = () => client.db().collection("business").countDocuments();
		const run = (id: string, work: (tx: MongoTx) => Promise<unknown>, timeout?: number) =>
			store.run(request(id, timeout), (tx: TxBase) => work(tx as MongoTx));

		it("R8 a COMMIT that was lost for good is unknown, and running until the server has ended it", async () => {
			const id = newId();
			let session: ClientSession | undefined;
			const lost = proxy.cutAt("commitTransaction", "before").then(() => proxy.close());
			const result = await run(id, async (tx) => {
				session = tx.session;
				await insert(tx, id);
			});
			await lost;
			expect(result).toMatchObject({
				state: "unknown",
				error: { type: "LOTTOR_STORE_UNAVAILABLE" },
			});
			await proxy.open();
			const other = mongoParticipantStore(client);
			await other.open();
			expect(await other.resolve([id])).toEqual([{ result: "running" }]);

			await abort(client, session as unknown as ServerSessionOf);
			expect(await other.resolve([id])).toEqual([{ result: "rolledBack" }]);
			expect(await rows()).toBe(0);
			await other.close();
		});

		it("R7 an error that the work swallows, but that ended the transaction, is no commit", async () => {
			const id = newId();
			const result = await run(id, async (tx) => {
				await insert(tx, id);
				const twice = { _id: "twice" as never };
				const { db, session } = tx;
				await db.collection("business").insertOne(twice, { session });
				await db
					.collection("business")
					.insertOne(twice, { session })
					.catch(() => undefined);
			});
			expect(result.state).toBe("rolledBack");
			expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
			expect(await rows()).toBe(0);
		});

		it("R7 a work that meets a conflict is not run again, and the caller gets the driver's error", async () => {
			const id = newId();
			const business = client.db().collection<{ _id: string; n: number }>("business");
			await business.insertOne({ _id: "one", n: 0 });
			let runs = 0;
			const result = await run(id, async ({ db, session }) => {
				runs++;
				await db.collection("business").findOne({}, { session });
				await business.updateOne({ _id: "one" }, { $inc: { n: 1 } });
				await db
					.collection<{ _id: string }>("business")
					.updateOne({ _id: "one" }, { $inc: { n: 10 } }, { session });
			});
			expect(result).toMatchObject({ state: "rolledBack", error: { code: 112 } });
			expect(runs).toBe(1);
			expect(await business.findOne({})).toMatchObject({ n: 1 });
		});

		it("R10 a session that was kept writes nothing once its transaction has ended", async () => {
			let kept: Pick<MongoTx, "db" | "session"> | undefined;
			const late = await run(
				newId(),
				async ({ db, session }) => {
					kept = { db, session };
					await new Promise(() => undefined);
				},
				1_000,
			);
			expect(late).toMatchObject({
				state: "rolledBack",
				error: { type: "LOTTOR_WORK_TIMEOUT" },
			});
			await expect(insert(kept as MongoTx, "late")).rejects.toThrow();

			const done = await run(newId(), async ({ db, session }) => {
				kept = { db, session };
				await insert(kept, "in time");
			});
			expect(done.state).toBe("committed");
			await expect(insert(kept as MongoTx, "late")).rejects.toThrow();
			expect(await rows()).toBe(1);
		});

		it("lets nobody else end the transaction", async () => {
			const result = await run(newId(), async ({ session }) => session.commitTransaction());
			expect(result).toMatchObject({
				state: "rolledBack",
				error: { type: "LOTTOR_INVALID_REQUEST" },
			});
		});

		it("takes a database of the service's client, and leaves the client open", async () => {
			const own = mongoParticipantStore(client.db());
			expect(await own.open()).toEqual(await store.open());
			const id = newId();
			const done = await own.run(request(id), async (tx) => {
				await client
					.db()
					.collection("business")
					.insertOne({ id }, { session: (tx as MongoTx).session });
			});
			expect(done.state).toBe("committed");
			await own.close();
			expect(await rows()).toBe(1);
		});

		it("R3 a client of another driver on the same database has the same storeId", async () => {
			const older = MONGO_DRIVERS["3.7"](url.href);
			await older.connect();
			const own = mongoParticipantStore(older);
			expect(await own.open()).toEqual(await store.open());
			await own.close();
			await older.close();
		});

		it("finds a server again though the driver has lost sight of it for good", async () => {
			let lost: DriverInsides | undefined;
			await run(newId(), async ({ session }) => {
				lost = (session as unknown as { client: DriverInsides }).client;
			});
			// What a hanging heartbeat comes to.
			for (const { monitor } of lost?.topology.s.servers.values() ?? []) monitor.close();
			await proxy.close();
			const id = newId();
			expect((await run(id, async () => undefined)).state).toBe("rolledBack");
			await proxy.open();
			await until(async () => {
				const result = await run(newId(), (tx) => insert(tx, "again"));
				return result.state === "committed";
			});
			expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
		}, 60_000);

		it("R11 works nested at the same time run one after the other", async () => {
			const message = `${newId()}.0`;
			const inner = [newId(), newId(), newId()];
			let running = 0;
			const consumed = await store.consume(copy(message), async (tx) => {
				const results = inner.map((id) =>
					store.run({ ...request(id), join: tx }, async (own) => {
						expect(++running).toBe(1);
						await insert(own as MongoTx, id);
						running--;
					}),
				);
				for (const result of await Promise.all(results))
					expect(result.state).toBe("joined");
			});
			expect(consumed).toEqual({ result: "consumed" });
			expect(await rows()).toBe(3);
			expect(await store.resolve(inner)).toEqual(inner.map(() => ({ result: "committed" })));
		});
	});
});

withServer(ferretdb, "participant store mongo on FerretDB 1: what is left", (server) => {
	describe("participant store mongo on FerretDB 1: what is left", () => {
		it("says that it is only recorded, and refuses to be asked for more", async () => {
			const url = new URL(server);
			url.pathname = `/test_${randomBytes(8).toString("hex")}`;
			const store = mongoParticipantStore(url.href);
			const { guarantee, notice } = await store.open();
			expect(guarantee).toBe("recorded");
			expect(notice).toContain(`mongodb://${url.host}${url.pathname} has no transactions`);
			expect(store.description).toBe(`mongodb://${url.host}${url.pathname} (recorded)`);
			await store.close();

			url.searchParams.set("guarantee", "recorded");
			const asked = mongoParticipantStore(url.href);
			expect(await asked.open()).not.toHaveProperty("notice");
			await asked.close();

			url.searchParams.set("guarantee", "transactional");
			await expect(mongoParticipantStore(url.href).open()).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNUSABLE",
				message: expect.stringContaining("has no transactions"),
			});
			const client = new MongoClient(server);
			await client.db(url.pathname.slice(1)).dropDatabase();
			await client.close();
		});
	});
});

interface DriverInsides {
	readonly topology: {
		readonly s: { readonly servers: ReadonlyMap<string, { monitor: { close(): void } }> };
	};
}

interface ServerSessionOf {
	readonly serverSession: { readonly id: object; readonly txnNumber: number };
}

/** Ends somebody's transaction, as the server does by itself when its lifetime is over. */
async function abort(client: MongoClient, { serverSession }: ServerSessionOf): Promise<void> {
	const session = client.startSession();
	const { id, txnNumber } = serverSession;
	Object.assign((session as unknown as ServerSessionOf).serverSession, { id, txnNumber });
	const command = { abortTransaction: 1, txnNumber: Long.fromNumber(txnNumber) };
	await client.db("admin").command({ ...command, autocommit: false }, { session });
}
