import { due, type GroupRecord } from "../../protocol/index.ts";
import { DeliverySteps } from "./delivery-steps.ts";
import { Breach, type Emit, type Step, type Vector } from "./explorer.ts";
import {
	answered,
	answerOf,
	ATTEMPTS,
	CLAIM,
	claimOf,
	COMMIT,
	consumedBit,
	COORDINATORS,
	COPIES,
	copyBit,
	failedBit,
	GROUP,
	isFresh,
	Kind,
	kindOf,
	NET,
	Outcome,
	packProducer,
	PREPARE,
	PREPARED,
	PRODUCER,
	producerOf,
	refusedBit,
	REPORTS,
	REVISIONS,
	ROLLBACK,
	SENDING,
	Txn,
} from "./layout.ts";
import { byEach, byEachTo, each, TARGETS } from "./names.ts";
import { OperatorSteps } from "./operator-steps.ts";
import type { Parts } from "./protocol-model.ts";
import { FAILURE, FENCED } from "./records.ts";
import { NAMES, Writes } from "./writes.ts";

/** A bit of what is under way, and what it tells the coordinator. */
interface Report {
	/** Where it is under way. */
	readonly field: typeof COPIES | typeof REPORTS;
	readonly bit: number;
	readonly event: number;
	readonly steps: readonly Step[];
}

const PREPARES: Step = { name: "a coordinator stores the group and acknowledges prepare" };
const ROLLS_BACK: Step = { name: "a coordinator stores the rollback" };
const SENDS_EARLY: Step = { name: "a coordinator sends the copies, and has not stored the commit" };
const STEPS = {
	commit: byEachTo("stores the commit"),
	decide: byEachTo("stores the answer to its check-back"),
	claimCheck: byEach("claims the group to check back"),
	claimWork: byEach("claims the group to send or ask"),
	running: byEach("checks back: running"),
	committed: byEach("checks back: committed"),
	fenced: byEach("checks back: rolled back, fenced where nothing stood"),
	unfenced: byEach("checks back: rolled back, and no fence is stored"),
	other: byEach("checks back at an instance with another store: rolled back"),
	doubt: byEach("has had no answer for too long: in doubt"),
	ends: byEach("ends what it was at"),
	crashes: NAMES.map((name): Step => ({ name: `${name} crashes`, fault: "crash" })),
} as const;

/** What the coordinators do (PROTOCOL, sections 4 and 5): both may do everything. */
export class CoordinatorSteps {
	readonly #parts: Parts;
	readonly #writes: Writes;
	readonly #delivery: DeliverySteps;
	readonly #operator: OperatorSteps;
	readonly #reports: readonly Report[];
	readonly #doubt: number;

