import type { Emit, Step, Vector } from "./explorer.ts";
import {
	COMMIT,
	GROUP,
	NET,
	Outcome,
	packProducer,
	Phase,
	PREPARE,
	PREPARED,
	PRODUCER,
	type Producer,
	producerOf,
	ROLLBACK,
	Txn,
	WIDTH,
} from "./layout.ts";
import type { Parts } from "./protocol-model.ts";

const STEPS = {
	prepare: { name: "the producer sends prepare" },
	giveUp: { name: "the producer waits no longer for prepare" },
	heard: { name: "the producer hears that the group is prepared" },
	fenced: { name: "the producer finds its group fenced" },
	begin: { name: "the producer begins its transaction: outcome row first" },
	throws: { name: "the work throws; the transaction is rolled back, rollback is sent" },
	issue: { name: "the producer issues COMMIT" },
	told: { name: "COMMIT returns; commit is sent" },
	unclear: { name: "COMMIT does not return" },
	guess: { name: "the producer sends rollback" },
	resolveCommitted: { name: "the producer finds its row committed; commit is sent" },
	resolveRolledBack: { name: "the producer finds, or fences, its row; rollback is sent" },
	silent: { name: "the producer can't tell, and says nothing" },
	lands: { name: "the database commits" },
	aborts: { name: "the database aborts" },
	sweep: { name: "the producer sends commit again: its row is not acknowledged" },
	crash: { name: "the producer crashes", fault: "crash" },
} as const satisfies Record<string, Step>;

/** What a producer does, and its database (PROTOCOL, section 3). */
export class ProducerSteps {
	readonly #parts: Parts;
	readonly #next = new Uint16Array(WIDTH);

	constructor(parts: Parts) {
		this.#parts = parts;
	}

	steps(state: Vector, emit: Emit): void {
		const producer = producerOf(state[PRODUCER] as number);
		const { phase, txn, outcome } = producer;
		const net = state[NET] as number;
		const go = (step: Step, change: Partial<Producer>, calls = 0) => {
			this.#next.set(state);
			this.#next[PRODUCER] = packProducer({ ...producer, ...change });
			this.#next[NET] = net | calls;
			emit(this.#next, step);
		};
		switch (phase) {
			case Phase.idle:
				go(STEPS.prepare, { phase: Phase.preparing }, PREPARE);
				break;
			case Phase.preparing:
				go(STEPS.prepare, {}, PREPARE);
				go(STEPS.giveUp, { phase: Phase.ended });
				if (net & PREPARED) go(STEPS.heard, { phase: Phase.ready });
				break;
			case Phase.ready:
				if (outcome !== Outcome.none) go(STEPS.fenced, { phase: Phase.ended });
				else go(STEPS.begin, { phase: Phase.open, txn: Txn.open });
				break;
			case Phase.open:
				go(STEPS.throws, { phase: Phase.ended, txn: Txn.none }, ROLLBACK);
				go(STEPS.issue, { phase: Phase.issued, txn: Txn.committing });
				break;
			case Phase.issued:
				if (txn === Txn.none && outcome === Outcome.committed)
					go(STEPS.told, { phase: Phase.ended }, COMMIT);
				go(STEPS.unclear, { phase: Phase.unclear });
				break;
			case Phase.unclear:
				this.#resolve(producer, go);
				break;
		}
		if (txn === Txn.committing) {
			go(STEPS.lands, { txn: Txn.none, outcome: Outcome.committed });
			go(STEPS.aborts, { txn: Txn.none });
		}
		if (outcome === Outcome.committed && this.#isUndecided(state)) go(STEPS.sweep, {}, COMMIT);
		if (phase !== Phase.idle && phase !== Phase.ended) {
			const left = txn === Txn.open ? Txn.none : txn;
			go(STEPS.crash, { phase: Phase.ended, txn: left });
		}
	}

	/** R8: after an unclear COMMIT only the store knows. */
	#resolve(
		{ txn, outcome }: Producer,
		go: (step: Step, change: Partial<Producer>, calls?: number) => void,
	): void {
		go(STEPS.silent, { phase: Phase.ended });
		if (this.#parts.bug === "rollback after an unclear COMMIT") {
			go(STEPS.guess, { phase: Phase.ended }, ROLLBACK);
		}
		if (txn !== Txn.none) return;
		if (outcome === Outcome.committed) {
			go(STEPS.resolveCommitted, { phase: Phase.ended }, COMMIT);
			return;
		}
		const change = { phase: Phase.ended, outcome: Outcome.rolledBack };
		go(STEPS.resolveRolledBack, change, ROLLBACK);
	}

	#isUndecided(state: Vector): boolean {
		const group = this.#parts.groups.get(state[GROUP] as number);
		return group?.state === "prepared" || group?.state === "inDoubt";
	}
}
