import type { IncomingMessage } from "node:http";

import { RequestRefused } from "./problem.ts";

const OWN_NAMES = ["localhost", "127.0.0.1", "[::1]"];
const READING = ["GET", "HEAD", "OPTIONS"];
/** A health check comes by whatever address the machine has, and learns nothing. */
const HEALTH = ["/healthz", "/readyz"];

/**
 * Refuses what a foreign page could make a browser of this machine send: a request under another
 * host name (a name that was made to point here, DNS rebinding), and a change that does not come
 * from our own pages. Programs such as curl send neither header and pass.
 *
 * @param hosts names that it answers under besides this machine's own
 * @throws a 403 that says why
 */
export function refuseForeign(req: IncomingMessage, hosts: readonly string[]): void {
	const host = (req.headers.host ?? "").toLowerCase();
	const name = host.replace(/:\d+$/, "");
	const names = [...OWN_NAMES, ...hosts];
	if (!names.includes(name) && !names.includes(host) && !HEALTH.includes(req.url ?? "")) {
		throw new RequestRefused(
			403,
			"FOREIGN_HOST",
			`This server answers only under ${names.join(", ")}, not ${JSON.stringify(host)}`,
		);
	}
	if (READING.includes(req.method ?? "")) return;

	const site = req.headers["sec-fetch-site"];
	const { origin } = req.headers;
	const foreign =
		(site !== undefined && site !== "same-origin" && site !== "none") ||
		(origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`);
	if (foreign) {
		throw new RequestRefused(
			403,
			"FOREIGN_ORIGIN",
			"Another site's page may not change anything here",
		);
	}
}

/**
 * Refuses a body that is not JSON, which would otherwise be taken for none.
 *
 * @throws a 415
 */
export function refuseOtherBodies(req: IncomingMessage): void {
	const hasBody =
		req.headers["transfer-encoding"] !== undefined ||
		Number(req.headers["content-length"] ?? 0) > 0;
	const type = req.headers["content-type"] ?? "";
	if (hasBody && !/^application\/json\s*(;|$)/i.test(type)) {
		throw new RequestRefused(
			415,
			"UNSUPPORTED_MEDIA_TYPE",
			"A body must be JSON, with Content-Type: application/json",
		);
	}
}
