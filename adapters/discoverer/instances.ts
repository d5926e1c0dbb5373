import type { Instance, NodeInfo, ServiceAddress, ServiceInfo } from "./contract.ts";

/**
 * A name in characters that every registry takes in a path, a key and a JSON text: all others become
 * the bytes of their UTF-8, each as `~` and two hexadecimal digits. No two names become the same.
 */
export function toRegistryName(name: string): string {
	return encodeURIComponent(name)
		.replaceAll("~", "%7E")
		.replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
		.replaceAll("%", "~");
}

/** The inverse of {@link toRegistryName}; what is no such name is returned as it is. */
export function fromRegistryName(name: string): string {
	try {
		return decodeURIComponent(name.replaceAll("~", "%"));
	} catch {
		return name;
	}
}

/** Options that the instances of a node depend on. */
export interface InstanceOptions {
	readonly namespace: string;
	readonly address: string;
	readonly services?: Readonly<Record<string, ServiceAddress>> | undefined;
}

/** @returns the services of a node as the registry is to show them; Moleculer's internal ones are left out */
export function instancesOf(info: NodeInfo, options: InstanceOptions): Instance[] {
	return info.services
		.filter((service) => !service.name.startsWith("$"))
		.map((service) => instanceOf(service, info, options));
}

function instanceOf(service: ServiceInfo, info: NodeInfo, options: InstanceOptions): Instance {
	const { namespace } = options;
	const told = options.services?.[service.fullName] ?? {};
	const metadataHttp = service.metadata?.["http"];
	const port = told.port ?? portOf(metadataHttp) ?? portOf(service.settings) ?? 0;
	const scope = namespace === "" ? [] : [toRegistryName(namespace)];
	return {
		id: [...scope, toRegistryName(info.sender), toRegistryName(service.fullName)].join(":"),
		name: toRegistryName(service.fullName),
		address: told.address ?? options.address,
		port,
		secure: told.secure ?? false,
		homePath: told.homePath ?? "/",
		healthPath: told.healthPath ?? "/health",
		statusPath: told.statusPath ?? "/info",
		tags: ["moleculer", ...(told.tags ?? [])],
		metadata: {
			nodeID: info.sender,
			instanceID: info.instanceID,
			namespace,
			service: service.fullName,
			version: String(service.version ?? ""),
			...told.metadata,
		},
	};
}

function portOf(holder: unknown): number | undefined {
	if (typeof holder !== "object" || holder === null || !("port" in holder)) return undefined;
	const port = Number(holder.port);
	return Number.isInteger(port) && port > 0 && port <= 65_535 ? port : undefined;
}
