import { execFile } from "node:child_process";
import { expect, test } from "@jest/globals";

interface Ended {
	readonly code: unknown;
	readonly err: string;
	readonly last: {
		readonly ok: boolean;
		readonly runs: readonly {
			readonly store: string;
			readonly query: string;
			readonly p95_ms: number;
			readonly bar_ms: number;
		}[];
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
	// On a machine that is busy, which fails the benchmark, it was not too slow by that.
	const ok = whole.last.runs.every(({ p95_ms, bar_ms }) => p95_ms < bar_ms);
	expect(whole).toMatchObject({ code: ok ? 0 : 1, last: { ok, runs } });
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
