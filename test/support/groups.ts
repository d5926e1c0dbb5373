import {
	applyChange,
	type Change,
	decide,
	type Decision,
	type DispatchLease,
	type Failure,
	type GroupEvent,
	type GroupRecord,
	type MessageEvent,
	type MessageRecord,
	type NewGroup,
	newGroupId,
	type NewMessage,
	prepared,
	type PrepareItem,
	type RetryTimes,
	systemClock,
	systemRandom,
	type Transition,
} from "../../protocol/index.ts";

/** When the groups made here are prepared, in milliseconds. */
export const T0 = 1_000_000;
export const GROUP_ID = "01kc0000000000000000000000";
export const PRODUCER_STORE = "a".repeat(32);
export const CONSUMER_STORE = "b".repeat(32);

export const RETRY: RetryTimes = { retries: 2, delay: 1_000, factor: 2, maxDelay: 300_000 };
export const FAILURE: Failure = { code: "E_GRANT", message: "no such role", retryable: true };
export const FATAL: Failure = { ...FAILURE, retryable: false };

export function newMessage(fields: Partial<NewMessage> = {}): NewMessage {
	return {
		target: "auth",
		type: "grant-role",
		content: "{}",
		bytes: 2,
		delay: 0,
		maxAttempts: null,
		orderingKey: null,
		plain: false,
		...fields,
	};
}

export function newGroup(fields: Partial<NewGroup> = {}): NewGroup {
	return {
		id: GROUP_ID,
		source: "user",
		storeId: PRODUCER_STORE,
		guarantee: "transactional",
		owner: { nodeID: "node-user", instanceID: "user-1" },
		hash: "0".repeat(64),
		idempotencyKey: null,
		checkAfter: 10_000,
		context: "{}",
		messages: [newMessage()],
		...fields,
	};
}

/** What a producer that is gone asked a coordinator to prepare: nobody decides it. */
export function prepareItem(fields: Partial<PrepareItem> = {}): PrepareItem {
	return {
		id: newGroupId(systemClock, systemRandom),
		source: "user",
		storeId: "store-user",
		guarantee: "transactional",
		owner: { nodeID: "gone", instanceID: "gone" },
		messages: [{ target: "auth", type: "t", content: "{}" }],
		...fields,
	};
}

export function decision(fields: Partial<Decision> = {}): Decision {
	return { id: GROUP_ID, to: "committed", by: "producer", who: "user@node-user", ...fields };
}

export function dispatchTo(...targets: string[]): DispatchLease {
	return {
		owner: "lottor@node-1",
		lease: 5_000,
		ackTimeout: 10_000,
		ready: new Map(targets.map((target) => [target, { storeId: CONSUMER_STORE }])),
	};
}

/** Freezes a value with everything in it: whoever writes to it throws. */
export function deepFreeze<T>(value: T): T {
	if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
		Object.freeze(value);
		Object.values(value).forEach(deepFreeze);
	}
	return value;
}

/** The event without its `type`, where a test leaves all else to the fixture. */
type Given<E, T> = Partial<Omit<Extract<E, { type: T }>, "type">>;

const DEFAULTS = {
	checked: { answer: "unknown", delay: 20_000, maxChecks: 15, doubtAfter: 3_600_000 },
	recheck: { who: "ann" },
	sent: {
		storeId: CONSUMER_STORE,
		instance: { nodeID: "node-auth", instanceID: "auth-1" },
		ackTimeout: 10_000,
	},
	refused: { delay: 1_000, parked: false, why: "queue is full" },
	rescheduled: { delay: 5_000, parked: true, why: "no living instance of auth" },
	asked: { answer: "running", delay: 20_000 },
	unseen: { vanished: false },
	crashed: {
		error: { code: "LOTTOR_CONSUMER_CRASHED", message: "it crashed", retryable: false },
	},
	unanswered: { error: FAILURE, policy: RETRY, fraction: 0.5 },
	consumed: { revision: 0, who: "auth" },
	failed: { attempt: 1, revision: 0, error: FAILURE, policy: RETRY, fraction: 0.5, who: "auth" },
	expired: { attempt: 1, revision: 0, who: "auth" },
	running: {
		attempt: 1,
		revision: 0,
		instance: { nodeID: "c1", instanceID: "1" },
		living: [],
		maxVanished: 2,
		ackTimeout: 10_000,
	},
	fenced: { minRevision: 1 },
	retry: { who: "ann" },
	edit: { content: '{"role":"admin"}', bytes: 16, who: "ann" },
	discard: { who: "ann", fenced: true },
} as const;

/** Steps one group through events, holding the machine to its inputs being frozen. */
export class Steps {
	group: GroupRecord;
	now = T0;
	last: Transition | undefined;

	constructor(fields: Partial<NewGroup> = {}) {
		this.group = deepFreeze(prepared(newGroup(fields), T0).group);
	}

	get message(): MessageRecord {
		return this.at(0);
	}

	at(index: number): MessageRecord {
		const message = this.group.messages[index];
		if (!message) throw new Error(`no message ${index}`);
		return message;
	}

	/** What the last step answered. */
	get result(): string | undefined {
		return this.last?.outcome.result;
	}

	wait(ms: number): this {
		this.now += ms;
		return this;
	}

	take(transition: Transition): this {
		this.last = deepFreeze(transition);
		this.group = transition.group;
		return this;
	}

	set(group: GroupRecord): this {
		this.group = deepFreeze(group);
		return this;
	}

	decide(fields: Partial<Decision> = {}): this {
		return this.take(decide(this.group, decision(fields), this.now));
	}

	/** Applies an event of the group, with the current epoch. */
	own<T extends GroupEvent["type"]>(type: T, fields: Given<GroupEvent, T> = {}): this {
		const event = { ...DEFAULTS[type], ...fields, type } as GroupEvent;
		return this.change({ id: GROUP_ID, epoch: this.group.epoch, event });
	}

	/** Applies an event of the message at `index`, with the current epoch. */
	on<T extends MessageEvent["type"]>(
		type: T,
		fields: Given<MessageEvent, T> = {},
		index = 0,
	): this {
		const event = { ...DEFAULTS[type], ...fields, type } as MessageEvent;
		return this.change({ id: GROUP_ID, epoch: this.group.epoch, index, event });
	}

	change(change: Change): this {
		return this.take(applyChange(this.group, deepFreeze(change), this.now));
	}

	/** The last step's timeline, in short. */
	get told(): string[] {
		return (this.last?.entries ?? []).map(
			({ event, from, to }) => `${event}: ${from} -> ${to}`,
		);
	}
}
