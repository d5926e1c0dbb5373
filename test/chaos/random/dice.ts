/** Repeatable chance. */
export class Dice {
	#state: number;

	/** @param seed the same text gives the same throws */
	constructor(seed: string) {
		let hash = 2_166_136_261;
		for (const char of seed) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 16_777_619);
		this.#state = hash >>> 0;
	}

	/** From 0 up to, but not including, 1 (mulberry32). */
	fraction(): number {
		this.#state = (this.#state + 0x6d2b79f5) >>> 0;
		let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
	}

	/** A whole number from `least` to `most`. */
	between(least: number, most: number): number {
		return least + Math.floor(this.fraction() * (most - least + 1));
	}

	/** True with this probability. */
	chance(probability: number): boolean {
		return this.fraction() < probability;
	}

	pick<T>(from: readonly T[]): T {
		const found = from[Math.floor(this.fraction() * from.length)];
		if (found === undefined) throw new Error("Nothing to pick from");
		return found;
	}

	/** The same values in an order of chance. */
	shuffled<T>(values: readonly T[]): T[] {
		const left = [...values];
		return values.flatMap(() => left.splice(this.between(0, left.length - 1), 1));
	}

	/** One of the keys, each as likely as its weight says. */
	weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
		const keys = Object.keys(weights) as K[];
		let left = this.fraction() * keys.reduce((sum, key) => sum + weights[key], 0);
		for (const key of keys) {
			left -= weights[key];
			if (left < 0) return key;
		}
		return keys[0] as K;
	}
}

/** Dice that let nothing happen which only may happen. */
export class Calm extends Dice {
	override chance(): boolean {
		return false;
	}
}
