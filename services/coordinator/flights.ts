import type { Clock, Owner } from "../../protocol/index.ts";

/** From a send to the first look at what became of it, where room is short; in milliseconds. */
export const FIRST_LOOK_MS = 50;
/** The same where there is room enough. */
const CALM_LOOK_MS = 1_000;

/** A message under way. Each send is another flight. */
export interface Flight {
	readonly id: string;
	readonly target: string;
	/** Instances ended while they had it. */
	readonly suspect: boolean;
	/** When it was sent. */
	since: number;
	/** When it no longer takes room, unless it is asked about until then. */
	until: number;
	/** From when on the store is asked whether it ended elsewhere. */
	lookAt: number;
	instance: Owner | null;
}

/**
 * Messages that this coordinator has under way, to hold each target to its limit (R21). Only a
 * memory aid: it may forget, the store does not. What ends at another coordinator is not heard of
 * here: who has too much under way, or for long, looks in the store (see {@link Landings}).
 */
export class Flights {
	readonly #clock: Clock;
	readonly #limit: number;
	readonly #forgetAfter: number;
	readonly #byId = new Map<string, Flight>();
	readonly #byTarget = new Map<string, Set<string>>();
	/** Targets whose messages had to wait for room. */
	readonly #starved = new Set<string>();

	/** @param forgetAfter milliseconds after which a flight no longer takes room: it will be asked about */
	constructor(clock: Clock, limit: number, forgetAfter: number) {
		this.#clock = clock;
		this.#limit = limit;
		this.#forgetAfter = forgetAfter;
	}

	/** Messages under way to the target. */
	count(target: string): number {
		return this.#byTarget.get(target)?.size ?? 0;
	}

	/** All messages under way. */
	get size(): number {
		const now = this.#clock.now();
		let size = 0;
		for (const { until } of this.#byId.values()) if (until > now) size++;
		return size;
	}

	/** How many more the target may take now. */
	room(target: string): number {
		if (this.count(target) >= this.#limit) this.#forgetOld(target);
		return Math.max(this.#limit - this.count(target), 0);
	}

	/**
	 * Takes room for a message that is about to be stored as sent.
	 *
	 * @param suspect whether instances ended while they had it
	 * @param lasts milliseconds that it takes room for at the most
	 */
	take(id: string, target: string, suspect = false, lasts = this.#forgetAfter): void {
		const since = this.#clock.now();
		const until = since + lasts;
		// Before it is stored as sent, the store would say that it is not under way.
		const lookAt = Number.POSITIVE_INFINITY;
		const instance = this.instanceOf(id);
		this.#byId.set(id, { id, target, suspect, since, until, lookAt, instance });
		const ids = this.#byTarget.get(target);
		if (ids) ids.add(id);
		else this.#byTarget.set(target, new Set([id]));
	}

	/** The message is stored as sent. */
	stored(id: string): void {
		const flight = this.#byId.get(id);
		if (flight) this.looked(flight);
	}

	/** Whether half of the target's room is taken, or more. */
	isCrowded(target: string): boolean {
		return this.count(target) * 2 >= this.#limit;
	}

	/** @returns flights that may have ended elsewhere by now */
	toLook(): Flight[] {
		const now = this.#clock.now();
		return [...this.#byId.values()].filter((flight) => this.#lookAt(flight) <= now);
	}

	/** When somebody is to look next for the sake of a target whose room is short. */
	nextLook(): number {
		let next = Number.POSITIVE_INFINITY;
		for (const [target, ids] of this.#byTarget) {
			if (!this.isCrowded(target)) continue;
			for (const id of ids) next = Math.min(next, this.#byId.get(id)?.lookAt ?? next);
		}
		return next;
	}

	/** It is still under way: the older it is, the longer nobody looks again. */
	looked(flight: Flight): void {
		const now = this.#clock.now();
		flight.lookAt = now + Math.max(now - flight.since, FIRST_LOOK_MS);
	}

	/** Whether it is the last flight of its message, and has not landed. */
	has(flight: Flight): boolean {
		return this.#byId.get(flight.id) === flight;
	}

	/** Whether a message is under way to the target over which instances have ended. */
	hasSuspect(target: string): boolean {
		const now = this.#clock.now();
		for (const id of this.#byTarget.get(target) ?? []) {
			const flight = this.#byId.get(id);
			// An old one is not landed: to whom it went is still asked for.
			if (flight?.suspect && flight.until > now) return true;
		}
		return false;
	}

	/** Notes to whom a message went. */
	note(id: string, instance: Owner | null): void {
		const flight = this.#byId.get(id);
		if (flight) flight.instance = instance;
	}

	/** The message is still with its target, and is asked about again after `delay` milliseconds. */
	renew(id: string, target: string, delay: number): void {
		const before = this.#byId.get(id);
		this.take(id, target, before?.suspect ?? false);
		const flight = this.#byId.get(id);
		if (!flight) return;
		flight.until += delay;
		flight.since = before?.since ?? flight.since;
		this.looked(flight);
	}

	/** To whom a message went, where this coordinator knows. */
	instanceOf(id: string): Owner | null {
		return this.#byId.get(id)?.instance ?? null;
	}

	/** @returns the target that the message was under way to, if it was */
	land(id: string): string | undefined {
		const flight = this.#byId.get(id);
		if (!flight) return undefined;
		this.#byId.delete(id);
		const ids = this.#byTarget.get(flight.target);
		ids?.delete(id);
		if (ids?.size === 0) this.#byTarget.delete(flight.target);
		return flight.target;
	}

	/** Messages of this target wait for room. */
	starve(target: string): void {
		this.#starved.add(target);
	}

	/** Whether messages of this target wait for room, and there is enough to be worth a look. */
	isHungry(target: string): boolean {
		return this.#starved.has(target) && this.room(target) * 2 >= this.#limit;
	}

	/** Targets whose waiting messages can be woken, with how many. */
	hungry(): { target: string; room: number }[] {
		// What ended at another coordinator never lands here: it must not keep others waiting.
		for (const target of this.#starved) this.#forgetOld(target);
		return [...this.#starved]
			.filter((target) => this.isHungry(target))
			.map((target) => ({ target, room: this.room(target) }));
	}

	/** Nothing waits for this target any more. */
	feed(target: string): void {
		this.#starved.delete(target);
	}

	#lookAt({ target, lookAt, since }: Flight): number {
		return this.isCrowded(target) ? lookAt : Math.max(lookAt, since + CALM_LOOK_MS);
	}

	#forgetOld(target: string): void {
		const now = this.#clock.now();
		for (const id of this.#byTarget.get(target) ?? []) {
			const flight = this.#byId.get(id);
			if (!flight || flight.until <= now) this.land(id);
		}
	}
}
