import { afterEach, beforeAll, expect, it } from "@jest/globals";
import { type Discoverers, ServiceBroker } from "moleculer";

import {
	ConsulDiscoverer,
	EurekaDiscoverer,
	type ServiceAddress,
	ZooKeeperDiscoverer,
} from "../../adapters/discoverer/index.ts";
import { buildSpringViewer, seenBySpring, springInstalled } from "../support/spring-viewer.ts";

const SERVICES: Readonly<Record<string, ServiceAddress>> = {
	"spring-pets": { port: 9_001, metadata: { zone: "blue" } },
	"v2.spring-shop": { port: 9_443, secure: true },
};

interface Registry {
	readonly discoverer: (url: string) => Discoverers.Base;
	/** Spring's properties for it. */
	readonly properties: (url: URL) => Readonly<Record<string, string>>;
	/** How Spring's client for it writes a service's name. */
	readonly named: (service: string) => string;
	/** What it adds to the metadata. */
	readonly extra: (secure: boolean) => object;
}

const common = { address: "127.0.0.1", services: SERVICES };

const REGISTRIES: Readonly<Record<string, Registry>> = {
	CONSUL_URL: {
		discoverer: (url) => new ConsulDiscoverer({ ...common, url }),
		properties: ({ hostname, port }) => ({
			"spring.cloud.consul.enabled": "true",
			"spring.cloud.consul.host": hostname,
			"spring.cloud.consul.port": port,
		}),
		named: (service) => service,
		extra: (secure) => ({ secure: String(secure) }),
	},
	ZOOKEEPER_URL: {
		discoverer: (url) => new ZooKeeperDiscoverer({ ...common, url }),
		properties: ({ host }) => ({
			"spring.cloud.zookeeper.enabled": "true",
			"spring.cloud.zookeeper.connect-string": host,
		}),
		named: (service) => service,
		extra: () => ({}),
	},
	EUREKA_URL: {
		discoverer: (url) => new EurekaDiscoverer({ ...common, url }),
		properties: ({ host, pathname }) => ({
			"eureka.client.enabled": "true",
			"eureka.client.service-url.defaultZone": `http://${host}${pathname}/`,
		}),
		named: (service) => service.toUpperCase(),
		extra: () => ({}),
	},
};

let jar: string;
const cleanups: (() => Promise<void>)[] = [];

beforeAll(async () => {
	if (springInstalled()) jar = await buildSpringViewer();
}, 300_000);

afterEach(async () => {
	for (const cleanup of cleanups.splice(0)) await cleanup();
});

for (const [variable, { discoverer, properties, named, extra }] of Object.entries(REGISTRIES)) {
	const { [variable]: registry, NATS_URL: transporter } = process.env;
	const present = registry !== undefined && transporter !== undefined && springInstalled();
	const required = process.env["LOTTOR_REQUIRE_SERVERS"] === "1";
	(present || required ? it : it.skip)(
		`a Spring Cloud application sees Moleculer's services as its own kind: ${variable}`,
		async () => {
			if (!present) {
				throw new Error(
					`${variable} and NATS_URL must be set, mvn and java installed: npm run servers -- up`,
				);
			}
			const broker = new ServiceBroker({
				nodeID: "node-1",
				namespace: `spring-${process.pid}`,
				transporter: transporter as never,
				logger: false,
				registry: { discoverer: discoverer(registry) },
				skipProcessEventRegistration: true,
			});
			broker.createService({ name: "spring-pets" });
			broker.createService({ name: "spring-shop", version: 2 });
			cleanups.push(() => broker.stop());
			await broker.start();

			const seen = await seenBySpring(
				jar,
				Object.keys(SERVICES),
				// A scheme that the URL standard does not know has no parts.
				properties(new URL(registry.replace(/^\w+:/, "http:"))),
			);
			const metadata = (service: string) => ({
				nodeID: "node-1",
				instanceID: broker.instanceID,
				namespace: broker.namespace,
				service,
			});
			expect(seen).toMatchObject({
				"spring-pets": [
					{
						serviceId: named("spring-pets"),
						instanceId: `${broker.namespace}:node-1:spring-pets`,
						host: "127.0.0.1",
						port: 9_001,
						secure: false,
						uri: "http://127.0.0.1:9001",
						metadata: { ...metadata("spring-pets"), zone: "blue", ...extra(false) },
					},
				],
				"v2.spring-shop": [
					{
						serviceId: named("v2.spring-shop"),
						port: 9_443,
						secure: true,
						uri: "https://127.0.0.1:9443",
						metadata: { ...metadata("v2.spring-shop"), version: "2", ...extra(true) },
					},
				],
			});
		},
		90_000,
	);
}
