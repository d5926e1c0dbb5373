import type {
	GroupRecord,
	GroupState,
	MessageRecord,
	PayloadRecord,
	Transition,
} from "../../protocol/index.ts";
import type { DecideResult, GroupFilter, MessageFilter, Total } from "./contract.ts";

/** @returns whether the message is to be sent now */
export function isSendable(message: MessageRecord, now: number): boolean {
	return message.state === "pending" && message.nextAt !== null && message.nextAt <= now;
}

/** @returns the messages that went to `delivering` from one state of the group to the next */
export function letGo(before: GroupRecord, after: GroupRecord): MessageRecord[] {
	return after.messages.filter(
		(message) => message.state === "delivering" && message !== before.messages[message.index],
	);
}

/** What `decide` answers once its transition stands. `sending` is asked only where it is done. */
export function decideAnswer(
	{ outcome, group }: Transition,
	sending: () => { readonly payloads: readonly PayloadRecord[]; readonly context: string },
): DecideResult {
	if (outcome.result === "done") return { result: "done", group, ...sending() };
	if (outcome.result === "conflict") {
		return { result: "conflict", state: outcome.state as GroupState, why: outcome.why };
	}
	return {
		result: "already",
		state: group.state,
		owner: group.leaseOwner,
		epoch: group.epoch,
	};
}

/** @returns whether the filter asks for states at most: then counters know how many match */
export function statesAlone(filter: GroupFilter | MessageFilter): boolean {
	return Object.entries(filter).every(
		([name, value]) => name === "states" || value === undefined,
	);
}

/** @returns how many there are in these states, of all where none are named */
export function totalOf<State extends string>(
	counts: Readonly<Record<State, number>>,
	states: readonly State[] | undefined,
): Total {
	const wanted = states ? [...new Set(states)] : (Object.keys(counts) as State[]);
	return { count: wanted.reduce((sum, state) => sum + counts[state], 0), exact: true };
}
