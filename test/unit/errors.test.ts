import { readFileSync } from "node:fs";

import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { Errors, ServiceBroker } from "moleculer";

import {
	type ErrorCode,
	type ErrorData,
	ERRORS,
	hasCode,
	invalidOptions,
	LottorError,
	messageOf,
} from "../../protocol/index.ts";
import { GROUP_ID } from "../support/groups.ts";

const codes = Object.keys(ERRORS) as ErrorCode[];

describe("LottorError", () => {
	it("is a MoleculerError with the registry's status and retryable", () => {
		for (const code of codes) {
			const error = new LottorError(code, "what happened");
			expect(error).toBeInstanceOf(Errors.MoleculerError);
			expect(error).toMatchObject({
				name: "LottorError",
				message: "what happened",
				type: code,
				code: ERRORS[code].status,
				retryable: ERRORS[code].retryable,
			});
		}
	});

	it("keeps its cause here, and the cause's text in its data", () => {
		const cause = new Error("disk full");
		const error = new LottorError("LOTTOR_STORE_UNAVAILABLE", "no", { group: "g" }, cause);

		expect(error.cause).toBe(cause);
		expect(Object.keys(error)).not.toContain("cause");
		expect(error.data).toEqual({ group: "g", cause: "disk full" });
	});

	it("has no cause where none was given", () => {
		const error = new LottorError("LOTTOR_FENCED", "no");
		expect("cause" in error).toBe(false);
		expect(error.data).toEqual({});
	});

	it("leaves the data that it was given alone", () => {
		const data: ErrorData = Object.freeze({ state: "committed" });
		new LottorError("LOTTOR_ILLEGAL_TRANSITION", "no", data, "late");
		expect(data).toEqual({ state: "committed" });
	});

	it.each([
		[new Error("text"), "text"],
		[{ message: 5 }, "5"],
		["text", "text"],
		[undefined, "undefined"],
		[null, "null"],
	])("finds the text of whatever was thrown: %p", (thrown, text) => {
		expect(messageOf(thrown)).toBe(text);
	});

	it("LOTTOR_INVALID_OPTIONS names the field", () => {
		const error = invalidOptions("store", "must be a URL");
		expect(error.message).toBe("Option store must be a URL");
		expect(error).toMatchObject({ type: "LOTTOR_INVALID_OPTIONS", data: { field: "store" } });
	});

	it("is told by its code, not by its class", () => {
		expect(hasCode({ type: "LOTTOR_FENCED" }, "LOTTOR_FENCED")).toBe(true);
		expect(hasCode(new Error("LOTTOR_FENCED"), "LOTTOR_FENCED")).toBe(false);
		expect(hasCode(null, "LOTTOR_FENCED")).toBe(false);
		expect(hasCode("LOTTOR_FENCED", "LOTTOR_FENCED")).toBe(false);
	});
});

describe("LottorError across nodes", () => {
	const near = new ServiceBroker({ nodeID: "near", transporter: "Fake", logger: false });
	const far = new ServiceBroker({ nodeID: "far", transporter: "Fake", logger: false });

	beforeAll(async () => {
		far.createService({
			name: "far",
			actions: {
				fail(ctx: { params: { code: ErrorCode } }) {
					const data = { group: GROUP_ID, state: "rolledBack" };
					throw new LottorError(ctx.params.code, "it failed", data, new Error("why"));
				},
			},
		});
		await Promise.all([near.start(), far.start()]);
		await near.waitForServices("far");
	});

	afterAll(() => Promise.all([near.stop(), far.stop()]));

	it("keeps code, type, retryable, text and data", async () => {
		for (const code of codes) {
			const error: unknown = await near.call("far.fail", { code }).then(
				() => undefined,
				(thrown: unknown) => thrown,
			);
			expect(error).toMatchObject({
				message: "it failed",
				type: code,
				code: ERRORS[code].status,
				retryable: ERRORS[code].retryable,
				data: { group: GROUP_ID, state: "rolledBack", cause: "why" },
				nodeID: "far",
			});
			expect(hasCode(error, code)).toBe(true);
		}
	});
});

describe("docs/errors.md", () => {
	const file = new URL("../../docs/errors.md", import.meta.url);
	const rows = readFileSync(file, "utf8")
		.split("\n")
		.filter((line) => line.startsWith("| `LOTTOR_"))
		.map((line) => line.split("|").map((cell) => cell.trim()));
	const documented = rows.map((cells) => ({
		code: cells[1]?.replaceAll("`", ""),
		status: Number(cells[2]),
		retryable: cells[3],
		meaning: cells[4],
		next: cells[5],
	}));

	it("lists the registry's codes, each once, in its order", () => {
		expect(documented.map(({ code }) => code)).toEqual(codes);
	});

	it("gives each code the registry's status and retryable, a meaning and what to do", () => {
		for (const { code, status, retryable, meaning, next } of documented) {
			const known = ERRORS[code as ErrorCode];
			expect({ code, status, retryable }).toEqual({
				code,
				status: known.status,
				retryable: known.retryable ? "yes" : "no",
			});
			expect(meaning).toBeTruthy();
			expect(next).toBeTruthy();
		}
	});
});
