import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../../../../protocol/index.ts";
import { CoordinatorFile } from "../../random/coordinator-file.ts";
import { allPoints, type Point } from "../points.ts";
import { type Case, CASES, type Kill } from "./cases.ts";
import { Trio } from "./trio.ts";

/** Not a bar: how long a case may take on a machine that has much else to do. */
const LIMIT_MS = 60_000;
const POLL_MS = 50;
/** A person who sees that a message failed acts again after this, should the action be lost. */
const PERSON_MS = 1_000;

/** The figures of a run. */
export interface KillResult {
	/** Processes that were killed with SIGKILL. */
	kills: number;
	/** Points that a process stood at when it was killed. */
	points: number;
	/** Points of the registry at which none was. */
	unhit: Point[];
	transactions: number;
	lost: number;
	phantom: number;
	doubles: number;
	/** Anything else: a point that was not reached, a group that did not end, a process that did. */
	wrong: number;
	/** A sentence for each. */
	findings: string[];
}

export interface KillOptions {
	/** Takes every n-th case only. @default 1 */
	readonly every?: number;
	/** Trios of processes at work at the same time. @default 2 */
	readonly lanes?: number;
	readonly progress?: (text: string) => void;
}

/** Kills one process out of three, or one after another, at each point, and compares the ledgers. */
export async function runKills(options: KillOptions = {}): Promise<KillResult> {
	const { every = 1, lanes = 2, progress } = options;
	const cases = CASES.filter((_, place) => place % every === 0);
	const byCalls = cases.filter((one) => !one.broker);
	const overBroker = cases.filter((one) => one.broker);
	const result: KillResult = {
		kills: 0,
		points: 0,
		unhit: [],
		transactions: 0,
		lost: 0,
		phantom: 0,
		doubles: 0,
		wrong: 0,
		findings: [],
	};
	const stoodAt = new Set<Point>();
	const lane = async (left: Case[], broker: boolean) => {
		if (left.length === 0) return;
		const one = new Lane(stoodAt, broker, progress);
		await one.run(() => left.shift());
		one.addTo(result);
	};
	const both = async () => {
		await lane(byCalls, false);
		await lane(overBroker, true);
	};
	await Promise.all(Array.from({ length: lanes }, both));
	result.points = stoodAt.size;
	result.unhit = allPoints().filter((point) => !stoodAt.has(point));
	return result;
}

