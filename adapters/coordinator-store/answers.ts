import type {
	GroupRecord,
	GroupState,
	MessageRecord,
	PayloadRecord,
	Transition,
} from "../../protocol/index.ts";
import type { DecideResult } from "./contract.ts";

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
