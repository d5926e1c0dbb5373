import { fileURLToPath } from "node:url";
import type { Service, ServiceSchema, ServiceSettingSchema } from "moleculer";

import {
	type ParticipantStore,
	resolveParticipantStore,
	type TxBase,
} from "../../adapters/participant-store/index.ts";
import { systemClock, systemRandom } from "../../protocol/index.ts";
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
	/** Runs `undo` where the database does not roll back by itself what a failing work did. */
	readonly takeBack: (undo: () => Promise<unknown>) => Promise<void>;
}

/**
 * Everything about a sample that depends on its database is here; the services don't know.
 *
 * @param url `sqlite:<file>`, with `?guarantee=recorded` if it shall keep only a record
 */
export function sampleDatabase<Row extends object>(
	url: string,
	table: string,
): SampleDatabase<Row> {
	return {
		store: resolveParticipantStore(url, "store", { clock: systemClock, random: systemRandom }),
		adapter: sqliteAdapter<Row>({ file: fileOf(url), table, indexes: ["group"] }),
		takeBack: async (undo) => {
			if (url.endsWith("guarantee=recorded")) await undo();
		},
	};
}

function fileOf(url: string): string {
	const [location = ""] = url.replace(/^sqlite:/i, "").split("?");
	return location.startsWith("//") ? fileURLToPath(`file:${location}`) : location;
}
