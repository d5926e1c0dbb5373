import type { GroupRecord, Guarantee, MessageState } from "../../protocol/index.ts";
import type { GroupView } from "../../services/coordinator/index.ts";
import { type Cluster, until } from "./cluster.ts";
import type { DatabaseOwner } from "./databases.ts";
import { countRuns, type Stored } from "./stored.ts";
import type { Consumer } from "./words.ts";

/** One thing that has to be so at a scenario's end. */
export interface Check {
	readonly what: string;
	readonly expected: unknown;
	readonly found: unknown;
	readonly held: boolean;
}

const SETTLE_MS = 120_000;

/** What a scenario plays on. */
export class Stage {
	readonly cluster: Cluster;
	/** What the stores of producers and consumers promise. */
	readonly guarantee: Guarantee;
	readonly checks: Check[] = [];
	readonly #stored: Stored;

	constructor(cluster: Cluster, stored: Stored, guarantee: Guarantee) {
		this.cluster = cluster;
		this.guarantee = guarantee;
		this.#stored = stored;
	}

	/** Whether only a record is kept beside the work. */
	get recorded(): boolean {
		return this.guarantee !== "transactional";
	}

	/** Notes what was found beside what was expected. */
	check(what: string, expected: unknown, found: unknown): void {
		const held = JSON.stringify(expected) === JSON.stringify(found);
		this.checks.push({ what, expected, found, held });
	}

	/** The group as the coordinator has it; undefined while that can't be asked. */
	async group(id: string): Promise<GroupRecord | undefined> {
		const view = await this.cluster
			.call<GroupView>("lottor.groups.get", { id })
			.catch(() => undefined);
		return view?.group;
	}

	/** Waits until the group is in this state, and checks that it came there. */
	async ends(id: string, state: GroupRecord["state"]): Promise<GroupRecord> {
		let found: GroupRecord | undefined;
		await until(`group ${id} to be ${state}`, SETTLE_MS, async () => {
			found = (await this.group(id)) ?? found;
			return found?.state === state;
		}).catch(() => undefined);
		this.check("group", state, found?.state);
		if (!found) throw new Error(`Group ${id} can't be read`);
		return found;
	}

	/** Waits until the group's message is in this state. */
	async message(id: string, state: MessageState): Promise<void> {
		await until(`message ${id}.0 to be ${state}`, SETTLE_MS, async () => {
			return (await this.group(id))?.messages[0]?.state === state;
		});
	}

	/** Checks how many rows of the group a service's own database has. */
	async rows(
		service: DatabaseOwner,
		table: string,
		group: string,
		expected: number,
	): Promise<void> {
		const found = await this.#stored.count(service, table, group);
		this.check(`rows in the database of ${service}`, expected, found);
	}

	/** Checks what the consumer's database has, and how often its handler ran. */
	async effects(
		service: Consumer,
		group: string,
		expected: { rows: number; runs: number },
	): Promise<void> {
		await this.rows(service, "effects", group, expected.rows);
		this.check(`handler runs of ${service}`, expected.runs, this.runs(service, group));
	}

	runs(service: string, group: string): number {
		return countRuns(this.cluster.folder, service, group);
	}
}
