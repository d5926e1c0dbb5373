import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";

import {
	checkReceipt,
	contentHash,
	isGroupId,
	makeReceipt,
	messageId,
	newGroupId,
	newStoreId,
	parseMessageId,
	type Random,
	sameOwner,
	systemClock,
	systemRandom,
} from "../../protocol/index.ts";
import { GROUP_ID } from "../support/groups.ts";

const at = (now: number) => ({ ...systemClock, now: () => now });
const time = fc.integer({ min: 0, max: 2 ** 48 });
const key = Buffer.from("0123456789abcdef0123456789abcdef");

/** Every byte the same: what is left to differ is the time. */
const constant = (byte: number): Random => ({
	fraction: () => 0,
	bytes: (size) => new Uint8Array(size).fill(byte),
});

describe("group ids", () => {
	it("R1: sort by the millisecond they were made in, whatever their random part", () => {
		fc.assert(
			fc.property(time, time, (a, b) => {
				fc.pre(a < b);
				const earlier = newGroupId(at(a), constant(255));
				const later = newGroupId(at(b), constant(0));
				expect(earlier < later).toBe(true);
				expect([later, earlier].sort()).toEqual([earlier, later]);
			}),
		);
	});

	it("R1: are new for each call, also within one millisecond", () => {
		const ids = Array.from({ length: 10_000 }, () => newGroupId(at(1), systemRandom));
		expect(new Set(ids).size).toBe(ids.length);
	});

	it("have one form, which is checked", () => {
		fc.assert(
			fc.property(time, (now) => {
				const id = newGroupId(at(now), systemRandom);
				expect(id).toHaveLength(26);
				expect(isGroupId(id)).toBe(true);
			}),
		);
	});

	it.each([
		["nothing", ""],
		["too short", GROUP_ID.slice(1)],
		["too long", `${GROUP_ID}0`],
		["upper case", GROUP_ID.toUpperCase()],
		["a letter that base32 leaves out", GROUP_ID.replace("k", "i")],
		["a message id", `${GROUP_ID}.0`],
		["a line break behind it", `${GROUP_ID}\n`],
		["a number", 5],
		["null", null],
	])("are not %s", (_, text) => {
		expect(isGroupId(text)).toBe(false);
	});
});

describe("message ids", () => {
	it("R1: are the group's id and the message's place, and read back", () => {
		expect(messageId(GROUP_ID, 3)).toBe(`${GROUP_ID}.3`);
		fc.assert(
			fc.property(fc.integer({ min: 0, max: 999 }), (index) => {
				const id = messageId(GROUP_ID, index);
				expect(parseMessageId(id)).toEqual({ group: GROUP_ID, index });
			}),
		);
	});

	it.each([
		["a group id", GROUP_ID],
		["a place with a leading zero", `${GROUP_ID}.01`],
		["a negative place", `${GROUP_ID}.-1`],
		["no place", `${GROUP_ID}.`],
		["two places", `${GROUP_ID}.1.2`],
		["a place beyond every group", `${GROUP_ID}.10000`],
		["undefined", undefined],
		["an object", { group: GROUP_ID, index: 0 }],
	])("are not %s", (_, text) => {
		expect(parseMessageId(text)).toBeUndefined();
	});
});

describe("owners", () => {
	const owner = { nodeID: "node-1", instanceID: "start-1" };

	it("R2: are one process start of one node, never the node alone", () => {
		expect(sameOwner(owner, { ...owner })).toBe(true);
		expect(sameOwner(owner, { ...owner, instanceID: "start-2" })).toBe(false);
		expect(sameOwner(owner, { ...owner, nodeID: "node-2" })).toBe(false);
	});

	it("R2: that are not known are the same as nobody, not even as each other", () => {
		expect(sameOwner(owner, null)).toBe(false);
		expect(sameOwner(undefined, owner)).toBe(false);
		expect(sameOwner(null, null)).toBe(false);
	});
});

describe("store ids", () => {
	it("R3: are 32 hex digits, new each time", () => {
		expect(newStoreId(systemRandom)).toMatch(/^[0-9a-f]{32}$/);
		expect(newStoreId(systemRandom)).not.toBe(newStoreId(systemRandom));
	});
});

describe("receipts", () => {
	it("R5: prove the message they were made for, under their key", () => {
		const receipt = makeReceipt(key, `${GROUP_ID}.0`);

		expect(checkReceipt(key, `${GROUP_ID}.0`, receipt)).toBe(true);
		expect(checkReceipt(key, `${GROUP_ID}.1`, receipt)).toBe(false);
		expect(checkReceipt(Buffer.from("another key"), `${GROUP_ID}.0`, receipt)).toBe(false);
	});

	it("R5: are the same each time, so that a copy's report brings the same one", () => {
		expect(makeReceipt(key, "x")).toBe(makeReceipt(key, "x"));
		expect(makeReceipt(key, "x")).toHaveLength(32);
	});

	it("R5: of any other value are refused without throwing", () => {
		fc.assert(
			fc.property(fc.anything(), (given) => {
				expect(checkReceipt(key, "x", given)).toBe(false);
			}),
		);
		expect(checkReceipt(key, "x", makeReceipt(key, "x").slice(0, -1))).toBe(false);
		expect(checkReceipt(key, "x", "ä".repeat(16))).toBe(false);
	});
});

describe("content hashes", () => {
	it("R6: tell contents apart and find the same one again", () => {
		expect(contentHash("a")).toMatch(/^[0-9a-f]{64}$/);
		expect(contentHash("a")).toBe(contentHash("a"));
		expect(contentHash("a")).not.toBe(contentHash("b"));
	});
});
