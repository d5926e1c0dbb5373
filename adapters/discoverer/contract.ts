/** A node as its record in the registry names it. */
export interface Member {
	readonly nodeID: string;
	/** Differs between two processes with the same nodeID. */
	readonly instanceID: string;
	/** Counts the changes of the node's services. */
	readonly seq: number;
}

/** What a node tells of itself: Moleculer's INFO. */
export interface NodeInfo {
	readonly sender: string;
	readonly ver: string;
	readonly instanceID: string;
	readonly seq: number;
	readonly services: readonly ServiceInfo[];
	readonly [key: string]: unknown;
}

/** A service inside INFO. */
export interface ServiceInfo {
	readonly name: string;
	readonly fullName: string;
	readonly version?: string | number | null;
	readonly settings?: Readonly<Record<string, unknown>>;
	readonly metadata?: Readonly<Record<string, unknown>>;
}

/** A Moleculer service of this node as the registry shows it to programs outside. */
export interface Instance {
	/** Unique in the registry. */
	readonly id: string;
	/** The service's full name, in characters that every registry takes. */
	readonly name: string;
	readonly address: string;
	/** Where it serves HTTP, 0 where it does not. */
	readonly port: number;
	readonly secure: boolean;
	readonly homePath: string;
	readonly healthPath: string;
	readonly statusPath: string;
	readonly tags: readonly string[];
	readonly metadata: Readonly<Record<string, string>>;
}

/** How far this node's broker is. */
export type Phase = "starting" | "up" | "stopping";

/** All that the registry is to hold of this node. */
export interface Publication {
	readonly self: Member;
	readonly info: NodeInfo;
	readonly instances: readonly Instance[];
	readonly phase: Phase;
}

/** Who is in the registry, as far as it tells: nodeIDs, and a text that differs when the record does. */
export type Presence = ReadonlyMap<string, string>;

/** The node that a registry client works for. */
export interface Site {
	readonly nodeID: string;
	readonly instanceID: string;
	readonly namespace: string;
	/** Where this node is reached. */
	readonly address: string;
	readonly heartbeatTimeoutMs: number;
	/** Counts a request to the registry. */
	counted(): void;
	/** Tells who is in the registry, whenever that has changed. */
	present(nodes: Presence): void;
	/** Tells that following the registry does not work now. */
	troubled(error: unknown): void;
}

/**
 * One kind of registry: where the records of nodes are, and nothing about Moleculer.
 *
 * Every method rejects with LOTTOR_REGISTRY_REFUSED when the credentials are not accepted, and with
 * any other error when the registry cannot be used; it is then called again.
 */
export interface MemberRegistry {
	/** The registry's name for people. */
	readonly title: string;

	/**
	 * Writes this node's record unless another instance has one under the same nodeID. Forgets what
	 * was published before: {@link publish} follows.
	 *
	 * @param takeOver replace the other's record
	 * @returns the other's record, where it stands in the way
	 */
	claim(self: Member, takeOver: boolean): Promise<Member | undefined>;

	/** Brings the registry in line with this. @returns false when this node's record is gone */
	publish(publication: Publication): Promise<boolean>;

	/** Keeps the records alive; called at each heartbeat. @returns false when they are gone */
	keepAlive(): Promise<boolean>;

	/** @returns what a node told of itself, where the registry holds it */
	read(nodeID: string): Promise<NodeInfo | undefined>;

	/** Begins to follow who comes and goes, until {@link close}. */
	watch(): void;

	/** Removes all records of this node. */
	withdraw(): Promise<void>;

	/** Ends all connections. A later call opens them again. */
	close(): Promise<void>;
}

/** Where a service serves HTTP, for programs that look it up in the registry. */
export interface ServiceAddress {
	/** @default the discoverer's `address` */
	readonly address?: string;
	/** @default `metadata.http.port` of the service, then its `settings.port` */
	readonly port?: number;
	/** Whether it is HTTPS. @default false */
	readonly secure?: boolean;
	/** @default "/" */
	readonly homePath?: string;
	/** @default "/health" */
	readonly healthPath?: string;
	/** @default "/info" */
	readonly statusPath?: string;
	/** Consul's tags, besides `moleculer`. @default [] */
	readonly tags?: readonly string[];
	/** Shown with the service, besides nodeID, version and the like. @default {} */
	readonly metadata?: Readonly<Record<string, string>>;
}

/** TLS of a connection to a registry, as `node:tls` takes it. */
export interface TlsOptions {
	/** Certificates of the authorities to trust, in PEM. */
	readonly ca?: string | Buffer | readonly (string | Buffer)[];
	/** The client's certificate, in PEM. */
	readonly cert?: string | Buffer;
	/** The key of the client's certificate, in PEM. */
	readonly key?: string | Buffer;
	readonly passphrase?: string;
	/** The name that the server's certificate must have. */
	readonly servername?: string;
	/** @default true */
	readonly rejectUnauthorized?: boolean;
}
