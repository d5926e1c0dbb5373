import type { Owner } from "../../protocol/index.ts";

/** Slots that groups fall into; the store's `slotOf` says which. */
export const SLOTS = 256;

/**
 * Which slots a coordinator looks after, by rendezvous hashing: each slot goes to the living
 * coordinator with the highest score for it, so that one who joins or leaves moves its own slots
 * only. Coordinators that disagree on who lives claim the same group twice at worst, and the store
 * gives it to one; what nobody takes is overdue after a lease and anybody's.
 *
 * @param self the coordinator that asks; counted as living
 * @param living every coordinator on the same store
 * @returns its slots, ascending
 */
export function slotsOf(self: Owner, living: readonly Owner[]): number[] {
	const own = keyOf(self);
	const others = living.map(keyOf).filter((key) => key !== own);
	const slots: number[] = [];
	for (let slot = 0; slot < SLOTS; slot++) {
		const score = scoreOf(own, slot);
		const beaten = others.some((key) => {
			const other = scoreOf(key, slot);
			return other > score || (other === score && key > own);
		});
		if (!beaten) slots.push(slot);
	}
	return slots;
}

function keyOf({ nodeID, instanceID }: Owner): string {
	return `${nodeID}|${instanceID}`;
}

/** FNV-1a with the finishing rounds of MurmurHash3, which spread what neighbouring slots share. */
function scoreOf(key: string, slot: number): number {
	let hash = 0x811c9dc5 ^ slot;
	for (let i = 0; i < key.length; i++) {
		hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
	}
	hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
	hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
	return (hash ^ (hash >>> 16)) >>> 0;
}
