import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Context, ServiceBroker, type ServiceSchema } from "moleculer";
import type {
	AskAnswer,
	AskItem,
	CheckAnswer,
	CheckItem,
	ConsumeAnswer,
	Envelope,
	FenceAnswer,
	FenceItem,
	GroupRecord,
	ItemAnswer,
	MessageRecord,
	ParticipantMetadata,
	PrepareAnswer,
	PrepareItem,
	PrepareMessage,
	Report,
} from "../../protocol/index.ts";
import { newGroupId, systemRandom, WIRE_VERSION } from "../../protocol/index.ts";
import {
	Coordinator,
	type CoordinatorOptions,
	type GroupView,
	runDue,
} from "../../services/coordinator/index.ts";
import { prepareItem } from "./groups.ts";
import { ManualClock } from "./manual-clock.ts";

/** A service that answers Lottor's calls as its script says, and keeps what it was asked. */
export interface Scripted {
	readonly schema: ServiceSchema;
	readonly consumed: Envelope[];
	readonly checked: CheckItem[];
	readonly asked: AskItem[];
	readonly fenced: FenceItem[];
	consume: (envelope: Envelope) => ConsumeAnswer | Promise<ConsumeAnswer>;
	check: (item: CheckItem) => CheckAnswer | Promise<CheckAnswer>;
	ask: (item: AskItem) => AskAnswer | Promise<AskAnswer>;
	fence: (item: FenceItem) => FenceAnswer | Promise<FenceAnswer>;
}

/** @returns the report that the consumer of this envelope would make */
export function reportOf(
	envelope: Envelope,
	failed?: {
		code?: string;
		message?: string;
		retryable?: boolean;
		retries?: number;
		delay?: number;
	},
): Report {
	const { id, receipt, storeId, attempt, revision } = envelope;
	const base = { id, receipt, storeId, attempt, revision };
	if (!failed) return { ...base, result: "consumed" };
	const error = {
		code: failed.code ?? "TEST",
		message: failed.message ?? "no luck",
		retryable: failed.retryable ?? true,
	};
	const policy = {
		retries: failed.retries ?? 11,
		delay: failed.delay ?? 1_000,
		factor: 2,
		maxDelay: 300_000,
	};
	return { ...base, result: "failed", error, policy };
}

export function scripted(name: string, metadata: Partial<ParticipantMetadata> = {}): Scripted {
	const said: Omit<ParticipantMetadata, "instanceID"> = {
		wire: WIRE_VERSION,
		roles: ["producer", "consumer"],
		storeId: `store-${name}`,
		guarantee: "transactional",
		aliases: [],
		types: ["t"],
		partitioned: false,
		...metadata,
	};
	function action<Item, Answer>(log: Item[], answer: (item: Item) => Answer) {
		return {
			visibility: "public" as const,
			handler(ctx: Context<{ items: Item[] }>) {
				log.push(...ctx.params.items);
				return Promise.all(ctx.params.items.map(answer));
			},
		};
	}
	const logs = {
		consumed: [] as Envelope[],
		checked: [] as CheckItem[],
		asked: [] as AskItem[],
		fenced: [] as FenceItem[],
	};
	const self: Scripted = {
		...logs,
		consume: (envelope) => ({ result: "reported", report: reportOf(envelope) }),
		check: () => ({ result: "running" }),
		ask: () => ({ result: "running" }),
		fence: () => ({ result: "fenced" }),
		schema: {
			name,
			metadata: { lottor: said },
			actions: {
				"reliable.consume": action(logs.consumed, (item) => self.consume(item)),
				"reliable.check": action(logs.checked, (item) => self.check(item)),
				"reliable.ask": action(logs.asked, (item) => self.ask(item)),
				"reliable.fence": action(logs.fenced, (item) => self.fence(item)),
			},
		},
	};
	return self;
}

/** A coordinator on a SQLite file of its own, with a clock that the test moves. */
export class TestCoordinator {
	readonly clock: ManualClock;
	readonly folder: string;
	broker: ServiceBroker;
	readonly #options: CoordinatorOptions;
	readonly #services: readonly ServiceSchema[];
	readonly #transporter: "Fake" | null;

