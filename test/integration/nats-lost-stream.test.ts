import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { expect, test } from "@jest/globals";

import { nats } from "../../scripts/servers/nats.ts";
import { DeliveryStage, Work } from "../conformance/delivery/stage.ts";
import { SUBJECTS } from "../conformance/delivery/subjects.ts";
import { withServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

const subject = SUBJECTS.find(({ broker }) => broker?.kind === nats);

/** What holds the messages of all streams. */
function blocks(folder: string): string[] {
	return readdirSync(folder, { recursive: true, encoding: "utf8" })
		.filter((file) => file.endsWith(".blk"))
		.map((file) => join(folder, file));
}

withServer(nats, "a damaged stream", (url) => {
	test("R24 a stream that has lost what it counts is made anew, and what was in it is sent again", async () => {
		if (!subject) throw new Error("no subject NATS");
		const stage = new DeliveryStage(subject, url);
		try {
			const server = await stage.ownServer();
			await stage.start();
			const work = new Work(true);
			// It takes one message at a time: the others stay on the server.
			const options = { maxInFlight: 1, concurrency: 1, handlerTimeout: "2m" };
			await stage.consumer("c", "auth", work, options);
			const ids = await stage.send("auth", 6);
			await stage.reached(ids, ({ state }) => state === "delivering");
			await until(() => work.runs.size === 1);

			// What a server that starts has read of its files is how many messages there are.
			await server.kill();
			await server.start();
			const found = blocks(server.folder);
			expect(found.length).toBeGreaterThan(0);
			for (const file of found) rmSync(file);
			work.open();

			await stage.exactlyOnce(["auth"]);
			const messages = (await Promise.all(ids.map((id) => stage.messages(id)))).flat();
			expect(messages.filter(({ sends }) => sends > 1).length).toBeGreaterThanOrEqual(5);
		} finally {
			await stage.end();
		}
	}, 120_000);
});
