import type { Clock, Owner } from "../../protocol/index.ts";

interface Flight {
	readonly target: string;
	/** Instances ended while they had it. */
	readonly suspect: boolean;
	/** When it no longer takes room, unless it is asked about until then. */
	until: number;
	instance: Owner | null;
}

/**
 * Messages that this coordinator has under way, to hold each target to its limit (R21). Only a
 * memory aid: it may forget, the store does not.
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
		return this.#byId.size;
	}

	/** How many more the target may take now. */
	room(target: string): number {
		if (this.count(target) >= this.#limit) this.#forgetOld(target);
		return Math.max(this.#limit - this.count(target), 0);
	}

	/** @param suspect whether instances ended while they had it */
	take(id: string, target: string, suspect = false): void {
		const until = this.#clock.now() + this.#forgetAfter;
		this.#byId.set(id, { target, suspect, until, instance: this.instanceOf(id) });
		const ids = this.#byTarget.get(target);
		if (ids) ids.add(id);
		else this.#byTarget.set(target, new Set([id]));
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
		this.take(id, target, this.#byId.get(id)?.suspect ?? false);
		const flight = this.#byId.get(id);
		if (flight) flight.until += delay;
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

	#forgetOld(target: string): void {
		const now = this.#clock.now();
		for (const id of this.#byTarget.get(target) ?? []) {
			const flight = this.#byId.get(id);
			if (!flight || flight.until <= now) this.land(id);
		}
	}
}
