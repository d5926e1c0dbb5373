import { LottorError, newStoreId, type Random } from "../../../protocol/index.ts";
import { storeError, trouble, unusable } from "./faults.ts";
import type { MongoDatabase } from "./database.ts";
import { PARTICIPANT } from "./rows.ts";
import { MongoTransaction } from "./transaction.ts";

/** The server was told to read only what a majority has, and keeps no such thing. */
const NO_MAJORITY_READS = 148;
/** No such command, no rights for it: nothing is told. */
const UNTOLD = new Set(["denied", "statement"]);

/**
 * Looks at what the server says of itself.
 *
 * @throws LOTTOR_STORE_UNUSABLE when it loses what it acknowledged, LOTTOR_STORE_UNAVAILABLE on a
 *   secondary
 */
export async function checkServer(database: MongoDatabase): Promise<void> {
	const hello = await database.command({ hello: 1 }, { db: "admin" });
	if (hello["isWritablePrimary"] !== true && hello["ismaster"] !== true) {
		const text = `${database.place} is a secondary: connect to the primary, or to the whole replica set`;
		throw new LottorError("LOTTOR_STORE_UNAVAILABLE", text, { place: database.place });
	}
	if ((await isPersistent(database)) === false) {
		throw unusable(
			database.place,
			"its storage engine keeps everything in memory, so a restart loses what it had: use WiredTiger",
		);
	}
	await checkMajorityReads(database);
}

async function isPersistent(database: MongoDatabase): Promise<boolean | undefined> {
	try {
		const status = await database.command({ serverStatus: 1 }, { db: "admin" });
		const engine = status["storageEngine"] as { persistent?: unknown } | undefined;
		return typeof engine?.persistent === "boolean" ? engine.persistent : undefined;
	} catch (error) {
		if (UNTOLD.has(trouble(error))) return undefined;
		throw error;
	}
}

async function checkMajorityReads(database: MongoDatabase): Promise<void> {
	try {
		const readConcern = { level: "majority" };
		await database.command({ find: PARTICIPANT, limit: 1, readConcern });
	} catch (error) {
		if ((error as { code?: unknown }).code !== NO_MAJORITY_READS) throw error;
		throw unusable(
			database.place,
			"it can't read what a majority has (enableMajorityReadConcern is off), so a failover could take back what was read: turn it on",
		);
	}
}

/**
 * Tries whether the server rolls a transaction back and hides it until then. What it calls itself is
 * not enough: some take the fields of a transaction and ignore them.
 *
 * @returns why it has none; undefined when it has
 */
export async function whyNoTransactions(
	database: MongoDatabase,
	random: Random,
): Promise<string | undefined> {
	const _id = `probe-${newStoreId(random)}`;
	const seen = async () => {
		const filter = { _id };
		const answer = await database.call({ find: PARTICIPANT, filter, limit: 1 });
		return (answer["cursor"] as { firstBatch: unknown[] }).firstBatch.length > 0;
	};
	let tx: MongoTransaction | undefined;
	try {
		tx = new MongoTransaction(database, "");
		await tx.command({ insert: PARTICIPANT, documents: [{ _id }] });
		const leaked = await seen();
		await tx.rollback(undefined);
		if (!leaked && !(await seen())) return undefined;
		await database.write({ delete: PARTICIPANT, deletes: [{ q: { _id }, limit: 1 }] });
		return "it ignores them";
	} catch (error) {
		await tx?.rollback(undefined);
		if (trouble(error) === "statement") return (error as Error).message;
		throw storeError(database.place, error);
	} finally {
		tx?.release();
	}
}
