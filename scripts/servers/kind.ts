/** Where one server runs: its own folder, its own ports, all on 127.0.0.1. */
export interface Place {
	/** The server's own folder, made before the first start and kept between starts. */
	readonly folder: string;
	/** A free port for each of the kind's `ports`. */
	readonly ports: Readonly<Record<string, number>>;
	/** What clients must prove to know; none where the server is open. */
	readonly password?: string | undefined;
}

/** How a server is started. */
export interface Command {
	readonly file: string;
	readonly args: readonly string[];
	readonly env?: Readonly<Record<string, string>>;
}

/** One kind of server: how it is installed, started and known to be ready. */
export interface ServerKind {
	readonly name: string;
	/** The environment variable that has its address. */
	readonly variable: string;
	/** Names of its ports; the first is the one that clients use. */
	readonly ports: readonly string[];
	/** How it is told to end. @default "SIGTERM" */
	readonly signal?: NodeJS.Signals;
	/** Whether nothing is missing to start it. */
	installed(cache: string): boolean;
	/** Installs it, into the machine or into the cache folder. */
	install(cache: string): Promise<void>;
	/** Writes what it needs into its folder and says how to start it. */
	command(place: Place, cache: string): Promise<Command>;
	/** Whether it answers in its own protocol. Throwing counts as no. */
	ready(place: Place): Promise<boolean>;
	/** Closes the server for those without the password, where that takes a running server. */
	protect?(place: Place): Promise<void>;
	/** The address as clients take it. */
	url(place: Place): string;
}

/** The port that clients use. */
export function mainPort(kind: Pick<ServerKind, "name" | "ports">, place: Place): number {
	const port = place.ports[kind.ports[0] ?? ""];
	if (port === undefined) throw new Error(`${kind.name} has no port`);
	return port;
}
