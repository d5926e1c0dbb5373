import type { Outgoing, SendResult } from "../../adapters/delivery/index.ts";
import type { ApplyResult, Claimed } from "../../adapters/coordinator-store/index.ts";
import {
	type Change,
	type DispatchLease,
	type Envelope,
	type GroupRecord,
	makeReceipt,
	messageId,
	type MessageEvent,
	type MessageRecord,
	needsFence,
	type PayloadRecord,
	type PlainRoute,
	readyKey,
	type Report,
	WIRE_VERSION,
} from "../../protocol/index.ts";
import { apply, eachClaim, type Engine } from "./engine.ts";
import type { Fences } from "./fences.ts";

/** How long a message waits for a target at the most, before its case is looked at again. */
const PARK_MS = 5 * 60_000;

/** How long a message waits after its consumer, or its broker, refused to take it. */
const REFUSED_MS = 1_000;

/** How long a message over which an instance ended waits for another such one. */
const SUSPECT_MS = 200;

const PLAIN_ROUTES: readonly PlainRoute[] = ["action", "channel"];

type MessageChange = Extract<Change, { index: number }>;

interface DueMessage {
	readonly claimed: Claimed;
	readonly message: MessageRecord;
}

/** Sends what is due: at once after a commit, and whatever the store says is due. */
export class Dispatcher {
	readonly #engine: Engine;
	readonly #fences: Fences;
	readonly #report: (report: Report, nodeID: string) => Promise<boolean>;
	readonly #took: (target: string) => void;
	/** What a commit can be dispatched to in the same write; kept up to date, shared with the store. */
	readonly #ready = new Map<string, { storeId: string | null; ackTimeout?: number }>();
	/** Steps of delivery under way, and sends whose items have not all been settled. */
	readonly #underway = new Set<Promise<void>>();
	/** Targets that were found to have no room. */
	readonly #full = new Set<string>();
	/** How often the broker came back. */
	#returns = 0;
	/** Targets whose instances have stores of their own (R3). */
	#partitioned: readonly string[] = [];
	#stopped = false;

	/**
	 * @param report stores a report that came as an answer of a node; tells whether it is stored
	 * @param took told of the target of each message that is stored as sent
	 */
	constructor(
		engine: Engine,
		fences: Fences,
		report: (report: Report, nodeID: string) => Promise<boolean>,
		took: (target: string) => void,
	) {
		this.#engine = engine;
		this.#fences = fences;
		this.#report = report;
		this.#took = took;
	}

	/** Work sent by this coordinator from now on is taken up by others. */
	stop(): void {
		this.#stopped = true;
		this.#ready.clear();
	}

