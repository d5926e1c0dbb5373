import { expect, test } from "@jest/globals";
import type { ServiceBroker } from "moleculer";

import { Complaints } from "../../protocol/index.ts";
import { ManualClock } from "../support/manual-clock.ts";

function complaints() {
	const lines: string[] = [];
	const clock = new ManualClock();
	const write = (line: string) => void lines.push(line);
	const logger = { warn: write, error: write } as unknown as ServiceBroker["logger"];
	return { lines, clock, made: new Complaints(clock, logger) };
}

test("one line in 10 s for each kind and peer, which says how many more there were", async () => {
	const { lines, clock, made } = complaints();
	let texts = 0;
	const say = (kind: string, peer: string) =>
		made.say("warn", kind, peer, () => `${kind} of ${peer}, text ${++texts}`);
	for (let i = 0; i < 1_000; i++) say("report", "eve");
	say("report", "bob");
	say("prepare", "eve");
	expect(lines).toEqual([
		"report of eve, text 1",
		"report of bob, text 2",
		"prepare of eve, text 3",
	]);
	await clock.advance(10_000);
	say("report", "eve");
	say("report", "bob");
	expect(lines.slice(3)).toEqual([
		"report of eve, text 4 (and 999 more like it since the last)",
		"report of bob, text 5",
	]);
});

test("a peer with ever new names fills neither memory nor log", async () => {
	const { lines, clock, made } = complaints();
	for (let i = 0; i < 5_000; i++) made.say("error", "call", `eve${i}`, () => "x");
	expect(lines).toHaveLength(200);
	await clock.advance(10_000);
	made.say("error", "call", "bob", () => "y");
	expect(lines.at(-1)).toBe("y");
});
