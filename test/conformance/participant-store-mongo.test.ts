import { randomBytes } from "node:crypto";

import { MongoClient } from "mongodb";

import type { TxBase } from "../../adapters/participant-store/index.ts";
import { mongoParticipantStore, type MongoTx } from "../../adapters/participant-store/mongo.ts";
import { ferretdb } from "../../scripts/servers/ferretdb.ts";
import type { ServerKind } from "../../scripts/servers/kind.ts";
import { mongodb } from "../../scripts/servers/mongodb.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { type AnyMongoClient, MONGO_DRIVERS } from "../support/mongo-drivers.ts";
import { withServer } from "../support/servers.ts";
import { type ParticipantBench, participantStoreSuite } from "./participant-store.ts";

type Guarantee = "transactional" | "recorded";
type Driver = keyof typeof MONGO_DRIVERS;

/** What the command that must not get lost has in it. */
const CRUCIAL = {
	transactional: "commitTransaction",
	// The name's length, as BSON has it, comes before it.
	recorded: "update\0\x0f\0\0\0lottor_outcome",
};

const SUBJECTS: readonly {
	readonly kind: ServerKind;
	readonly engine: string;
	readonly guarantee: Guarantee;
	readonly driver: Driver;
	readonly races: number;
}[] = [
	{ kind: mongodb, engine: "DocumentDB", guarantee: "transactional", driver: "7", races: 1_000 },
	{ kind: mongodb, engine: "DocumentDB", guarantee: "transactional", driver: "6", races: 100 },
	{ kind: mongodb, engine: "DocumentDB", guarantee: "transactional", driver: "3.7", races: 100 },
	{ kind: ferretdb, engine: "FerretDB 1", guarantee: "recorded", driver: "7", races: 1_000 },
];

for (const { kind, engine, guarantee, driver, races } of SUBJECTS) {
	const title = `mongo on ${engine}, driver ${driver}, ${guarantee}`;
	withServer(kind, `participant store ${title}`, (url) => {
		participantStoreSuite(title, {
			guarantee,
			shared: true,
			faults: true,
			savepoints: false,
			repeatsCommit: true,
			races,
			lateness: 8,
			make: () => bench(url, guarantee, driver),
		});
	});
}

async function bench(
	server: string,
	guarantee: Guarantee,
	driver: Driver,
): Promise<ParticipantBench> {
	const { hostname, port } = new URL(server);
	const proxy = await FaultProxy.start({ host: hostname, port: Number(port) });
	const url = new URL(server);
	url.port = String(proxy.port);
	url.pathname = `/test_${randomBytes(8).toString("hex")}`;
	const plain = new MongoClient(server);
	const db = plain.db(url.pathname.slice(1));
	const business = db.collection<{ _id: number; name: string }>("business");
	await db.createCollection("business");
	const clients: AnyMongoClient[] = [];
	let place = 0;

	return {
		store(clock) {
			const options = { clock, now: () => clock.now() };
			if (driver === "7") return mongoParticipantStore(url.href, options);
			const client = MONGO_DRIVERS[driver](url.href);
			clients.push(client);
			return mongoParticipantStore(client, options);
		},
		write: async (tx: TxBase, name) => {
			const row = { _id: ++place, name };
			if (guarantee === "recorded") return void (await business.insertOne(row));
			const { session, db: inside } = tx as MongoTx;
			await inside.collection<typeof row>("business").insertOne(row, { session });
		},
		rows: async () => {
			const rows = await business.find().sort({ _id: 1 }).toArray();
			return rows.map(({ name }) => name);
		},
		failCommit: (when) => void proxy.cutAt(CRUCIAL[guarantee], when),
		close: async () => {
			await Promise.all(clients.map((client) => client.close()));
			await db.dropDatabase();
			await plain.close();
			await proxy.close();
		},
	};
}