	/** Waits for what is being sent, so that its reports are stored here and nobody has to ask. */
	async sendsEnded(): Promise<void> {
		while (this.#underway.size > 0) await Promise.all(this.#underway);
	}

	/** What `decide` needs to start delivery with the commit itself. */
	lease(): DispatchLease {
		const { owner, settings } = this.#engine;
		// Each call binds what it commits to one store of a partitioned target: the next one to another.
		for (const target of this.#partitioned) {
			if (this.#ready.has(target)) this.#refreshTarget(target);
		}
		return {
			owner,
			lease: settings.lease,
			ackTimeout: settings.ackTimeout,
			ready: this.#ready,
		};
	}

	/** Works out anew what can be sent to; call when the registry changed. */
	refresh(): void {
		this.#ready.clear();
		this.#full.clear();
		if (this.#stopped) return;
		const { view } = this.#engine;
		this.#partitioned = [...view.targets].filter((target) => view.storeOf(target) === null);
		for (const target of new Set([...view.targets, ...view.services]))
			this.#refreshTarget(target);
	}

	/** The broker can be reached again, or no longer: what waited for it may go. */
	availabilityChanged(): void {
		this.refresh();
		if (!this.#canSend(false)) return;
		this.#returns++;
		const { view } = this.#engine;
		this.wakeAgain([...view.targets, ...view.services]);
	}

	/** Actions are called past the broker. */
	#canSend(plain: PlainRoute | false): boolean {
		return plain === "action" || this.#engine.settings.delivery.available;
	}

	#refreshTarget(target: string): void {
		const { view, flights, settings } = this.#engine;
		if (flights.room(target) === 0) {
			this.#hasNoRoom(target);
			return;
		}
		this.#full.delete(target);
		const bind = this.#canSend(false) ? this.#bindingFor(target) : undefined;
		if (bind === undefined) this.#ready.delete(target);
		else this.#ready.set(target, { storeId: bind });
		for (const plain of PLAIN_ROUTES) {
			const key = readyKey({ target, plain });
			if (!view.serves(target) || !this.#canSend(plain)) this.#ready.delete(key);
			else this.#ready.set(key, { storeId: null, ackTimeout: settings.plainTimeout });
		}
	}

	#hasNoRoom(target: string): void {
		this.#full.add(target);
		for (const plain of [false, ...PLAIN_ROUTES] as const)
			this.#ready.delete(readyKey({ target, plain }));
	}

	/** The store that a new message to this target gets bound to; undefined: it can't be sent now. */
	#bindingFor(target: string): string | undefined {
		const { view } = this.#engine;
		const instances = view.instances(target, null);
		if (instances.length === 0 || view.storeOf(target) === undefined) return undefined;
		const place = Math.floor(this.#engine.settings.random.fraction() * instances.length);
		return instances[place]?.storeId ?? undefined;
	}

	/** Sends what went to `delivering` with the commit, and plans the rest of the group. */
	committed(claimed: Claimed): void {
		const { group } = claimed;
		const over: MessageChange[] = [];
		const sending: MessageRecord[] = [];
		for (const message of group.messages) {
			if (message.state !== "delivering") continue;
			if (this.#engine.flights.room(message.target) === 0) {
				over.push(this.#change(group, message, this.#noRoom(message.target)));
				continue;
			}
			this.#take(message);
			this.#stored(message);
			sending.push(message);
		}
		this.#send(claimed, sending);
		const starved = new Set(over.map(({ index }) => group.messages[index]?.target ?? ""));
		this.#quietly(apply(this.#engine, over).finally(() => this.#wakeStarved(starved)));
		const now = this.#engine.store.now();
		if (group.messages.some((message) => message.state === "pending" && isDue(message, now))) {
			this.#quietly(this.plan([claimed]));
		}
		for (const message of group.messages) {
			if (message.state === "pending" && message.nextAt !== null)
				this.#engine.wakeAt(message.nextAt);
		}
	}

	#take(message: MessageRecord, suspect = false): void {
		const { flights, settings } = this.#engine;
		const { id, target, plain } = message;
		// Nobody can be asked whether a plain target still has it.
		if (plain) flights.take(id, target, suspect, settings.plainTimeout + settings.askTimeout);
		else flights.take(id, target, suspect);
	}

	#stored({ id, target }: MessageRecord): void {
		this.#engine.flights.stored(id);
		this.#took(target);
	}

	#noRoom(target: string) {
		this.#hasNoRoom(target);
		return {
			type: "refused",
			delay: PARK_MS,
			parked: true,
			why: "maxInFlight reached",
		} as const;
	}

