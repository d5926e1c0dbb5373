import { createRequire } from "node:module";

import { MongoClient } from "mongodb";
import { MongoClient as MongoClient6 } from "mongodb-6";

/** What tests need of a client, whichever generation of the driver it is of. */
export interface AnyMongoClient {
	connect(): Promise<unknown>;
	close(): Promise<unknown>;
}

/** A client of each generation of the driver, by its version. Nothing is connected. */
export const MONGO_DRIVERS: Readonly<Record<"7" | "6" | "3.7", (url: string) => AnyMongoClient>> = {
	"7": (url) => new MongoClient(url),
	"6": (url) => new MongoClient6(url),
	"3.7": (url) => new (driver3())(url, { useUnifiedTopology: true, useNewUrlParser: true }),
};

/** The driver that moleculer-db-adapter-mongo brings. */
function driver3() {
	const adapter = createRequire(import.meta.url).resolve("moleculer-db-adapter-mongo");
	const { MongoClient: Client } = createRequire(adapter)("mongodb") as {
		MongoClient: new (url: string, options: object) => AnyMongoClient;
	};
	return Client;
}
