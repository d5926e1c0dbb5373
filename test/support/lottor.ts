import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrokerOptions, type Service, ServiceBroker, type ServiceSchema } from "moleculer";
import { openSqliteFile, type SqliteFile, type SqliteTx } from "../../adapters/sqlite/index.ts";
import {
	type MessageMap,
	type MessagesSchema,
	type Reliable,
	ReliableMessage,
	type ReliableMessageOptions,
	reliableOf,
} from "../../mixins/reliable-message/index.ts";
import {
	Coordinator,
	type CoordinatorOptions,
	type GroupView,
} from "../../services/coordinator/index.ts";
import { until } from "./until.ts";

/** Short times: what the defaults do in seconds is done in tenths. */
export const SHORT: CoordinatorOptions = {
	checkAfter: 300,
	ackTimeout: 300,
	lease: 200,
	pollInterval: 50,
	askTimeout: 1_000,
	retryPolicy: { delay: 50, retries: 3 },
};

/** Real coordinators, producers and consumers of this process, on SQLite files of their own. */
export class TestCluster {
	readonly folder = mkdtempSync(join(tmpdir(), "lottor-"));
	readonly brokers: ServiceBroker[] = [];
	readonly #files = new Map<string, SqliteFile>();

	/** A broker; several need `transporter: "Fake"`. Start it yourself. */
	broker(nodeID: string, options: BrokerOptions = {}): ServiceBroker {
		const broker = new ServiceBroker({ nodeID, logger: false, ...options });
		this.brokers.push(broker);
		return broker;
	}

	coordinator(broker: ServiceBroker, options: CoordinatorOptions = {}): Service {
		const store = `sqlite:${join(this.folder, "lottor.db")}`;
		return broker.createService(Coordinator({ ...SHORT, store, ...options }));
	}

	/** A service with the mixin on the SQLite file `<name>.db`. */
	participant(
		broker: ServiceBroker,
		name: string,
		messages: MessagesSchema = {},
		options: Partial<ReliableMessageOptions> & { schema?: Partial<ServiceSchema> } = {},
	): Service {
		const { schema, ...mixin } = options;
		const store = `sqlite:${join(this.folder, `${name}.db`)}`;
		return broker.createService({
			name,
			mixins: [ReliableMessage({ store, ...mixin })],
			messages,
			...schema,
		} as ServiceSchema);
	}

	/** The service's database, beside the service. */
	async database(name: string, create?: string): Promise<SqliteFile> {
		let file = this.#files.get(name);
		if (!file) {
			file = await openSqliteFile(join(this.folder, `${name}.db`));
			this.#files.set(name, file);
			if (create !== undefined) await file.write((tx) => tx.run(create));
		}
		return file;
	}

	async rows(name: string, sql: string): Promise<Record<string, unknown>[]> {
		const file = await this.database(name);
		const rows = await file.read((reader) => reader.all(sql));
		return rows.map((row) => ({ ...row }));
	}

	reliable<Sends extends MessageMap>(service: Service): Reliable<SqliteTx, Sends> {
		return reliableOf<Sends, SqliteTx>(service);
	}

	view(id: string): Promise<GroupView> {
		const broker = this.brokers[0] as ServiceBroker;
		return broker.call<GroupView, object>("lottor.groups.get", { id });
	}

	/** Waits until the group is in the state. */
	async reached(id: string, state: string): Promise<GroupView> {
		let view = await this.view(id);
		await until(async () => {
			view = await this.view(id);
			return view.group.state === state;
		});
		return view;
	}

	async stop(): Promise<void> {
		await Promise.all(this.brokers.map((broker) => broker.stop()));
		for (const file of this.#files.values()) await file.close();
		rmSync(this.folder, { recursive: true, force: true });
	}
}
