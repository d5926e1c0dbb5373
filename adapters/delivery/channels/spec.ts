import { invalidOptions } from "../../../protocol/index.ts";
import type { ChannelAdapter, ChannelOptions } from "../../channels/index.ts";

/**
 * A message broker: `amqp://…`, `kafka://…`, `nats://…` or `redis://…`; options of an adapter of
 * `@moleculer/channels`, under `amqp`, `kafka`, `nats` or `redis`; or a hardened adapter of
 * `adapters/channels`.
 */
export type ChannelSpec = string | ChannelOptions | ChannelAdapter;

const SCHEMES = ["amqp", "amqps", "kafka", "nats", "redis", "rediss"];
const KEYS = ["amqp", "kafka", "nats", "redis"];

/**
 * @param field the option's full name, for the error, which shows no URL: that may hold a secret
 * @returns what the broker is called before it is connected, without secrets
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function checkSpec(spec: unknown, field: string): string {
	if (typeof spec === "string") {
		const found = /^([a-z]+):\/\/(?:[^@/]*@)?([^/?#@\s]+)(?:[/?#]|$)/.exec(spec);
		if (found && SCHEMES.includes(found[1] ?? "")) return `${found[1]}://${found[2]}`;
	} else if (typeof spec === "object" && spec !== null) {
		if ("publish" in spec && "backlog" in spec) return (spec as ChannelAdapter).description;
		const key = KEYS.find((one) => one in spec);
		if (key !== undefined) return `${key} by options`;
	}
	const urls = SCHEMES.map((scheme) => `${scheme}://`).join(", ");
	throw invalidOptions(
		field,
		`must be "direct", a URL (${urls}), options of a channels adapter, or an instance`,
	);
}
