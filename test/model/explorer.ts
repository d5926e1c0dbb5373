/** A state as a model packs it. */
export type Vector = Uint16Array;

/** What a step leads to: told to {@link Model.steps}' second argument once for each step. */
export type Emit = (next: Vector, step: Step) => void;

/** Names a step. Only called to print it. */
export interface Step {
	readonly name: string;
	/** Something that goes wrong: the end must be reachable without any more of these. */
	readonly fault?: "crash" | "loss";
}

/** A system whose every reachable state is to be seen. */
export interface Model {
	/** Numbers in a state. */
	readonly width: number;
	start(): Vector;
	/** Emits every step that is possible; the vector that it hands over may be reused. */
	steps(state: Vector, emit: Emit): void;
	/** Turns a state into the one that stands for all that are alike. */
	normalize(state: Vector): void;
	/** @returns what is wrong with the state; undefined when nothing is */
	breach(state: Vector): Wrong | undefined;
	/** Whether all has ended as it must. */
	isEnd(state: Vector): boolean;
	print(state: Vector): string;
}

/** What a state must not be like. */
export interface Wrong {
	readonly what: string;
	/** What that comes to for those who rely on the promise, where it comes to one of these. */
	readonly harm?: Harm;
}

export type Harm = "lost" | "phantom" | "doubles";

/** Thrown inside {@link Model.steps} by a step that must not be possible. */
export class Breach extends Error {
	readonly step: Step;

	constructor(step: Step, what: string) {
		super(what);
		this.step = step;
	}
}

export interface Exploration {
	readonly states: number;
	/** Steps between different states. */
	readonly steps: number;
	/** Steps of the longest shortest way. */
	readonly depth: number;
	readonly ends: number;
	/** Steps that are a crash. */
	readonly crashes: number;
	/** What of these was met: who crashed, and at what. */
	readonly points: ReadonlySet<string>;
	readonly violation?: Violation;
}

export interface Violation extends Wrong {
	/** The steps that lead there, each with the state that it leaves. */
	readonly trace: readonly { readonly step: string; readonly state: string }[];
}

/** A set of states, each with its number, kept in flat arrays. */
class States {
	readonly #width: number;
	#data: Uint16Array;
	#slots: Int32Array;
	#parents: Int32Array;
	#size = 0;

	constructor(width: number) {
		this.#width = width;
		this.#data = new Uint16Array(width << 16);
		this.#parents = new Int32Array(1 << 16);
		this.#slots = new Int32Array(1 << 18);
	}

	get size(): number {
		return this.#size;
	}

	parent(index: number): number {
		return this.#parents[index] as number;
	}

