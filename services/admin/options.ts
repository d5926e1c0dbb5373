import { COORDINATOR_SERVICE, type Duration, invalidOptions, toMs } from "../../protocol/index.ts";

/** Options of {@link LottorAdmin}. */
export interface LottorAdminOptions {
	/** HTTP port; 0 takes a free one. @default 9666 */
	readonly port?: number;
	/** Address to listen on. Nobody has to log in yet, so only one of this machine's own. @default "127.0.0.1" */
	readonly ip?: "127.0.0.1" | "::1" | "localhost";
	/** Name of the coordinator service. @default "lottor" */
	readonly coordinator?: string;
	/** Time limit of a call to the coordinator. @default "5s" */
	readonly callTimeout?: Duration;
	/** Largest body of a request, in bytes. @default 2097152 (2 MiB) */
	readonly maxBody?: number;
}

export interface AdminSettings {
	readonly port: number;
	readonly ip: string;
	readonly coordinator: string;
	readonly callTimeout: number;
	readonly maxBody: number;
}

const LOOPBACK = ["127.0.0.1", "::1", "localhost"];
const KNOWN = ["port", "ip", "coordinator", "callTimeout", "maxBody"];

/** @throws LOTTOR_INVALID_OPTIONS that names the option */
export function readAdminOptions(options: LottorAdminOptions): AdminSettings {
	const unknown = Object.keys(options).find((key) => !KNOWN.includes(key));
	if (unknown !== undefined) throw invalidOptions(`LottorAdmin.${unknown}`, "is not known");

	const { port = 9666, ip = "127.0.0.1", coordinator = COORDINATOR_SERVICE } = options;
	const { callTimeout = "5s", maxBody = 2 * 1_024 * 1_024 } = options;
	if (!Number.isInteger(port) || port < 0 || port > 65_535) {
		throw invalidOptions(
			"LottorAdmin.port",
			`must be a port from 0 to 65535, got ${String(port)}`,
		);
	}
	if (!LOOPBACK.includes(ip)) {
		throw invalidOptions(
			"LottorAdmin.ip",
			`must be a loopback address (${LOOPBACK.join(", ")}) while there is no login, got ${JSON.stringify(ip)}`,
		);
	}
	if (typeof coordinator !== "string" || coordinator === "") {
		throw invalidOptions("LottorAdmin.coordinator", "must be the name of a service");
	}
	if (!Number.isInteger(maxBody) || maxBody < 1) {
		throw invalidOptions("LottorAdmin.maxBody", "must be a number of bytes");
	}
	return {
		port,
		ip,
		coordinator,
		callTimeout: toMs(callTimeout, "LottorAdmin.callTimeout"),
		maxBody,
	};
}
