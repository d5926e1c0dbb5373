import { fileURLToPath } from "node:url";
import type { Service, ServiceSchema, ServiceSettingSchema } from "moleculer";

import {
	type ParticipantStore,
	resolveParticipantStore,
	type TxBase,
} from "../../adapters/participant-store/index.ts";
import { systemClock, systemRandom } from "../../protocol/index.ts";
import { documentAdapter } from "./document-adapter.ts";
import { mongoDocuments } from "./mongo-documents.ts";
import { redisDocuments } from "./redis-documents.ts";
import { sqlDocuments } from "./sql-documents.ts";
import { type SqliteAdapter, sqliteAdapter } from "./sqlite-adapter.ts";

/** The handle of a sample's local transaction, whatever its database is. */
export type SampleTx = TxBase;

/** A moleculer-db adapter that can write inside a transaction. */
export type SampleAdapter<Row extends object = Record<string, unknown>> = SqliteAdapter<Row>;

/** A service with such an adapter. */
export type SampleService<Row extends object = Record<string, unknown>> = Service & {
	adapter: SampleAdapter<Row>;
};

/** Its schema: moleculer-db takes the adapter from there. */
type SampleSchema<Row extends object> = ServiceSchema<
	ServiceSettingSchema,
	object,
	object,
	SampleService<Row>
> & { adapter: SampleAdapter<Row> };

/** Moleculer's type of a schema knows neither moleculer-db's `adapter` nor what `this` has of it. */
export function sampleSchema<Row extends object>(schema: SampleSchema<Row>): ServiceSchema {
	return schema as unknown as ServiceSchema;
}

/** A sample's database: its table, and Lottor's outcomes and inbox beside it. */
export interface SampleDatabase<Row extends object> {
	readonly store: ParticipantStore;
	readonly adapter: SampleAdapter<Row>;
}

type MakeAdapter = <Row extends object>(url: string, table: string) => SampleAdapter<Row>;

/** What keeps a sample's rows, by the scheme of its URL. */
const ADAPTERS: Readonly<Record<string, MakeAdapter>> = {
	sqlite: (url, table) => sqliteAdapter({ file: fileOf(url), table, indexes: ["group"] }),
	postgres: sqlAdapter,
	postgresql: sqlAdapter,
	mysql: sqlAdapter,
	mariadb: sqlAdapter,
	mongodb: mongoAdapter,
	"mongodb+srv": mongoAdapter,
	redis: redisAdapter,
	rediss: redisAdapter,
};

/** The schemes of the URLs that a sample's database may have. */
export const SAMPLE_SCHEMES: readonly string[] = Object.keys(ADAPTERS);

/**
 * Everything about a sample that depends on its database is here; the services don't know.
 *
 * @param url `sqlite:<file>`, `mongodb://…`, `postgres://…`, `mysql://…` (each with
 *   `?guarantee=recorded` if it shall keep only a record) or `redis://…`
 */
export function sampleDatabase<Row extends object>(
	url: string,
	table: string,
): SampleDatabase<Row> {
	const makeAdapter = ADAPTERS[schemeOf(url)];
	if (!makeAdapter) throw new Error(`There is no sample on "${schemeOf(url)}:"`);
	return {
		store: resolveParticipantStore(url, "store", { clock: systemClock, random: systemRandom }),
		adapter: makeAdapter<Row>(url, table),
	};
}

/** Runs `undo` where the database does not roll back by itself what a failing work did. */
export async function takeBack(tx: SampleTx, undo: () => Promise<unknown>): Promise<void> {
	// The handle of a recorded store has the group and nothing else.
	if (Object.keys(tx).length === 1) await undo();
}

/** @returns the URL's scheme in small letters */
export function schemeOf(url: string): string {
	return (/^([a-z+]+):/i.exec(url)?.[1] ?? "").toLowerCase();
}

function sqlAdapter<Row extends object>(url: string, table: string): SampleAdapter<Row> {
	return documentAdapter<Row>(sqlDocuments(withoutSettings(url), table));
}

function mongoAdapter<Row extends object>(url: string, table: string): SampleAdapter<Row> {
	return documentAdapter<Row>(mongoDocuments(withoutGuarantee(url), table));
}

function redisAdapter<Row extends object>(url: string, table: string): SampleAdapter<Row> {
	return documentAdapter<Row>(redisDocuments(url, table));
}

/** Without the settings that are the participant store's. */
function withoutSettings(url: string): string {
	const address = new URL(url);
	address.searchParams.delete("guarantee");
	address.searchParams.delete("connections");
	return address.href;
}

/** By hand: a URL of MongoDB may name several hosts, which `URL` does not take. */
function withoutGuarantee(url: string): string {
	const [address = "", query = ""] = url.split("?");
	const settings = new URLSearchParams(query);
	settings.delete("guarantee");
	return settings.size > 0 ? `${address}?${settings.toString()}` : address;
}

function fileOf(url: string): string {
	const [location = ""] = url.replace(/^sqlite:/i, "").split("?");
	return location.startsWith("//") ? fileURLToPath(`file:${location}`) : location;
}
