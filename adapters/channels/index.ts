import { invalidOptions } from "../../protocol/index.ts";
import { AmqpChannelAdapter } from "./amqp.ts";
import type { ChannelAdapter, ChannelOptions } from "./contract.ts";
import type { ChannelAdapterClass } from "./harden.ts";
import { KafkaChannelAdapter } from "./kafka.ts";
import { NatsChannelAdapter } from "./nats.ts";
import { RedisChannelAdapter } from "./redis.ts";

export type * from "./contract.ts";
export type { ChannelAdapterClass } from "./harden.ts";
export { AmqpChannelAdapter, KafkaChannelAdapter, NatsChannelAdapter, RedisChannelAdapter };

interface Kind {
	readonly schemes: readonly string[];
	/** The key of the stock adapter's options. */
	readonly key: string;
	readonly Adapter: ChannelAdapterClass;
}

/** One line for each broker. */
const KINDS: readonly Kind[] = [
	{ schemes: ["redis", "rediss"], key: "redis", Adapter: RedisChannelAdapter },
	{ schemes: ["amqp", "amqps"], key: "amqp", Adapter: AmqpChannelAdapter },
	{ schemes: ["kafka"], key: "kafka", Adapter: KafkaChannelAdapter },
	{ schemes: ["nats", "tls"], key: "nats", Adapter: NatsChannelAdapter },
];

/**
 * Makes a hardened adapter for `@moleculer/channels`: its `Middleware({ adapter })` takes it as it is.
 *
 * @param spec `redis://…`, `amqp://…`, `kafka://…` or `nats://…`, user and password included; options
 *   as the stock adapter takes them, with a key `redis`, `amqp`, `kafka` or `nats`; or an adapter
 * @param options more options, for a URL
 * @param field the option's full name, for the error
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function channelAdapter(
	spec: string | ChannelOptions | ChannelAdapter,
	options: ChannelOptions = {},
	field = "adapter",
): ChannelAdapter {
	if (typeof spec === "string") {
		const scheme = /^([a-z]+):\/\//.exec(spec)?.[1] ?? "";
		const kind = KINDS.find(({ schemes }) => schemes.includes(scheme));
		if (!kind) throw invalidOptions(field, `must begin with ${EXPECTED}`);
		const { Adapter, key } = kind;
		try {
			return new Adapter({
				...options,
				[key]: { ...(options[key] as object | undefined), url: spec },
			});
		} catch {
			// The original error shows the URL, and with it the password.
			throw invalidOptions(field, `is no URL such as ${scheme}://user:password@host:port`);
		}
	}
	if (isAdapter(spec)) return spec;
	const kind = KINDS.find(({ key }) => isRecord(spec) && spec[key] !== undefined);
	if (!kind) {
		throw invalidOptions(field, `must begin with ${EXPECTED}, or be the options of an adapter`);
	}
	return new kind.Adapter({ ...options, ...spec });
}

const EXPECTED = KINDS.map(({ schemes: [scheme = ""] }) => `${scheme}://`).join(", ");

function isRecord(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null;
}

function isAdapter(spec: unknown): spec is ChannelAdapter {
	return (
		isRecord(spec) &&
		["publish", "backlog", "declare"].every((name) => {
			return typeof spec[name] === "function";
		})
	);
}
