import { execFile } from "node:child_process";
import { expect, test } from "@jest/globals";

interface Ended {
	readonly code: unknown;
	readonly err: string;
	readonly last: {
		readonly ok: boolean;
		readonly runs: readonly { readonly store: string; readonly query: string }[];
	};
}

/** Measures one query, once, in a few groups. */
function bench(stores: string): Promise<Ended> {
	const args = ["bench/admin.ts", "--json", "--groups", "20", "--rounds", "1"];
	const env = { ...process.env, MONGODB_URL: "" };
	return new Promise((resolve) => {
		execFile(
			process.execPath,
			[...args, "--only", "overview", "--stores", stores],
			{ env, timeout: 60_000 },
			(error, out, err) => {
				const last = JSON.parse(out.trim().split("\n").at(-1) ?? "") as Ended["last"];
				resolve({ code: error?.code ?? 0, err, last });
			},
		);
	});
}

test("the benchmark is ok only when every store that was asked for was measured", async () => {
	const runs = [{ store: "sqlite", query: "overview" }];
	const whole = await bench("sqlite");
	expect(whole).toMatchObject({ code: 0, last: { ok: true, runs } });
	expect(whole.err).not.toContain("left out");
	for (const [left, why] of [
		["mongodb", "MONGODB_URL is not set"],
		["oracle", "unknown"],
		["constructor", "unknown"],
	]) {
		expect(await bench(`sqlite,${left}`)).toMatchObject({
			code: 1,
			err: expect.stringContaining(`${left} is left out: ${why}`),
			last: { ok: false, runs },
		});
	}
}, 240_000);
