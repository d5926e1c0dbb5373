import { LottorError } from "../../../protocol/index.ts";
import { type Chosen, DeferredParticipantStore } from "../deferred.ts";
import { RecordedParticipantStore } from "../recorded.ts";
import { TransactionalParticipantStore } from "../transactional.ts";
import { within } from "../within.ts";
import type { MongoStoreOptions } from "./database.ts";
import { openError } from "./faults.ts";
import { RecordedMongo } from "./recorded.ts";
import { whyNoTransactions } from "./server.ts";
import { type MongoSource, type OpenedMongo, openSource } from "./source.ts";
import { TransactionalMongo } from "./transactional.ts";

/** The guarantee that was asked for; undefined: the best that the server can give. */
export type Demand = "transactional" | "recorded" | undefined;

/** How long a connection may take to come. Milliseconds. */
const CONNECT_MS = 4_000;

/** The participant store on MongoDB: which guarantee it can give is found out when it is opened. */
export function mongoStore(
	source: MongoSource,
	demand: Demand,
	options: MongoStoreOptions,
): DeferredParticipantStore {
	const { place } = source;
	return new DeferredParticipantStore(place, async () => {
		const opened = await openSource(source);
		try {
			const waiting = { clock: options.clock, place };
			await within(waiting, CONNECT_MS, connect(opened));
			return await choose(opened, place, demand, options);
		} catch (error) {
			await opened.close();
			throw openError(place, error);
		}
	});
}

/** Driver 3.7 would connect a second time; newer ones do so once. */
async function connect({ client }: OpenedMongo): Promise<void> {
	const once = client.isConnected === undefined;
	if (once || client.topology === undefined) await client.connect();
}

async function choose(
	opened: OpenedMongo,
	place: string,
	demand: Demand,
	options: MongoStoreOptions,
): Promise<Chosen> {
	const end = () => opened.close();
	const recorded = () => {
		const backend = new RecordedMongo(opened, place, options);
		return { store: new RecordedParticipantStore(backend, options), end };
	};
	if (demand === "recorded") return recorded();
	const backend = new TransactionalMongo(opened, place, options);
	await backend.open();
	const why = await whyNoTransactions(backend, options.random);
	if (why === undefined) return { store: new TransactionalParticipantStore(backend), end };
	if (demand === "transactional") {
		const text = `${place} can't be started on: the guarantee is to be transactional, and this server has no transactions (${why}): use a replica set`;
		throw new LottorError("LOTTOR_STORE_UNUSABLE", text, { place });
	}
	const notice = `${place} has no transactions (${why}): outcomes and inbox are only recorded, so a handler may run twice, and a work whose process dies may end in doubt`;
	return { ...recorded(), notice };
}
