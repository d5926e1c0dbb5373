import type { Random } from "../../protocol/index.ts";

/** Numbers that look random and are the same in every run. */
export function sequence(start: number): Random {
	let state = start >>> 0;
	const next = () => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		return state;
	};
	return {
		fraction: () => next() / 2 ** 32,
		bytes: (size) => Uint8Array.from({ length: size }, () => next() >>> 24),
	};
}
