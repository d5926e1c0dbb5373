import { Discoverers } from "moleculer";

import { invalidOptions } from "../../protocol/index.ts";
import { RegistryDiscoverer } from "./base.ts";
import { ConsulDiscoverer, type ConsulOptions } from "./consul.ts";
import { Etcd3Discoverer } from "./etcd3.ts";
import { EurekaDiscoverer, type EurekaOptions } from "./eureka.ts";
import type { DiscovererOptions } from "./options.ts";
import { RedisDiscoverer } from "./redis.ts";
import { ZooKeeperDiscoverer, type ZooKeeperOptions } from "./zookeeper.ts";

export type { ServiceAddress, TlsOptions } from "./contract.ts";
export type { DiscovererOptions } from "./options.ts";
export {
	ConsulDiscoverer,
	Etcd3Discoverer,
	EurekaDiscoverer,
	RedisDiscoverer,
	RegistryDiscoverer,
	ZooKeeperDiscoverer,
};
export type { ConsulOptions, EurekaOptions, ZooKeeperOptions };

type Make = (url: string, options: DiscovererOptions) => Discoverers.Base;

const BY_SCHEME: Readonly<Record<string, Make>> = {
	consul: (url, options) => new ConsulDiscoverer({ ...options, url }),
	consuls: (url, options) => new ConsulDiscoverer({ ...options, url }),
	zookeeper: (url, options) => new ZooKeeperDiscoverer({ ...options, url }),
	eureka: (url, options) => new EurekaDiscoverer({ ...options, url }),
	eurekas: (url, options) => new EurekaDiscoverer({ ...options, url }),
	etcd3: (url) => new Etcd3Discoverer(url),
	redis: (url) => new RedisDiscoverer(url),
	rediss: (url) => new RedisDiscoverer(url),
};

/**
 * Finds a discoverer by its URL: `consul://`, `zookeeper://`, `eureka://`, and Moleculer's own
 * `etcd3://` and `redis://`.
 *
 * @param spec the URL, or an instance
 * @param field the option's full name, for the error
 * @param options for `consul://`, `zookeeper://` and `eureka://`; Moleculer's own show no services
 * @throws LOTTOR_INVALID_OPTIONS naming `field`
 */
export function resolveDiscoverer(
	spec: string | Discoverers.Base,
	field = "registry.discoverer",
	options: DiscovererOptions = {},
): Discoverers.Base {
	if (spec instanceof Discoverers.Base) return spec;
	const scheme = typeof spec === "string" ? /^([a-z0-9]+):\/\//.exec(spec)?.[1] : undefined;
	const make = scheme === undefined ? undefined : BY_SCHEME[scheme];
	if (!make) {
		const schemes = Object.keys(BY_SCHEME).map((name) => `${name}://`);
		throw invalidOptions(field, `must be a discoverer, or its URL: ${schemes.join(", ")}`);
	}
	return make(spec, options);
}

/**
 * Makes Moleculer know the three by name, so that `registry.discoverer` may be
 * `{ type: "Consul", options: { … } }`.
 */
export function registerDiscoverers(): void {
	// Moleculer's types ask for an instance where its code takes the class.
	const register = Discoverers.register as unknown as (name: string, type: unknown) => void;
	register("Consul", ConsulDiscoverer);
	register("ZooKeeper", ZooKeeperDiscoverer);
	register("Eureka", EurekaDiscoverer);
}
