import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** What a command of the project told that was run with `--json` and `--keep`. */
export interface Told {
	/** The last line of stdout. */
	readonly result: Record<string, unknown>;
	/** Where it kept its databases. */
	readonly folder: string;
	/** stderr. */
	readonly told: string;
}

/** Runs a command to its end, however that is; its databases are kept. */
export async function runCommand(file: URL, options: readonly string[]): Promise<Told> {
	const args = [file.pathname, ...options, "--json", "--keep"];
	const child = promisify(execFile)(process.execPath, args, { maxBuffer: 16 * 1024 * 1024 });
	const { stdout, stderr } = await child.catch(
		(error: { stdout?: string; stderr?: string }) => error,
	);
	const folder = /kept in (\S+)/.exec(stderr ?? "")?.[1] ?? "";
	const last = stdout?.trim().split("\n").at(-1) ?? "";
	return { result: JSON.parse(last || "{}") as Told["result"], folder, told: stderr ?? "" };
}