	read(index: number, into: Vector): void {
		const from = index * this.#width;
		for (let at = 0; at < this.#width; at++) into[at] = this.#data[from + at] as number;
	}

	/** @returns the state's number */
	add(state: Vector, parent: number): number {
		const mask = this.#slots.length - 1;
		let slot = hash(state) & mask;
		for (; ; slot = (slot + 1) & mask) {
			const index = (this.#slots[slot] as number) - 1;
			if (index < 0) break;
			if (this.#isAt(index, state)) return index;
		}
		const index = this.#size++;
		if (index >= this.#parents.length) this.#growRows();
		this.#data.set(state, index * this.#width);
		this.#parents[index] = parent;
		this.#slots[slot] = index + 1;
		if (this.#size * 2 > this.#slots.length) this.#growSlots();
		return index;
	}

	#isAt(index: number, state: Vector): boolean {
		const from = index * this.#width;
		for (let at = 0; at < this.#width; at++)
			if (this.#data[from + at] !== state[at]) return false;
		return true;
	}

	#growRows(): void {
		const data = new Uint16Array(this.#data.length * 2);
		data.set(this.#data);
		this.#data = data;
		const parents = new Int32Array(this.#parents.length * 2);
		parents.set(this.#parents);
		this.#parents = parents;
	}

	#growSlots(): void {
		const slots = new Int32Array(this.#slots.length * 2);
		const mask = slots.length - 1;
		const state = new Uint16Array(this.#width);
		for (let index = 0; index < this.#size; index++) {
			this.read(index, state);
			let slot = hash(state) & mask;
			while (slots[slot] !== 0) slot = (slot + 1) & mask;
			slots[slot] = index + 1;
		}
		this.#slots = slots;
	}
}

function hash(state: Vector): number {
	let mixed = 0x811c9dc5;
	for (const value of state) {
		mixed = Math.imul(mixed ^ value, 0x01000193);
		mixed ^= mixed >>> 15;
	}
	mixed = Math.imul(mixed ^ (mixed >>> 13), 0x5bd1e995);
	return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** Numbers in the order in which they were pushed. */
class Numbers {
	#values = new Int32Array(1 << 16);
	size = 0;

	push(value: number): void {
		if (this.size === this.#values.length) {
			const values = new Int32Array(this.size * 2);
			values.set(this.#values);
			this.#values = values;
		}
		this.#values[this.size++] = value;
	}

	at(index: number): number {
		return this.#values[index] as number;
	}
}

/**
 * Visits every reachable state, breadth first, and then checks that from each of them an end can
 * be reached without any further fault. In a finite graph that is the same as: every run that is
 * fair to its steps ends.
 */
export function explore(model: Model): Exploration {
	const states = new States(model.width);
	const good = new Numbers();
	const offsets = new Numbers();
	const state = new Uint16Array(model.width);
	const normal = new Uint16Array(model.width);
	const start = model.start();
	model.normalize(start);
	states.add(start, -1);
	let steps = 0;
	let depth = 0;
	let crashes = 0;
	const points = new Set<string>();
	const figures = () => ({ steps, depth, crashes, points });
	let layerEnd = 1;
	for (let index = 0; index < states.size; index++) {
		if (index === layerEnd) {
			depth++;
			layerEnd = states.size;
		}
		states.read(index, state);
		offsets.push(good.size);
		const wrong = model.breach(state);
		if (wrong) return found(model, states, figures(), index, undefined, wrong);
		try {
			model.steps(state, (next, step) => {
				normal.set(next);
				model.normalize(normal);
				const reached = states.add(normal, index);
				if (reached === index) return;
				steps++;
				if (step.fault === undefined) good.push(reached);
				if (step.fault !== "crash") return;
				crashes++;
				points.add(step.name);
			});
		} catch (error) {
			if (!(error instanceof Breach)) throw error;
			return found(model, states, figures(), index, error.step, { what: error.message });
		}
	}
	offsets.push(good.size);
	const { ends, stuck } = endless(model, states, offsets, good);
	const all = { states: states.size, ...figures(), ends };
	if (stuck < 0) return all;
	const wrong = { what: "no end can be reached from here" };
	return found(model, states, all, stuck, undefined, wrong);
}

/** Marks, from the ends backwards, whatever can reach one. */
function endless(
	model: Model,
	states: States,
	offsets: Numbers,
	good: Numbers,
): { ends: number; stuck: number } {
	const ends = new Uint8Array(states.size);
	const state = new Uint16Array(model.width);
	let count = 0;
	for (let index = 0; index < states.size; index++) {
		states.read(index, state);
		if (!model.isEnd(state)) continue;
		ends[index] = 1;
		count++;
	}
	for (let changed = true; changed;) {
		changed = false;
		for (let index = states.size - 1; index >= 0; index--) {
			if (ends[index] === 1) continue;
			const last = offsets.at(index + 1);
			for (let edge = offsets.at(index); edge < last; edge++) {
				if (ends[good.at(edge)] !== 1) continue;
				ends[index] = 1;
				changed = true;
				break;
			}
		}
	}
	return { ends: count, stuck: ends.indexOf(0) };
}

function found(
	model: Model,
	states: States,
	figures: Pick<Exploration, "steps" | "depth" | "crashes" | "points"> & { ends?: number },
	index: number,
	last: Step | undefined,
	wrong: Wrong,
): Exploration {
	const way: number[] = [];
	for (let at = index; at >= 0; at = states.parent(at)) way.unshift(at);
	const trace = way.map((at, place) => {
		const state = new Uint16Array(model.width);
		states.read(at, state);
		const step = place === 0 ? "start" : nameOf(model, states, way[place - 1] as number, state);
		return { step, state: model.print(state) };
	});
	if (last) trace.push({ step: last.name, state: "" });
	return { ends: 0, ...figures, states: states.size, violation: { ...wrong, trace } };
}

/** Finds the step again that leads from one state to the next. */
function nameOf(model: Model, states: States, from: number, to: Vector): string {
	const state = new Uint16Array(model.width);
	const normal = new Uint16Array(model.width);
	states.read(from, state);
	let name = "";
	try {
		model.steps(state, (next, step) => {
			normal.set(next);
			model.normalize(normal);
			if (name === "" && normal.every((value, at) => value === to[at])) name = step.name;
		});
	} catch (error) {
		if (!(error instanceof Breach)) throw error;
	}
	return name;
}
