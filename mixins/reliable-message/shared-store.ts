import type {
	OpenedParticipantStore,
	ParticipantStore,
} from "../../adapters/participant-store/contract.ts";

interface Use {
	users: number;
	readonly opened: Promise<OpenedParticipantStore>;
}

/** Stores that are open, with how many services use each. */
const uses = new WeakMap<ParticipantStore, Use>();

/** Opens a store, once for all services that were given the same one. */
export async function openShared(store: ParticipantStore): Promise<OpenedParticipantStore> {
	let use = uses.get(store);
	if (!use) uses.set(store, (use = { users: 0, opened: store.open() }));
	use.users++;
	try {
		return await use.opened;
	} catch (error) {
		uses.delete(store);
		throw error;
	}
}

/** Closes a store when its last service leaves it. */
export async function closeShared(store: ParticipantStore): Promise<void> {
	const use = uses.get(store);
	if (!use || --use.users > 0) return;
	uses.delete(store);
	await store.close();
}