	/** Looks through the store for messages that are due to be sent. */
	async pass(): Promise<void> {
		const { lease } = this.#engine.settings;
		await eachClaim(this.#engine, "deliver", lease, (claimed) => this.plan(claimed));
	}

	/** Sends the due pending messages of groups that are leased to this coordinator, or lets them wait. */
	async plan(claimed: readonly Claimed[]): Promise<void> {
		const now = this.#engine.store.now();
		const due = claimed.flatMap((one) =>
			one.group.messages
				.filter((message) => message.state === "pending" && isDue(message, now))
				.map((message): DueMessage => ({ claimed: one, message })),
		);
		// A fence waits for its instance's answer; the others do not wait for the fence.
		const [fencing, plain] = split(inTurns(due), ({ message }) => needsFence(message));
		await Promise.all([this.#planSome(plain), ...fencing.map((one) => this.#planSome([one]))]);
	}

	async #planSome(due: readonly DueMessage[]): Promise<void> {
		const { view, store } = this.#engine;
		const { arrivals } = view;
		const returns = this.#returns;
		/** Targets that have no room. */
		const starved = new Set<string>();
		const changes: MessageChange[] = [];
		const sending: { claimed: Claimed; index: number }[] = [];
		const complete = new Map<Claimed, Claimed>();
		let results: ApplyResult[];
		try {
			for (const { claimed, message } of due) {
				const change = await this.#step(claimed.group, message, starved);
				if (!change) continue;
				changes.push(change);
				if (change.event.type !== "sent") continue;
				let full = complete.get(claimed) ?? claimed;
				// It may have become due after the claim, which brings the payloads of what was due then.
				if (!currentPayload(full.payloads, message)) {
					full = { ...claimed, payloads: await store.payloads(claimed.group.id) };
					complete.set(claimed, full);
				}
				sending.push({ claimed: full, index: message.index });
			}
			results = await apply(this.#engine, changes);
		} catch (error) {
			// Stored as sent or not, none of it is sent.
			for (const { id, index, event } of changes)
				if (event.type === "sent") this.landed(messageId(id, index));
			throw error;
		} finally {
			this.#wakeStarved(starved);
			if (view.arrivals !== arrivals || this.#returns !== returns)
				this.wakeAgain(due.map(({ message }) => message.target));
		}
		const sent = new Map<Claimed, MessageRecord[]>();
		let place = 0;
		changes.forEach((change, index) => {
			if (change.event.type !== "sent") return;
			const entry = sending[place++];
			const result = results[index];
			if (!entry) return;
			const id = entry.claimed.group.messages[entry.index]?.id ?? "";
			const message =
				result?.result === "done" ? result.group.messages[entry.index] : undefined;
			if (!message) {
				this.landed(id);
				return;
			}
			this.#stored(message);
			sent.set(entry.claimed, [...(sent.get(entry.claimed) ?? []), message]);
		});
		for (const [one, messages] of sent) this.#send(one, messages);
	}

	/**
	 * Messages to these targets have been parked for want of room. There may be room again: nobody
	 * would have found them before they were stored.
	 */
	#wakeStarved(targets: ReadonlySet<string>): void {
		const { flights, store } = this.#engine;
		for (const target of targets) {
			flights.starve(target);
			if (flights.isHungry(target)) this.#engine.wakeAt(store.now());
		}
	}

	/**
	 * Has messages to these targets woken: somebody arrived, or the broker came back, while they were
	 * being parked, and may have been looked for before they were stored.
	 */
	wakeAgain(targets: readonly string[]): void {
		for (const target of targets) this.#engine.flights.starve(target);
		this.#engine.wakeAt(this.#engine.store.now());
	}

	async #step(
		group: GroupRecord,
		message: MessageRecord,
		starved: Set<string>,
	): Promise<MessageChange | undefined> {
		const { view, flights, settings } = this.#engine;
		const { target } = message;
		const wait = (why: string) =>
			this.#change(group, message, {
				type: "rescheduled",
				delay: PARK_MS,
				parked: true,
				why,
			});
		const full = () => {
			starved.add(target);
			this.#hasNoRoom(target);
			return wait("maxInFlight reached");
		};
		if (!this.#canSend(message.plain)) {
			return wait("LOTTOR_CHANNEL_UNAVAILABLE: the message broker can't be reached");
		}
		if (message.plain) {
			if (!view.serves(target)) return wait(`no living instance of ${target}`);
			const event = {
				type: "sent",
				storeId: null,
				instance: null,
				ackTimeout: settings.plainTimeout,
			} as const;
			if (flights.room(target) === 0) return full();
			this.#take(message);
			return this.#change(group, message, event);
		}
		if (view.storeOf(target) === undefined && view.instances(target, null).length > 0) {
			return wait("LOTTOR_PARTITIONED_TARGET: its living instances have different stores");
		}
		const storeId = message.storeId ?? this.#bindingFor(target);
		if (storeId === undefined || view.instances(target, storeId).length === 0) {
			return wait(
				message.storeId === null
					? `no living instance of ${target}`
					: `no living instance of ${target} with the store that the message is bound to`,
			);
		}
		if (needsFence(message)) {
			const fenced = await this.#fences.below(group, message, message.revision);
			if (fenced === "busy") {
				return this.#change(group, message, {
					type: "rescheduled",
					delay: REFUSED_MS,
					parked: false,
					why: "an older copy is running",
				});
			}
			if (fenced !== "fenced") return undefined;
		}
		if (flights.room(target) === 0) return full();
		// One by one, so that it is known of which message an instance died (R23).
		const suspect = message.vanished > 0;
		if (suspect && flights.hasSuspect(target)) {
			return this.#change(group, message, {
				type: "rescheduled",
				delay: SUSPECT_MS,
				parked: false,
				why: "another message over which an instance ended goes first",
			});
		}
		this.#take(message, suspect);
		const { ackTimeout } = settings;
		return this.#change(group, message, { type: "sent", storeId, instance: null, ackTimeout });
	}

	/** A message is no longer under way: what waited for its room may go. */
	landed(id: string): void {
		const { flights } = this.#engine;
		const target = flights.land(id);
		if (target === undefined) return;
		if (!this.#stopped && this.#full.has(target)) this.#refreshTarget(target);
		if (flights.isHungry(target)) this.#engine.wakeAt(this.#engine.store.now());
	}

	/** Makes due what waited for targets that have room again, only as much as fits. */
	async wakeHungry(): Promise<void> {
		const { flights, store, view } = this.#engine;
		for (const { target, room } of flights.hungry()) {
			if (!view.serves(target) && view.instances(target, null).length === 0) {
				flights.feed(target);
				continue;
			}
			const woken = await store.wake({ target }, room);
			if (woken < room) flights.feed(target);
			if (woken > 0) this.#engine.wakeAt(store.now());
		}
	}

	#send(claimed: Claimed, messages: readonly MessageRecord[]): void {
		const { group } = claimed;
		const items: { outgoing: Outgoing; message: MessageRecord }[] = [];
		for (const message of messages) {
			const payload = currentPayload(claimed.payloads, message);
			if (!payload) {
				this.#engine.logger.error(`Message ${message.id} has no stored payload`);
				continue;
			}
			const envelope = this.#envelope(group, message, payload, claimed.context);
			items.push({ message, outgoing: { envelope, plain: message.plain } });
		}
		if (items.length === 0) return;
		this.#engine.meters.count("sent", items.length);
		const settling: Promise<unknown>[] = [];
		const sent = this.#engine.settings.delivery.send(
			items.map((item) => item.outgoing),
			(place, result) => {
				const item = items[place];
				if (!item) return Promise.resolve(false);
				const settled = this.#settled(group, item.message, result);
				this.#quietly(settled);
				const stored = settled.catch(() => false);
				settling.push(stored);
				return stored;
			},
		);
		this.#quietly(sent.then(() => Promise.all(settling)));
	}

	async #settled(
		group: GroupRecord,
		message: MessageRecord,
		result: SendResult,
	): Promise<boolean> {
		const { flights, logger, view } = this.#engine;
		switch (result.result) {
			case "accepted":
				logger.info(`Message ${message.id} delivered to ${message.target}`);
				flights.note(message.id, result.instance);
				if (!result.report) return false;
				return this.#report(
					result.report,
					result.instance?.nodeID ?? this.#engine.broker.nodeID,
				);
			case "refused": {
				logger.debug(`Message ${message.id} was refused: ${result.error.message}`);
				this.landed(message.id);
				const why = `${result.error.code}: ${result.error.message}`;
				await apply(this.#engine, [
					this.#change(group, message, {
						type: "refused",
						delay: result.delay ?? REFUSED_MS,
						why,
					}),
				]);
				return false;
			}
			case "unknown": {
				if (result.ended) this.landed(message.id);
				flights.note(message.id, result.instance);
				if (result.garbled) this.#garbled(message, result.instance?.nodeID ?? "?");
				if (result.instance === null || view.isLiving(result.instance)) return false;
				// Its instance is gone: the others can be asked at once.
				const why = `the instance on ${result.instance.nodeID} is gone`;
				await apply(this.#engine, [
					this.#change(group, message, {
						type: "rescheduled",
						delay: 0,
						parked: false,
						why,
						instance: result.instance,
					}),
				]);
				return false;
			}
		}
	}

	#garbled({ id, target }: MessageRecord, nodeID: string): void {
		this.#engine.meters.count("refusedAnswers");
		this.#engine.complaints.say(
			"warn",
			"consume",
			nodeID,
			() => `${target} on ${nodeID} answered message ${id} with what is no answer`,
		);
	}

	#change(group: GroupRecord, message: MessageRecord, event: MessageEvent): MessageChange {
		return { id: group.id, index: message.index, epoch: group.epoch, event };
	}

	#envelope(
		group: GroupRecord,
		message: MessageRecord,
		payload: PayloadRecord,
		context: string,
	): Envelope {
		return {
			v: WIRE_VERSION,
			id: message.id,
			group: group.id,
			source: group.source,
			target: message.target,
			type: message.type,
			attempt: message.attempts + 1,
			revision: message.revision,
			receipt: makeReceipt(this.#engine.key, message.id),
			coordinator: this.#engine.storeId,
			storeId: message.storeId,
			createdAt: group.createdAt,
			sentAt: this.#engine.store.now(),
			orderingKey: message.orderingKey,
			context,
			content: payload.content,
		};
	}

	/** What fails here is in the store already and comes up again when it is due. */
	#quietly(work: Promise<unknown>): void {
		const ended: Promise<void> = work
			.then(
				() => undefined,
				(error: unknown) => {
					this.#engine.logger.warn(
						"A delivery step failed; it will be taken up when it is due again",
						error,
					);
				},
			)
			.finally(() => this.#underway.delete(ended));
		this.#underway.add(ended);
	}
}

