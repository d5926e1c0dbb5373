import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** A group as the coordinator's file has it. */
export interface StoredGroup {
	readonly id: string;
	readonly state: string;
	readonly conflict: string | null;
}

/** A message as the coordinator's file has it. */
export interface StoredMessage {
	readonly id: string;
	readonly target: string;
	readonly state: string;
	readonly error: string | null;
}

/** A group that somebody is to do something about. */
export interface OpenGroup {
	readonly id: string;
	readonly version: number;
	readonly state: string;
	readonly source: string;
	readonly createdAt: number;
}

type Awaitable<T> = T | Promise<T>;

/** The coordinators' store, read from outside, without asking them. */
export interface CoordinatorData {
	/** Whether a paused coordinator may hold a lock that all others need (R31). */
	readonly isFile: boolean;
	/** What a coordinator had leased, and what of it is due within so many milliseconds. */
	leasedBy(node: string, soon: number): Awaitable<OpenGroup[]>;
	/** What a producer had prepared and not decided. */
	preparedBy(node: string): Awaitable<OpenGroup[]>;
	one(id: string): Awaitable<OpenGroup | undefined>;
	/** How many groups are not decided, delivering or leased (PROTOCOL, section 8, number 5). */
	busy(): Awaitable<number>;
	/** Groups by state. */
	states(): Awaitable<Record<string, number>>;
	groups(): Awaitable<StoredGroup[]>;
	messages(): Awaitable<StoredMessage[]>;
	close(): Awaitable<void>;
}

const OPEN = "SELECT id, version, state, source, created_at AS createdAt FROM lottor_groups";
/** The coordinators' file. */
export class CoordinatorFile implements CoordinatorData {
	readonly isFile = true;
	readonly #db: DatabaseSync;

	/** The file must be there. */
	constructor(folder: string) {
		this.#db = new DatabaseSync(join(folder, "lottor.db"), { readOnly: true, timeout: 5_000 });
	}

	close(): void {
		this.#db.close();
	}

	leasedBy(node: string, soon: number): OpenGroup[] {
		const where = "WHERE substr(lease_owner, 1, ?) = ? AND due_at < ?";
		const values = [node.length + 1, `${node}|`, Date.now() + soon];
		return this.#db.prepare(`${OPEN} ${where}`).all(...values) as unknown as OpenGroup[];
	}

	preparedBy(node: string): OpenGroup[] {
		const where = "WHERE state = 'prepared' AND owner_node = ?";
		return this.#db.prepare(`${OPEN} ${where}`).all(node) as unknown as OpenGroup[];
	}

	one(id: string): OpenGroup | undefined {
		return this.#db.prepare(`${OPEN} WHERE id = ?`).get(id) as unknown as OpenGroup | undefined;
	}

	busy(): number {
		const row = this.#db
			.prepare(
				`SELECT count(*) AS n FROM lottor_groups WHERE state IN ('prepared', 'committed')
					OR (lease_owner IS NOT NULL AND due_at IS NOT NULL AND lease_until > ?)`,
			)
			.get(Date.now());
		return Number(row?.["n"]);
	}

	states(): Record<string, number> {
		const rows = this.#db
			.prepare("SELECT state, count(*) AS n FROM lottor_groups GROUP BY state")
			.all();
		return Object.fromEntries(rows.map((row) => [String(row["state"]), Number(row["n"])]));
	}

	groups(): StoredGroup[] {
		return this.#db
			.prepare("SELECT id, state, conflict FROM lottor_groups")
			.all() as unknown as StoredGroup[];
	}

	messages(): StoredMessage[] {
		return this.#db
			.prepare(
				`SELECT id || '.' || idx AS id, target, m.state, error_code AS error
					FROM lottor_messages AS m JOIN lottor_groups USING (seq)`,
			)
			.all() as unknown as StoredMessage[];
	}
}
