import { type Clock, LottorError, type Random } from "../../protocol/index.ts";
import { type Chosen, DeferredParticipantStore } from "./deferred.ts";
import { isKnexSource, knexParticipantStore } from "./knex.ts";
import { memoryParticipantStore } from "./memory.ts";
import { isMongoSource, mongoParticipantStore } from "./mongo.ts";

/** The `store` that stands for the database of the service's own moleculer-db adapter. */
export const OWN_ADAPTER = "adapter";

/**
 * The participant store in the database of a moleculer-db service, on the connection that its
 * adapter has when the store is opened. Where the adapter's database has nothing to tie rows to, as
 * NeDB, outcomes and inbox are kept in memory, and that is said.
 *
 * @param adapterOf gives the service's adapter once it is connected
 * @param field the option's full name, for the error
 */
export function adapterParticipantStore(
	adapterOf: () => unknown,
	field: string,
	options: { readonly clock: Clock; readonly random: Random },
): DeferredParticipantStore {
	const choose = async (): Promise<Chosen> => {
		const adapter = adapterOf();
		if (typeof adapter !== "object" || adapter === null) {
			throw new LottorError(
				"LOTTOR_STORE_UNUSABLE",
				`${field} is "${OWN_ADAPTER}", and the service has none: add DbService of moleculer-db to its \`mixins\``,
			);
		}
		if (isMongoSource(adapter))
			return { store: mongoParticipantStore(adapter, options, field) };
		if (isKnexSource(adapter)) return { store: knexParticipantStore(adapter, options, field) };
		const notice = `${adapter.constructor.name} has no transactions that Lottor could be part of: outcomes and inbox are kept in memory and lost with the process, which is for tests (guarantee memory). Use an adapter on MongoDB or SQL, or give ReliableMessage a store beside it, as \`sqlite:./service.db?guarantee=recorded\``;
		return { store: memoryParticipantStore(options), notice };
	};
	return new DeferredParticipantStore("the database of the service's adapter", choose);
}
