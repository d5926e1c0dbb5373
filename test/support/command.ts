import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** What a command of the project told that was run with `--json`. */
export interface Told {
	/** The last line of stdout. */
	readonly result: Record<string, unknown>;
	/** Where it kept its databases; empty where it did not. */
	readonly folder: string;
	/** stderr. */
	readonly told: string;
}

/** Runs a command to its end, however that is. @param env what its environment has besides */
export async function runCommand(
	file: URL,
	options: readonly string[],
	env: Readonly<Record<string, string>> = {},
): Promise<Told> {
	const args = [file.pathname, ...options, "--json"];
	const child = promisify(execFile)(process.execPath, args, {
		maxBuffer: 16 * 1024 * 1024,
		env: { ...process.env, ...env },
	});
	const { stdout, stderr } = await child.catch(
		(error: { stdout?: string; stderr?: string }) => error,
	);
	const folder = /kept in (\S+)/.exec(stderr ?? "")?.[1] ?? "";
	const last = stdout?.trim().split("\n").at(-1) ?? "";
	return { result: JSON.parse(last || "{}") as Told["result"], folder, told: stderr ?? "" };
}
