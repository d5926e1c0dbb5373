import { afterEach, describe, expect, test } from "@jest/globals";
import { createRequire } from "node:module";
import { MongoClient } from "mongodb";
import { MongoClient as MongoClient6 } from "mongodb-6";

import { ferretdb } from "../../scripts/servers/ferretdb.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { PrivateServer } from "../support/private-server.ts";
import { withServer } from "../support/servers.ts";

/** What the three generations of the driver have in common. */
interface Driver {
	connect(): Promise<unknown>;
	db(name: string): {
		dropDatabase(): Promise<unknown>;
		collection(name: string): {
			insertOne(document: object, options?: object): Promise<unknown>;
			updateOne(filter: object, update: object, options?: object): Promise<unknown>;
			countDocuments(): Promise<number>;
		};
	};
	startSession(): {
		withTransaction(work: () => Promise<void>): Promise<unknown>;
		startTransaction(): void;
		abortTransaction(): Promise<unknown>;
		endSession(): unknown;
	};
	close(): Promise<unknown>;
}

/** The driver that moleculer-db-adapter-mongo brings. */
function client3(url: string): Driver {
	const adapter = createRequire(
		createRequire(import.meta.url).resolve("moleculer-db-adapter-mongo"),
	);
	const { MongoClient: Client } = adapter("mongodb") as {
		MongoClient: new (url: string, options: object) => Driver;
	};
	return new Client(url, { useUnifiedTopology: true, useNewUrlParser: true });
}

const DRIVERS: readonly (readonly [string, (url: string) => Driver])[] = [
	["7", (url) => new MongoClient(url)],
	["6", (url) => new MongoClient6(url)],
	["3.7", client3],
];

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
	for (const clean of cleanups.splice(0).reverse()) await clean();
});

async function collection(url: string) {
	const client = new MongoClient(url, { serverSelectionTimeoutMS: 5_000 });
	cleanups.push(() => client.close());
	const db = client.db(`engine-${process.pid}`);
	cleanups.push(() => db.dropDatabase());
	return { client, items: db.collection<{ _id: number; n?: number }>("items") };
}

describe("the MongoDB engine of the tests", () => {
	withServer(mongodb, "DocumentDB: transactions and retries", (url) => {
		test.each(DRIVERS)(
			"DocumentDB: driver %s commits, aborts and conflicts",
			async (_, connect) => {
				const client = connect(url);
				await client.connect();
				cleanups.push(() => client.close());
				const db = client.db(`engine-${process.pid}`);
				cleanups.push(() => db.dropDatabase());
				const items = db.collection("items");
				await items.insertOne({ _id: 1, n: 0 });
				const [one, two] = [client.startSession(), client.startSession()];
				await one.withTransaction(async () => {
					await items.insertOne({ _id: 2 }, { session: one });
					expect(await items.countDocuments()).toBe(1);
				});
				expect(await items.countDocuments()).toBe(2);
				one.startTransaction();
				await items.updateOne({ _id: 1 }, { $inc: { n: 1 } }, { session: one });
				two.startTransaction();
				await expect(
					items.updateOne({ _id: 1 }, { $inc: { n: 1 } }, { session: two }),
				).rejects.toMatchObject({ code: 112 });
				await one.abortTransaction();
				await two.abortTransaction();
				one.endSession();
				two.endSession();
			},
		);

		test("DocumentDB: a retryable write whose answer is lost is done once", async () => {
			const { port } = new URL(url);
			const proxy = await FaultProxy.start({ host: "127.0.0.1", port: Number(port) });
			cleanups.push(() => proxy.close());
			const { items } = await collection(`mongodb://127.0.0.1:${proxy.port}/`);
			await items.insertOne({ _id: 1, n: 0 });
			const cut = proxy.cutAt("marked", "after");
			await items.updateOne({ _id: 1 }, { $inc: { n: 1 }, $set: { marked: true } });
			await cut;
			expect(await items.findOne({ _id: 1 })).toMatchObject({ n: 1 });
		});

		test("DocumentDB: what was acknowledged stands after kill -9, and a password is asked for", async () => {
			const server = await PrivateServer.start(mongodb, "s3cret");
			cleanups.push(() => server.dispose());
			const { client, items } = await collection(server.url);
			await items.insertOne({ _id: 1 });
			await server.kill();
			await server.start();
			expect(await items.findOne({ _id: 1 })).toEqual({ _id: 1 });
			for (const login of ["", "lottor:wrong@"]) {
				const other = new MongoClient(`mongodb://${login}127.0.0.1:${server.port}/`);
				await expect(other.db("x").collection("x").findOne({})).rejects.toMatchObject({
					code: login === "" ? 13 : 18,
				});
				await other.close();
			}
			await client.db("admin").command({ replSetStepDown: 60 });
			await expect(items.insertOne({ _id: 2 })).rejects.toMatchObject({ code: 10_107 });
			await client.db("admin").command({ replSetStepDown: 0 });
			await items.insertOne({ _id: 2 });
		}, 120_000);
	});

	withServer(ferretdb, "FerretDB: no transactions", (url) => {
		test("FerretDB: writes stand, a transaction is refused", async () => {
			const { client, items } = await collection(url);
			await items.insertOne({ _id: 1 });
			await expect(items.insertOne({ _id: 1 })).rejects.toMatchObject({ code: 11_000 });
			await client.withSession(async (session) => {
				session.startTransaction();
				await expect(items.insertOne({ _id: 2 }, { session })).rejects.toThrow();
			});
		});
	});
});