	constructor(parts: Parts) {
		this.#parts = parts;
		this.#writes = new Writes(parts);
		this.#delivery = new DeliverySteps(parts, this.#writes);
		this.#operator = new OperatorSteps(parts, this.#writes);
		this.#reports = allReports(parts);
		this.#doubt = parts.groups.event({
			type: "checked",
			answer: "none",
			delay: 1,
			maxChecks: 15,
			doubtAfter: 0,
		});
	}

	steps(state: Vector, emit: Emit): void {
		const group = this.#parts.groups.get(state[GROUP] as number);
		this.#prepare(state, group, emit);
		if (!group) return;
		this.#decisions(state, emit);
		this.#reported(state, emit);
		this.#operator.steps(state, group, emit);
		for (let k = 0; k < COORDINATORS; k++) {
			const claim = state[CLAIM + k] as number;
			if (claim !== 0 || state[SENDING + k] !== 0) {
				const step = STEPS.crashes[k] as Step;
				this.#writes.go(state, emit, step, { claim: [k, 0], sending: [k, 0] });
			}
			this.#delivery.sending(state, group, k, emit);
			if (claim === 0) {
				this.#claim(state, group, k, emit);
				continue;
			}
			this.#writes.go(state, emit, STEPS.ends[k] as Step, { claim: [k, 0] });
			if (kindOf(claim) === Kind.check) this.#check(state, k, emit);
			else if (kindOf(claim) === Kind.discard) this.#operator.goOn(state, k, emit);
			else this.#delivery.work(state, group, k, emit);
		}
	}

	/** @throws when one of these reports, which are to be forgotten, would change the group */
	mustChangeNothing(number: number, index: number, field: number, bits: number): void {
		for (const report of this.#reports) {
			if (report.field !== field || !(bits & report.bit)) continue;
			const result = this.#parts.groups.apply(number, index, report.event, true);
			if (result.group !== number || result.result === "conflict")
				throw new Error(`a late report changes group ${number}: ${result.result}`);
		}
	}

	#prepare(state: Vector, group: GroupRecord | undefined, emit: Emit): void {
		const net = state[NET] as number;
		if (!(net & PREPARE)) return;
		if (group && group.state !== "prepared") return;
		const change = { net: net | PREPARED };
		const isNew = group === undefined;
		this.#writes.go(state, emit, PREPARES, {
			...change,
			...(isNew && { group: this.#parts.groups.insert() }),
		});
	}

	#decisions(state: Vector, emit: Emit): void {
		const { groups, bug, messages } = this.#parts;
		const net = state[NET] as number;
		const number = state[GROUP] as number;
		if (net & ROLLBACK) {
			const result = groups.decide(number, "rolledBack", "producer", 0, "");
			this.#writes.decide(state, result, ROLLS_BACK, emit, 0, false);
		}
		if (!(net & COMMIT)) return;
		for (let k = 0; k < COORDINATORS; k++) {
			for (const targets of this.#targets(state, k)) {
				const step = STEPS.commit[k]?.[targets] as Step;
				const result = groups.decide(number, "committed", "producer", targets, "");
				this.#writes.decide(state, result, step, emit, k, false);
			}
		}
		if (bug !== "send before store") return;
		for (let index = 0; index < messages; index++)
			this.#writes.go(state, emit, SENDS_EARLY, { copies: [index, copyBit(1, 0)] });
	}

	/** Those that a decision of `k` can send at once. */
	#targets(state: Vector, k: number): readonly number[] {
		if (!this.#writes.room(state, k)) return [0];
		return this.#parts.messages === 1 ? [0, 1] : TARGETS;
	}

	#reported(state: Vector, emit: Emit): void {
		const number = state[GROUP] as number;
		for (let index = 0; index < this.#parts.messages; index++) {
			for (const { field, bit, event, steps } of this.#reports) {
				if (!((state[field + index] as number) & bit)) continue;
				const result = this.#parts.groups.apply(number, index, event, true);
				const step = steps[index] as Step;
				if (result.result === "conflict")
					throw new Breach(step, "a true report was refused: its result is lost");
				this.#writes.apply(state, result, step, emit, {});
			}
		}
	}

	#claim(state: Vector, group: GroupRecord, k: number, emit: Emit): void {
		const isUndecided = group.state === "prepared" || group.state === "inDoubt";
		if (!isUndecided && due(group) === undefined) return;
		const result = this.#parts.groups.claim(state[GROUP] as number, NAMES[k] ?? "");
		const claim = claimOf(isUndecided ? Kind.check : Kind.work);
		const step = (isUndecided ? STEPS.claimCheck : STEPS.claimWork)[k] as Step;
		this.#writes.claim(state, result, step, emit, k, claim);
	}

	#check(state: Vector, k: number, emit: Emit): void {
		const claim = state[CLAIM + k] as number;
		const answer = answerOf(claim);
		const number = state[GROUP] as number;
		const { groups, bug } = this.#parts;
		if (answer !== Outcome.none) {
			const to = answer === Outcome.committed ? "committed" : "rolledBack";
			for (const targets of to === "committed" ? this.#targets(state, k) : [0]) {
				const result = groups.decide(number, to, "resolved", targets, "");
				const step = STEPS.decide[k]?.[targets] as Step;
				this.#writes.decide(state, result, step, emit, k, true);
			}
			return;
		}
		const doubt = groups.apply(number, undefined, this.#doubt, isFresh(claim));
		this.#writes.apply(state, doubt, STEPS.doubt[k] as Step, emit, { claim: [k, 0] }, claim);
		if (bug === "check-back answered from another store") {
			const change = { claim: [k, answered(Outcome.rolledBack)] } as const;
			this.#writes.go(state, emit, STEPS.other[k] as Step, change);
		}
		this.#askProducer(state, k, emit);
	}

	/** R14: fences where nothing stands, unless a transaction holds the row. */
	#askProducer(state: Vector, k: number, emit: Emit): void {
		const producer = producerOf(state[PRODUCER] as number);
		if (producer.txn !== Txn.none) {
			this.#writes.go(state, emit, STEPS.running[k] as Step, { claim: [k, 0] });
			return;
		}
		const isCommitted = producer.outcome === Outcome.committed;
		const said = isCommitted ? Outcome.committed : Outcome.rolledBack;
		const claim = [k, answered(said)] as const;
		if (isCommitted) {
			this.#writes.go(state, emit, STEPS.committed[k] as Step, { claim });
		} else if (this.#parts.bug === "no fence") {
			this.#writes.go(state, emit, STEPS.unfenced[k] as Step, { claim });
		} else {
			const fenced = packProducer({ ...producer, outcome: Outcome.rolledBack });
			const step = STEPS.fenced[k] as Step;
			this.#writes.go(state, emit, step, { claim, producer: fenced });
		}
	}
}

function allReports({ groups }: Parts): Report[] {
	const reports: Report[] = [];
	for (const revision of REVISIONS) {
		reports.push({
			field: REPORTS,
			bit: consumedBit(revision),
			event: groups.event({ type: "consumed", revision, who: "consumer" }),
			steps: each("a coordinator stores the report consumed of"),
		});
		for (const attempt of ATTEMPTS) {
			reports.push(
				{
					field: REPORTS,
					bit: failedBit(attempt, revision),
					event: groups.event(groups.failed(attempt, revision, FAILURE)),
					steps: each(`a coordinator stores the report failed(${attempt}) of`),
				},
				{
					field: COPIES,
					bit: refusedBit(attempt, revision),
					event: groups.event(groups.failed(attempt, revision, FENCED)),
					steps: each("a coordinator stores the report fenced of"),
				},
			);
		}
	}
	return reports;
}
