import { type Bug, BUGS } from "./bugs.ts";
import { type Exploration, explore } from "./explorer.ts";
import { type ModelOptions, ProtocolModel } from "./protocol-model.ts";

/** One system that is explored to its last state. */
export interface Config extends ModelOptions {
	readonly name: string;
}

/**
 * The first is the one that PROTOCOL.md asks for. The others have one message, so that there is
 * room for more: the memory of a coordinator between its store and its send with a consumer that
 * refuses, and an operator.
 */
export const CONFIGS: readonly Config[] = [
	{ name: "two messages", messages: 2, attempts: 2, acts: 0, sendsAtOnce: true },
	{ name: "one message, step by step", messages: 1, attempts: 2, acts: 0, sendsAtOnce: false },
	{ name: "one message and an operator", messages: 1, attempts: 1, acts: 2, sendsAtOnce: false },
];

/** A small system that every seeded bug shows in. */
const SEEDED = CONFIGS[1] as Config;

export interface Explored extends Exploration {
	readonly config: string;
	/** Seconds of the clock. */
	readonly seconds: number;
}

/** Explores the systems whose name contains `only`. */
export function checkModel(only = "", progress?: (done: Explored) => void): Explored[] {
	const all = CONFIGS.filter(({ name }) => name.includes(only));
	return all.map((config) => {
		const done = timed(config.name, config);
		progress?.(done);
		return done;
	});
}

/** Explores a small system with the mistake built in: it must find a violation. */
export function checkBug(bug: Bug): Explored {
	return timed(bug, { ...SEEDED, bug });
}

export const ALL_BUGS = Object.keys(BUGS) as Bug[];

function timed(config: string, options: ModelOptions): Explored {
	const start = performance.now();
	const exploration = explore(new ProtocolModel(options));
	return { config, ...exploration, seconds: Math.round(performance.now() - start) / 1000 };
}
