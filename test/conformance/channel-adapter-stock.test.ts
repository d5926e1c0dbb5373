// What the hardened adapters are for: the same with the stock ones. A test that begins to fail here
// says that `@moleculer/channels` has mended something.
import { afterEach, describe, expect, test } from "@jest/globals";

import type { ChannelAdapter } from "../../adapters/channels/index.ts";
import { until } from "../support/until.ts";
import { consumer } from "./channel-adapter/nodes.ts";
import { Stage } from "./channel-adapter/stage.ts";
import { type Subject, SUBJECTS } from "./channel-adapter/subjects.ts";

const LIMIT_MS = 60_000;
const HOW_TO_START = "Start it by `npm run servers -- up redis rabbitmq nats`";

const stages: Stage[] = [];
afterEach(async () => {
	for (const stage of stages.splice(0)) await stage.end();
});

function stock(
	name: string,
	what: string,
	play: (stage: Stage, make: () => ChannelAdapter) => Promise<void>,
): void {
	const subject = SUBJECTS.find((one) => one.name === name) as Subject;
	const url = process.env[subject.kind.variable];
	const run =
		url !== undefined || process.env["LOTTOR_REQUIRE_SERVERS"] === "1" ? test : test.skip;
	run(
		`${name}: ${what}`,
		async () => {
			if (!url) throw new Error(`${subject.kind.variable} must be set. ${HOW_TO_START}`);
			const stage = new Stage(subject, url);
			stages.push(stage);
			await play(stage, () => subject.stock(url));
		},
		LIMIT_MS,
	);
}

describe("stock adapters of @moleculer/channels", () => {
	stock("Redis", "a message sent before the first consumer is lost", async (stage, make) => {
		const seen: string[] = [];
		const producer = stage.nodeOf("producer", make());
		await producer.broker.start();
		await producer.send("work", "first");
		const service = consumer("svc", "work", (name: string) => void seen.push(name));
		await stage.nodeOf("consumer", make(), [service]).broker.start();
		await producer.send("work", "second");
		await until(() => seen.includes("second"));
		expect(seen).toEqual(["second"]);
	});

	stock("NATS", "a message sent before the first consumer is refused", async (stage, make) => {
		const producer = stage.nodeOf("producer", make());
		await producer.broker.start();
		await expect(producer.send("work", "first")).rejects.toMatchObject({ code: "503" });
	});

	stock("RabbitMQ", "one to a channel without consumer ends all others", async (stage, make) => {
		const both = stage.nodeOf("both", make(), [consumer("svc", "work", () => undefined)]);
		await both.broker.start();
		await both.send("nobody", "lost");
		let error: unknown;
		await until(() =>
			both.send("work", "good").then(
				() => false,
				(thrown: unknown) => ((error = thrown), true),
			),
		);
		expect(String(error)).toContain("Channel closed");
	});

	for (const name of ["Redis", "NATS"]) {
		stock(
			name,
			"a send is swallowed once its broker was stopped, also after a start",
			async (stage, make) => {
				const node = stage.nodeOf("producer", make(), [
					consumer("svc", "work", () => undefined),
				]);
				await node.broker.start();
				await node.broker.stop();
				await node.send("work", "no");
				await node.broker.start();
				await node.send("work", "no");
				expect(await stage.subject.stored(stage.url, stage.named("work"))).toBe(0);
			},
		);
	}
});