function split<T>(items: readonly T[], test: (item: T) => boolean): [T[], T[]] {
	return [items.filter(test), items.filter((item) => !test(item))];
}

/**
 * Each group's first message for a target goes before any group's second one: however many a group
 * has, those of others don't wait until it has no more of them.
 */
function inTurns(due: readonly DueMessage[]): DueMessage[] {
	const turns = new Map<string, number>();
	const turnOf = ({ claimed, message }: DueMessage): number => {
		const line = `${claimed.group.id} ${message.target}`;
		const turn = turns.get(line) ?? 0;
		turns.set(line, turn + 1);
		return turn;
	};
	return due
		.map((entry) => ({ entry, turn: turnOf(entry) }))
		.sort((a, b) => a.turn - b.turn)
		.map(({ entry }) => entry);
}

function isDue(message: MessageRecord, now: number): boolean {
	return message.nextAt !== null && message.nextAt <= now;
}

/** @returns the payload of the message's revision: the latest one at or below it */
function currentPayload(
	payloads: readonly PayloadRecord[],
	message: MessageRecord,
): PayloadRecord | undefined {
	let found: PayloadRecord | undefined;
	for (const payload of payloads) {
		if (payload.message !== message.id || payload.revision > message.revision) continue;
		if (!found || payload.revision > found.revision) found = payload;
	}
	return found;
}
