import type { GroupRecord, MessageState } from "../../protocol/index.ts";
import type { GroupView } from "../../services/coordinator/index.ts";
import { type Cluster, until } from "./cluster.ts";
import { countRows, countRuns } from "./stored.ts";

/** One thing that has to be so at a scenario's end. */
export interface Check {
	readonly what: string;
	readonly expected: unknown;
	readonly found: unknown;
	readonly held: boolean;
}

const SETTLE_MS = 60_000;

/** What a scenario plays on. */
export class Stage {
	readonly cluster: Cluster;
	readonly checks: Check[] = [];

	constructor(cluster: Cluster) {
		this.cluster = cluster;
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
	rows(service: string, table: string, group: string, expected: number): void {
		const found = countRows(this.cluster.folder, service, table, group);
		this.check(`rows in ${service}.db`, expected, found);
	}

	/** Checks what the consumer's database has, and how often its handler ran. */
	effects(service: string, group: string, expected: { rows: number; runs: number }): void {
		this.rows(service, "effects", group, expected.rows);
		this.check(`handler runs of ${service}`, expected.runs, this.runs(service, group));
	}

	runs(service: string, group: string): number {
		return countRuns(this.cluster.folder, service, group);
	}
}
