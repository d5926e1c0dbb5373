import { type IncomingMessage, request } from "node:http";

/** One event of a stream. */
export interface StreamEvent {
	readonly id: string | undefined;
	readonly name: string;
	readonly data: Record<string, unknown>;
}

/** An open event stream of the admin service. */
export interface EventStream {
	readonly status: number;
	readonly events: StreamEvent[];
	/** What a browser would send as Last-Event-ID. */
	readonly lastId: string;
	/** Resolves once the server has ended it. */
	readonly ended: Promise<void>;
	/** Stops reading, so that what is sent piles up. */
	pause(): void;
	close(): void;
}

export function openStream(
	port: number,
	headers: Readonly<Record<string, string>> = {},
): Promise<EventStream> {
	return new Promise((resolve, reject) => {
		const req = request(
			{ host: "127.0.0.1", port, path: "/api/events", headers, agent: false },
			(res: IncomingMessage) => {
				const events: StreamEvent[] = [];
				let text = "";
				let lastId = "";
				res.setEncoding("utf8").on("data", (chunk: string) => {
					text += chunk;
					const blocks = text.split("\n\n");
					text = blocks.pop() ?? "";
					for (const block of blocks) {
						const fields = fieldsOf(block);
						lastId = fields.get("id") ?? lastId;
						const event = eventOf(fields);
						if (event) events.push(event);
					}
				});
				const ended = new Promise<void>((done) => {
					res.on("close", done);
					res.on("error", () => done());
				});
				resolve({
					status: res.statusCode ?? 0,
					events,
					get lastId() {
						return lastId;
					},
					ended,
					pause: () => void res.pause(),
					close: () => void req.destroy(),
				});
			},
		);
		req.on("error", reject);
		req.end();
	});
}

function fieldsOf(block: string): ReadonlyMap<string, string> {
	return new Map(
		block
			.split("\n")
			.filter((line) => !line.startsWith(":"))
			.map((line): [string, string] => {
				const at = line.indexOf(": ");
				return [line.slice(0, at), line.slice(at + 2)];
			}),
	);
}

function eventOf(fields: ReadonlyMap<string, string>): StreamEvent | undefined {
	const data = fields.get("data");
	if (data === undefined) return undefined;
	return {
		id: fields.get("id"),
		name: fields.get("event") ?? "message",
		data: JSON.parse(data) as Record<string, unknown>,
	};
}
