import { request } from "node:http";
import type { AddressInfo, Server } from "node:net";
import type { ServiceBroker } from "moleculer";

/** What a server answered; its body as JSON. */
export interface Answer {
	readonly status: number;
	readonly headers: Readonly<Record<string, string | string[] | undefined>>;
	readonly body: Record<string, unknown>;
}

export interface Sent {
	readonly headers?: Readonly<Record<string, string>>;
	/** Sent as JSON; a string as it is. */
	readonly body?: unknown;
}

/** The port that a service with moleculer-web listens on. */
export function portOf(broker: ServiceBroker, service: string): number {
	return (serverOf(broker, service).address() as AddressInfo).port;
}

/** How many connections a service with moleculer-web has open. */
export function connectionsOf(broker: ServiceBroker, service: string): Promise<number> {
	return new Promise((resolve, reject) => {
		serverOf(broker, service).getConnections((error, count) =>
			error ? reject(error) : resolve(count),
		);
	});
}

function serverOf(broker: ServiceBroker, service: string): Server {
	return (broker.getLocalService(service) as unknown as { server: Server }).server;
}

/** Sends one request to this machine; unlike `fetch` it sends any header, `Host` too. */
export function http(port: number, line: string, sent: Sent = {}): Promise<Answer> {
	const [method, path] = line.split(" ");
	const json = sent.body === undefined ? {} : { "Content-Type": "application/json" };
	return new Promise((resolve, reject) => {
		const req = request(
			{
				host: "127.0.0.1",
				port,
				method,
				path,
				headers: { ...json, ...sent.headers },
				agent: false,
			},
			(res) => {
				let text = "";
				res.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
				res.on("end", () => {
					const body = JSON.parse(text || "{}") as Record<string, unknown>;
					resolve({ status: res.statusCode ?? 0, headers: res.headers, body });
				});
			},
		);
		req.on("error", reject);
		req.end(typeof sent.body === "string" ? sent.body : JSON.stringify(sent.body));
	});
}