	private constructor(
		options: CoordinatorOptions,
		services: readonly ServiceSchema[],
		transporter: "Fake" | null,
	) {
		this.#transporter = transporter;
		this.clock = new ManualClock();
		this.folder = mkdtempSync(join(tmpdir(), "lottor-"));
		this.#options = {
			store: `sqlite:${join(this.folder, "lottor.db")}`,
			clock: this.clock,
			...options,
		};
		this.#services = services;
		this.broker = this.#newBroker();
	}

	#newBroker(): ServiceBroker {
		const broker = new ServiceBroker({
			nodeID: "node",
			logger: false,
			transporter: this.#transporter,
		});
		broker.createService(Coordinator(this.#options));
		for (const schema of this.#services) broker.createService(schema);
		return broker;
	}

	static async start(
		options: CoordinatorOptions = {},
		...services: ServiceSchema[]
	): Promise<TestCoordinator> {
		return TestCoordinator.#begin(new TestCoordinator(options, services, null));
	}

	/** The same, on a transporter that joins the brokers of this process. */
	static async startConnected(
		options: CoordinatorOptions = {},
		...services: ServiceSchema[]
	): Promise<TestCoordinator> {
		return TestCoordinator.#begin(new TestCoordinator(options, services, "Fake"));
	}

	static async #begin(test: TestCoordinator): Promise<TestCoordinator> {
		await test.broker.start();
		await test.due();
		return test;
	}

	/** Stops and starts it on the same file, as another process start. */
	async restart(): Promise<void> {
		await this.broker.stop();
		this.broker = this.#newBroker();
		await this.broker.start();
		await this.due();
	}

	async stop(): Promise<void> {
		await this.broker.stop();
		rmSync(this.folder, { recursive: true, force: true });
	}

	/** Moves the clock on, and waits for all that became due. */
	async due(ms = 0): Promise<void> {
		await this.clock.advance(ms);
		await runDue(this.broker);
		await runDue(this.broker);
	}

	call<T>(action: string, params: object = {}): Promise<T> {
		return this.broker.call<T, object>(`lottor.${action}`, params);
	}

	newId(): string {
		return newGroupId(this.clock, systemRandom);
	}

	item(
		messages: readonly Partial<PrepareMessage>[],
		over: Partial<PrepareItem> = {},
	): PrepareItem {
		return prepareItem({
			id: this.newId(),
			owner: { nodeID: this.broker.nodeID, instanceID: this.broker.instanceID },
			messages: messages.map((message) => ({
				target: "auth",
				type: "t",
				content: "{}",
				...message,
			})),
			...over,
		});
	}

	async prepare(
		messages: readonly Partial<PrepareMessage>[],
		over: Partial<PrepareItem> = {},
	): Promise<string> {
		const item = this.item(messages, over);
		const [answer] = await this.call<PrepareAnswer[]>("prepare", { items: [item] });
		if (answer?.result !== "prepared") throw new Error(JSON.stringify(answer));
		return item.id;
	}

	async commit(id: string, storeId = "store-user"): Promise<ItemAnswer> {
		const answers = await this.call<ItemAnswer[]>("commit", { items: [{ id, storeId }] });
		await this.due();
		return answers[0] as ItemAnswer;
	}

	async rollback(id: string, storeId = "store-user"): Promise<ItemAnswer> {
		const answers = await this.call<ItemAnswer[]>("rollback", { items: [{ id, storeId }] });
		return answers[0] as ItemAnswer;
	}

	async report(report: unknown): Promise<ItemAnswer> {
		const answers = await this.call<ItemAnswer[]>("report", { items: [report] });
		await this.due();
		return answers[0] as ItemAnswer;
	}

	view(id: string): Promise<GroupView> {
		return this.call<GroupView>("groups.get", { id });
	}

	async group(id: string): Promise<GroupRecord> {
		return (await this.view(id)).group;
	}

	async message(id: string, index = 0): Promise<MessageRecord> {
		const { messages } = await this.group(id);
		return messages[index] as MessageRecord;
	}
}
