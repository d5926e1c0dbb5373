import { mkdirSync } from "node:fs";
import type { BrokerOptions } from "moleculer";

import { resolveDiscoverer } from "./adapters/discoverer/index.ts";
import { LoopbackTcp } from "./adapters/transporter/loopback-tcp.ts";
import { SignedCalls } from "./middlewares/signed-calls.ts";
import { invalidOptions, messageOf } from "./protocol/index.ts";
import { lottorCommands } from "./repl/index.ts";
import { heartbeatLog } from "./services/heartbeat-log.ts";
import { readSettings, type Settings } from "./services/settings.ts";

/**
 * Options of the broker that `npm start` runs: everything in one node, with no transporter, or one
 * of the three processes that find each other over TCP on this machine.
 */
export function brokerOptions(settings: Settings): BrokerOptions {
	const { process: name, tcpPort, logLevel, transporter, discoverer, secret } = settings;
	const apart = name !== "all";
	return {
		nodeID: apart ? name : "node",
		// Moleculer's types do not know transporters by URL.
		...(transporter !== undefined && { transporter: transporter as never }),
		...(transporter === undefined &&
			apart && {
				// The others look for the coordinator, and learn of each other from it.
				transporter: new LoopbackTcp({ urls: `tcp://127.0.0.1:${tcpPort}/lottor` }),
			}),
		heartbeatInterval: 5,
		heartbeatTimeout: 10,
		requestTimeout: 10_000,
		// A repeated call may be a second transaction: whoever calls decides.
		retryPolicy: { enabled: false },
		registry: {
			strategy: "RoundRobin",
			preferLocal: true,
			...(discoverer !== undefined && { discoverer: discovererOf(discoverer, settings) }),
		},
		// `npm start -- --repl`
		replOptions: { customCommands: lottorCommands() as never },
		middlewares: [
			...(secret === undefined ? [] : [SignedCalls({ secret })]),
			// Each heartbeat is parsed once more for it, so only where somebody reads it.
			...(logLevel === "debug" || logLevel === "trace" ? [heartbeatLog] : []),
		],
		logger: {
			type: "Console",
			options: {
				// Which service is registered where is for whoever asked for more than "info".
				level: { REGISTRY: logLevel === "info" ? "warn" : logLevel, "**": logLevel },
				formatter: "{timestamp} {level} {mod}: {msg}",
				colors: process.stdout.isTTY,
			},
		},
	};
}

/** The registry shows where HTTP is: the coordinator's is the admin service's, on this machine only. */
function discovererOf(url: string, { httpPort, authPort, userPort }: Settings) {
	const at = (port: number) => ({ ...(port > 0 && { port }) });
	const lottor = {
		address: "127.0.0.1",
		...at(httpPort),
		healthPath: "/readyz",
		statusPath: "/api/overview",
	};
	return resolveDiscoverer(url, "LOTTOR_DISCOVERER", {
		services: {
			lottor,
			"lottor-admin": { ...lottor, healthPath: "/healthz" },
			"auth-api": { address: "127.0.0.1", ...at(authPort) },
			"user-api": { address: "127.0.0.1", ...at(userPort) },
		},
	});
}

function load(): BrokerOptions {
	const settings = readSettings();
	try {
		mkdirSync(settings.data, { recursive: true });
	} catch (error) {
		throw invalidOptions("LOTTOR_DATA", `must be a folder: ${messageOf(error)}`);
	}
	return brokerOptions(settings);
}

function loadOrExit(): BrokerOptions {
	try {
		return load();
	} catch (error) {
		console.error(messageOf(error));
		process.exit(1);
	}
}

export default loadOrExit();