/** One trio, which plays case after case. */
class Lane {
	readonly #folder = mkdtempSync(join(tmpdir(), "lottor-kill-matrix-"));
	readonly #trio: Trio;
	readonly #stoodAt: Set<Point>;
	readonly #progress: KillOptions["progress"];
	readonly #wrong: string[] = [];
	readonly #discarded = new Set<string>();
	readonly #ledger = {
		lost: 0,
		phantom: 0,
		doubles: 0,
		transactions: 0,
		findings: [] as string[],
	};

	constructor(stoodAt: Set<Point>, broker: boolean, progress: KillOptions["progress"]) {
		this.#trio = new Trio(this.#folder, broker);
		this.#stoodAt = stoodAt;
		this.#progress = progress;
	}

	async run(next: () => Case | undefined): Promise<void> {
		try {
			await this.#trio.start(LIMIT_MS);
			const file = new CoordinatorFile(this.#folder);
			for (let one = next(); one; one = next()) await this.#play(one, file);
			file.close();
			await this.#trio.clear();
			this.#compare();
		} catch (error) {
			this.#wrong.push(messageOf(error));
		} finally {
			await this.#trio.clear();
		}
		if (this.#wrong.length + this.#ledger.findings.length === 0)
			rmSync(this.#folder, { recursive: true });
		else this.#wrong.push(`databases and logs are kept in ${this.#folder}`);
	}

	addTo(result: KillResult): void {
		const { lost, phantom, doubles, transactions, findings } = this.#ledger;
		const wrong = [...this.#wrong, ...this.#trio.misbehaviour];
		result.kills += this.#trio.kills;
		result.transactions += transactions;
		result.lost += lost;
		result.phantom += phantom;
		result.doubles += doubles;
		result.wrong += wrong.length;
		result.findings.push(...findings, ...wrong);
	}

	async #play(one: Case, file: CoordinatorFile): Promise<void> {
		const name = one.kills.map(({ role, point }) => `${role} at ${point}`).join(", then ");
		const start = Date.now();
		const [first] = one.kills;
		if (!first) return;
		await this.#trio.arm(first.role, [first.point], LIMIT_MS);
		this.#ledger.transactions++;
		this.#trio.command("shop", { do: "order", order: one.order, fails: one.fails === true });
		if (one.stops) this.#trio.command("lottor", { do: "stop" });
		for (const [place, kill] of one.kills.entries()) {
			if (!(await this.#reached(kill, one, file))) {
				this.#wrong.push(`${name}: ${kill.point} was not reached`);
				await this.#trio.arm(kill.role, [], LIMIT_MS);
				break;
			}
			this.#stoodAt.add(kill.point);
			const then = one.kills[place + 1];
			// Armed before the kill, which is what brings it there.
			if (then && then.role !== kill.role)
				await this.#trio.arm(then.role, [then.point], LIMIT_MS);
			await this.#trio.kill(kill.role, then?.role === kill.role ? [then.point] : []);
			if (then?.role !== kill.role) await this.#trio.ready(kill.role, LIMIT_MS);
		}
		if (!(await this.#ended(one, file))) {
			this.#wrong.push(`${name}: it does not end: ${JSON.stringify(file.states())}`);
		}
		this.#progress?.(`${name}: ${Date.now() - start} ms`);
	}

	async #reached(kill: Kill, one: Case, file: CoordinatorFile): Promise<boolean> {
		return this.#until(one, file, () => this.#trio.isAt(kill.role, kill.point));
	}

	async #ended(one: Case, file: CoordinatorFile): Promise<boolean> {
		return this.#until(
			one,
			file,
			() => file.busy() === 0 && (file.states()["inDoubt"] ?? 0) === 0,
		);
	}

	/** Waits, while a person looks after what failed. */
	async #until(one: Case, file: CoordinatorFile, test: () => boolean): Promise<boolean> {
		const end = Date.now() + LIMIT_MS;
		for (let looked = 0; !test();) {
			if (Date.now() > end) return false;
			if (Date.now() - looked > PERSON_MS) {
				looked = Date.now();
				this.#lookAfter(one, file);
			}
			await sleep(POLL_MS);
		}
		return true;
	}

	#lookAfter({ person = "edit", rechecks, notes }: Case, file: CoordinatorFile): void {
		const act = (action: string, ids: readonly string[]) =>
			this.#trio.command("shop", { do: "operate", action, ids });
		for (const { id, state } of file.groups()) {
			if (state !== "inDoubt") continue;
			if (rechecks) act("groups.recheck", [id]);
			act(this.#orders().has(id) ? "groups.commit" : "groups.rollback", [id]);
		}
		const failed = file.messages().filter(({ state }) => state === "failed");
		const ids = failed.map(({ id }) => id);
		if (ids.length === 0) return;
		if (person === "discard") {
			for (const id of ids) this.#discarded.add(id);
			act("messages.discard", ids);
			return;
		}
		if (notes) act("audit.add", ids);
		act("messages.edit", ids);
		act("messages.retry", ids);
	}

	/** @returns the groups whose business row stands, and whether they have a message to a plain target */
	#orders(): Map<string, number> {
		const sql = "SELECT grp AS id, max(plain) AS n FROM orders";
		return new Map([
			...counts(this.#folder, "shop", sql),
			...counts(this.#folder, "bank-rows", sql),
		]);
	}

	/** Compares the business rows with the effects, once no process runs any more. */
	#compare(): void {
		const ledger = this.#ledger;
		const file = new CoordinatorFile(this.#folder);
		const groups = new Map(file.groups().map((group) => [group.id, group]));
		file.close();
		const orders = this.#orders();
		const sql = "SELECT message AS id, count(*) AS n FROM effects";
		const effects = counts(this.#folder, "stock", sql);
		const plain = counts(this.#folder, "till", sql);
		const lost = (text: string) => {
			ledger.lost++;
			ledger.findings.push(`lost: ${text}`);
		};
		for (const group of this.#trio.committed) {
			if (!orders.has(group))
				lost(`a caller was told that ${group} is committed, and no row`);
		}
		for (const [group, isPlain] of orders) {
			// At least once is what a plain target gets (R25).
			if (isPlain && !plain.has(`${group}.1`))
				lost(`message ${group}.1 has no effect at the plain target`);
			const id = `${group}.0`;
			if (!effects.has(id) && !this.#discarded.has(id))
				lost(`message ${id} has no effect; group ${groups.get(group)?.state}`);
		}
		for (const [id, n] of [...effects, ...plain]) {
			if (n > 1 && effects.has(id)) {
				ledger.doubles++;
				ledger.findings.push(`doubles: message ${id} took effect ${n} times`);
			}
			if (!orders.has(id.replace(/\.\d+$/, ""))) {
				ledger.phantom++;
				ledger.findings.push(`phantom: message ${id} took effect without its row`);
			}
		}
		for (const { id, state, conflict } of groups.values()) {
			if (conflict !== null || (state !== "completed" && state !== "rolledBack"))
				this.#wrong.push(`group ${id} is ${state}${conflict ? `: ${conflict}` : ""}`);
		}
	}
}

function counts(folder: string, name: string, sql: string): Map<string, number> {
	const db = new DatabaseSync(join(folder, `${name}.db`), { readOnly: true });
	try {
		const rows = db.prepare(`${sql} GROUP BY id`).all();
		return new Map(rows.map((row) => [String(row["id"]), Number(row["n"])]));
	} finally {
		db.close();
	}
}
