import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** What is built, downloaded and stored lives here, outside the checkout. */
export function cacheFolder(): string {
	const base = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
	return join(base, "moleculer-lottor");
}

/** @returns the path of a program, looked up in PATH and in Debian's usual places */
export function findProgram(name: string): string | undefined {
	const folders = (process.env["PATH"] ?? "").split(delimiter);
	return [...folders, "/usr/sbin", "/usr/local/sbin", "/usr/lib/postgresql/15/bin"]
		.map((folder) => join(folder, name))
		.find((file) => existsSync(file));
}

/** Runs a program to its end. @returns what it wrote to stdout */
export function run(
	file: string,
	args: readonly string[],
	options: { cwd?: string; env?: Readonly<Record<string, string>> } = {},
): Promise<string> {
	return new Promise((resolve, reject) => {
		const child = spawn(file, args, {
			cwd: options.cwd,
			env: { ...process.env, ...options.env },
			stdio: ["ignore", "pipe", "pipe"],
		});
		let out = "";
		let err = "";
		child.stdout.on("data", (data: Buffer) => (out += data.toString()));
		child.stderr.on("data", (data: Buffer) => (err += data.toString()));
		child.on("error", reject);
		child.on("close", (code) => {
			if (code === 0) return resolve(out);
			const tail = `${out}\n${err}`.trim().split("\n").slice(-15).join("\n");
			reject(new Error(`${file} ${args.join(" ")} ended with ${String(code)}:\n${tail}`));
		});
	});
}

const APT = { DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" };
let listsAreFresh = false;

async function refreshLists(): Promise<void> {
	if (!listsAreFresh) await run("apt-get", ["update"], { env: APT });
	listsAreFresh = true;
}

/** Installs Debian packages. apt-get starts no server here: there is no init system to do it. */
export async function aptInstall(packages: readonly string[]): Promise<void> {
	if (!findProgram("apt-get") || process.getuid?.() !== 0) {
		throw new Error(
			`Install ${packages.join(", ")} first: that takes root on Debian or Ubuntu`,
		);
	}
	await refreshLists();
	await run("apt-get", ["install", "-y", "--no-install-recommends", ...packages], { env: APT });
}

/** @returns the address of Debian's packages that this machine already uses */
export async function debianMirror(): Promise<string> {
	await refreshLists();
	const targets = await run("apt-get", [
		"indextargets",
		"--format",
		"$(ORIGIN) $(COMPONENT) $(REPO_URI)",
		"Created-By: Packages",
	]);
	const mirror = /^Debian main (\S+\/debian\/?)$/m.exec(targets)?.[1];
	if (mirror) return mirror;
	throw new Error("Debian's mirror is not among apt's sources: it needs Debian");
}

/**
 * Unpacks a package of another Debian release without installing it. The mirror is the one that this
 * machine already uses; its own lists and package state stay as they are.
 */
export async function aptUnpack(name: string, release: string, folder: string): Promise<void> {
	const mirror = await debianMirror();
	const apt = join(folder, "apt");
	for (const part of ["lists/partial", "cache/archives/partial"]) {
		mkdirSync(join(apt, part), { recursive: true });
	}
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
	writeFileSync(
		join(apt, "sources.list"),
		`deb [signed-by=${keyring} check-valid-until=no] ${mirror} ${release} main\n`,
	);
	writeFileSync(join(apt, "status"), "");
	const apart = [
		`Dir::Etc::sourcelist=${join(apt, "sources.list")}`,
		"Dir::Etc::sourceparts=-",
		`Dir::State::lists=${join(apt, "lists")}`,
		`Dir::State::status=${join(apt, "status")}`,
		`Dir::Cache=${join(apt, "cache")}`,
		"APT::Sandbox::User=root",
	].flatMap((option) => ["-o", option]);
	await run("apt-get", [...apart, "update"], { env: APT });
	await run("apt-get", [...apart, "download", name], { cwd: apt, env: APT });
	const archive = readdirSync(apt).find((file) => file.endsWith(".deb"));
	if (!archive) throw new Error(`apt-get downloaded no archive of ${name}`);
	await run("dpkg-deb", ["-x", join(apt, archive), folder]);
	rmSync(apt, { recursive: true });
}

/** Ports from here on, below those that the system gives out by itself: nobody gets them by chance. */
const FIRST_PORT = 20_000;
const PORTS = 12_000;
const TRIES = 50;

/** @returns a port on 127.0.0.1 that nobody uses now: the wanted one, or any */
export async function freePort(wanted?: number): Promise<number> {
	for (let tries = 1; ; tries++) {
		const port = wanted ?? FIRST_PORT + Math.floor(Math.random() * PORTS);
		try {
			await listened(port);
			return port;
		} catch (error) {
			if (wanted !== undefined || tries === TRIES) throw error;
		}
	}
}

function listened(port: number): Promise<void> {
	return new Promise((resolve, reject) => {
		const server = createServer();
		server.once("error", reject);
		server.listen({ port, host: "127.0.0.1", exclusive: true }, () =>
			server.close(() => resolve()),
		);
	});
}

/** Sends text to a port and resolves with the first bytes of the answer. */
export function talk(port: number, text: string): Promise<string> {
	return new Promise((resolve, reject) => {
		const socket = connect({ host: "127.0.0.1", port, timeout: 1_000 });
		socket.once("connect", () => socket.write(text));
		socket.once("data", (data) => {
			socket.destroy();
			resolve(data.toString());
		});
		socket.once("timeout", () => socket.destroy(new Error("no answer")));
		socket.once("error", reject);
		socket.once("end", () => reject(new Error("closed without an answer")));
	});
}

/** GET of a URL, within a second. */
export async function get(url: string): Promise<{ ok: boolean; text: string }> {
	const response = await fetch(url, { signal: AbortSignal.timeout(1_000) });
	return { ok: response.ok, text: await response.text() };
}

/** Waits until the check says yes. @returns whether it did in time */
export async function waitFor(check: () => Promise<boolean>, ms: number): Promise<boolean> {
	const end = Date.now() + ms;
	for (;;) {
		if (await check().catch(() => false)) return true;
		if (Date.now() > end) return false;
		await sleep(100);
	}
}
