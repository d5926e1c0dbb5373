import type { ServiceBroker } from "moleculer";
import type { FailureKind } from "../adapters/coordinator-store/contract.ts";
import { type ItemAnswer, messageOf } from "../protocol/index.ts";
import type { Client, GroupView } from "../services/coordinator/index.ts";

interface Row {
	readonly [column: string]: unknown;
}

interface Args {
	readonly what: string;
	readonly id?: string;
	readonly options: {
		readonly state?: string;
		readonly limit?: string;
		readonly why?: string;
		readonly text?: string;
	};
}

/** A command of Moleculer's REPL. */
export interface ReplCommand {
	readonly command: string;
	readonly description: string;
	readonly options: readonly { readonly option: string; readonly description: string }[];
	action(broker: ServiceBroker, args: Args): Promise<void>;
}

interface Page {
	readonly items: readonly Row[];
}

type Look = (broker: ServiceBroker, args: Args) => Promise<void>;

const DEFAULT_LIMIT = 20;

const LOOKS: Readonly<Record<string, Look>> = {
	async stats(broker) {
		console.log(await broker.call("lottor.stats"));
	},
	async groups(broker, args) {
		const { items } = await broker.call<Page, object>("lottor.groups.list", query(args));
		console.table(
			items.map((group) => pick(group, ["id", "state", "source", "conflict", "waiting"])),
		);
	},
	async group(broker, args) {
		const view = await broker.call<GroupView, object>("lottor.groups.get", { id: args.id });
		const { messages, ...group } = view.group;
		console.log(group);
		console.table(
			messages.map((message) => ({
				...pick({ ...message }, ["id", "target", "type", "state", "attempts", "waiting"]),
				error: message.error?.code ?? null,
			})),
		);
		console.table(
			view.timeline.map((entry) => ({
				at: new Date(entry.at).toISOString(),
				...pick({ ...entry }, ["message", "event", "from", "to", "by", "why"]),
			})),
		);
	},
	async messages(broker, args) {
		const { items } = await broker.call<Page, object>("lottor.messages.list", query(args));
		console.table(
			items.map((message) => pick(message, ["id", "state", "target", "type", "attempts"])),
		);
	},
	async failures(broker) {
		const kinds = await broker.call<FailureKind[]>("lottor.failures");
		console.table(
			kinds.map(({ newest, ...kind }) => ({
				...kind,
				newest: newest.id,
				error: newest.error?.message ?? null,
			})),
		);
	},
	async audit(broker, { options }) {
		const limit = Number(options.limit ?? DEFAULT_LIMIT);
		const { items } = await broker.call<Page, object>("lottor.audit.list", { limit });
		console.table(
			items.map((entry) => ({
				at: new Date(entry["at"] as number).toISOString(),
				...pick(entry, ["who", "action", "result", "subject", "why"]),
			})),
		);
	},
	/** Of the admin service of this process, where nobody is configured. */
	async login(broker) {
		console.log(await broker.call("lottor-admin.loginLink"));
	},
	async clients(broker) {
		const clients = await broker.call<Client[]>("lottor.clients");
		console.table(
			clients.map((client) => ({
				...pick({ ...client }, ["nodeID", "host", "version", "latency", "running"]),
				services: client.services.map((one) => one.service).join(" "),
			})),
		);
	},
};

/** What changes something, with the action it calls. */
const ORDERS: Readonly<Record<string, string>> = {
	retry: "lottor.messages.retry",
	discard: "lottor.messages.discard",
	commit: "lottor.groups.commit",
	rollback: "lottor.groups.rollback",
	recheck: "lottor.groups.recheck",
};

/**
 * Commands for Moleculer's REPL: `replOptions: { customCommands: lottorCommands() }` in the
 * broker's options, then `lottor groups`, `lottor group <id>`, `lottor retry <message id>`, ….
 */
export function lottorCommands(): ReplCommand[] {
	const whats = [...Object.keys(LOOKS), ...Object.keys(ORDERS)].join(", ");
	return [
		{
			command: "lottor <what> [id]",
			description: `Reliable messages: ${whats}`,
			options: [
				{
					option: "--state <state>",
					description: "groups, messages: only those in the state",
				},
				{
					option: "--limit <n>",
					description: `groups, messages, audit: how many (${DEFAULT_LIMIT})`,
				},
				{
					option: "--text <text>",
					description:
						"groups, messages: part of an id, type, target, error or payload field",
				},
				{
					option: "--why <reason>",
					description: "retry, discard, commit, rollback: noted in the timeline",
				},
			],
			async action(broker, args) {
				try {
					const look = LOOKS[args.what];
					const order = ORDERS[args.what];
					if (look) await look(broker, args);
					else if (order) await obey(broker, order, args);
					else console.error(`"${args.what}" is none of ${whats}`);
				} catch (error) {
					console.error(messageOf(error));
				}
			},
		},
	];
}

async function obey(broker: ServiceBroker, action: string, args: Args): Promise<void> {
	const { why } = args.options;
	const item = { id: args.id ?? "", by: "repl", ...(why === undefined ? {} : { why }) };
	const [answer] = await broker.call<ItemAnswer[], object>(action, { items: [item] });
	const text = answer?.error ? `: ${answer.error.code}: ${answer.error.message}` : "";
	console.log(
		`${answer?.result ?? "no answer"}${answer?.state ? ` (${answer.state})` : ""}${text}`,
	);
}

function query({ options }: Args): object {
	return {
		limit: Number(options.limit ?? DEFAULT_LIMIT),
		...(options.state === undefined ? {} : { states: [options.state] }),
		...(options.text === undefined ? {} : { text: options.text }),
	};
}

function pick(row: Row, columns: readonly string[]): Row {
	return Object.fromEntries(columns.map((column) => [column, row[column]]));
}
