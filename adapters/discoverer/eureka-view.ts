import type { Presence } from "./contract.ts";

/** An instance as Eureka tells it, as far as it matters here. */
export interface RemoteInstance {
	readonly instanceId: string;
	readonly status: string;
	readonly actionType?: string;
	readonly metadata?: Readonly<Record<string, string>>;
}

/** The answer to a fetch, of everything or of what has changed. */
interface Answer {
	readonly applications: {
		readonly apps__hashcode: string;
		readonly application?: readonly Application[] | Application;
	};
}

interface Application {
	readonly name: string;
	readonly instance: readonly RemoteInstance[] | RemoteInstance;
}

/** What is known of Eureka's instances, kept up by its deltas as its own clients do. */
export class EurekaView {
	readonly #app: string;
	#instances = new Map<string, { app: string; instance: RemoteInstance }>();
	#complete = false;

	/** @param app the application whose instances are the nodes */
	constructor(app: string) {
		this.#app = app;
	}

	/** Whether changes can be applied; otherwise everything has to be fetched. */
	get complete(): boolean {
		return this.#complete;
	}

	reset(): void {
		this.#complete = false;
	}

	/** Takes the answer to a fetch of everything. */
	replace(answer: unknown): void {
		this.#instances = new Map();
		for (const [app, instance] of instancesOf(answer as Answer)) this.#set(app, instance);
		this.#complete = true;
	}

	/** Takes the answer to a fetch of the changes; complete only if it then has what the server has. */
	apply(answer: unknown): void {
		for (const [app, instance] of instancesOf(answer as Answer)) {
			if (instance.actionType === "DELETED")
				this.#instances.delete(`${app}/${instance.instanceId}`);
			else this.#set(app, instance);
		}
		this.#complete = this.#hash() === (answer as Answer).applications.apps__hashcode;
	}

	/** @returns the nodes, each with a text that differs when its instance does */
	nodes(): Presence {
		const nodes = new Map<string, string>();
		for (const { app, instance } of this.#instances.values()) {
			const { nodeID, instanceID = "", seq = "" } = instance.metadata ?? {};
			if (app === this.#app && nodeID !== undefined)
				nodes.set(nodeID, `${instanceID}/${seq}`);
		}
		return nodes;
	}

	#set(app: string, instance: RemoteInstance): void {
		this.#instances.set(`${app}/${instance.instanceId}`, { app, instance });
	}

	/** Eureka's checksum: how many instances have which status, in the order of the statuses' names. */
	#hash(): string {
		const counts = new Map<string, number>();
		for (const { instance } of this.#instances.values()) {
			counts.set(instance.status, (counts.get(instance.status) ?? 0) + 1);
		}
		return [...counts]
			.sort(([a], [b]) => (a < b ? -1 : 1))
			.map(([status, count]) => `${status}_${count}_`)
			.join("");
	}
}

function* instancesOf(answer: Answer): Generator<[string, RemoteInstance]> {
	for (const { name, instance } of list(answer.applications.application)) {
		for (const one of list(instance)) yield [name, one];
	}
}

/** Eureka's JSON has a bare object where a list has one item. */
function list<T>(items: readonly T[] | T | undefined): readonly T[] {
	if (items === undefined) return [];
	return Array.isArray(items) ? (items as readonly T[]) : [items as T];
}
