import { afterEach, beforeEach, expect, jest, test } from "@jest/globals";
import { lottorCommands } from "../../repl/index.ts";
import { LottorAdmin } from "../../services/admin/index.ts";
import { reportOf, scripted, TestCoordinator } from "../support/coordinator.ts";

let lottor: TestCoordinator;
let printed: string;

beforeEach(async () => {
	const auth = scripted("auth");
	auth.consume = (envelope) => ({
		result: "reported",
		report: reportOf(envelope, { retryable: false }),
	});
	lottor = await TestCoordinator.start({}, auth.schema);
	printed = "";
	for (const name of ["log", "error", "table"] as const) {
		jest.spyOn(console, name).mockImplementation((...values: unknown[]) => {
			printed += `${JSON.stringify(values)}\n`;
		});
	}
});

afterEach(async () => {
	jest.restoreAllMocks();
	await lottor.stop();
});

async function type(what: string, id?: string, options = {}): Promise<string> {
	printed = "";
	const [command] = lottorCommands();
	await command?.action(lottor.broker, { what, options, ...(id === undefined ? {} : { id }) });
	return printed;
}

test("groups, messages, clients and one group can be looked at", async () => {
	const id = await lottor.prepare([{}]);
	await lottor.commit(id);
	expect(await type("groups")).toContain(id);
	expect(await type("groups", undefined, { state: "rolledBack" })).not.toContain(id);
	expect(await type("messages", undefined, { state: "failed", limit: "1" })).toContain(`${id}.0`);
	expect(await type("group", id)).toContain("commit");
	expect(await type("stats")).toContain("failed");
	expect(await type("clients")).toContain("auth");
});

test("a dead letter is discarded, with who and why", async () => {
	const id = await lottor.prepare([{}]);
	await lottor.commit(id);
	expect(await type("discard", `${id}.0`, { why: "a test" })).toContain("ok (discarded)");
	const { timeline } = await lottor.view(id);
	expect(timeline.find((entry) => entry.event === "discard")).toMatchObject({
		by: "repl",
		why: "a test",
	});
});

test("failures, the audit log, and a search", async () => {
	const id = await lottor.prepare([{}]);
	await lottor.commit(id);
	expect(await type("failures")).toContain(`${id}.0`);
	expect(await type("groups", undefined, { text: id.slice(0, 20) })).toContain(id);
	expect(await type("messages", undefined, { text: "nothing" })).not.toContain(id);
	await type("discard", `${id}.0`, { why: "a test" });
	const audit = await type("audit");
	for (const part of ["repl", "discard", "a test", `${id}.0`]) expect(audit).toContain(part);
});

test("a login link of the admin service in the same process", async () => {
	expect(await type("login")).toContain("'lottor-admin.loginLink' is not found");
	lottor.broker.createService(LottorAdmin({ port: 0 }));
	await lottor.broker.waitForServices("lottor-admin");
	expect(await type("login")).toMatch(/http:\/\/localhost:\d+\/login\?code=/);
});

test("what can't be is said in one line", async () => {
	expect(await type("dance")).toContain("is none of stats");
	expect(await type("group", "nonsense")).toContain("must be a group id");
	expect(await type("retry", `${lottor.newId()}.0`)).toContain("LOTTOR_MESSAGE_UNKNOWN");
});
