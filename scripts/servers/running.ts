import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import type { Place, ServerKind } from "./kind.ts";
import { launch, takePorts } from "./launch.ts";

const STOP_MS = 10_000;

/** What is remembered of a server that was started in the background. */
interface Note {
	readonly pid: number;
	/** When the process began, so that another one with the same pid is never taken for it. */
	readonly began: string;
	readonly ports: Readonly<Record<string, number>>;
}

/** The servers of this user on this machine that run in the background. */
export class Running {
	readonly #cache: string;
	readonly #notes: string;

	constructor(cache: string) {
		this.#cache = cache;
		this.#notes = join(cache, "run");
	}

	/** Starts a server that does not run yet. */
	async up(kind: ServerKind): Promise<void> {
		if (this.alive(kind)) return;
		const ports = await takePorts(kind, this.#read(kind)?.ports);
		const place = this.#place(kind, ports);
		const { pid } = await launch(kind, place, this.#cache, true);
		mkdirSync(this.#notes, { recursive: true });
		const note: Note = { pid, began: beginningOf(pid) ?? "", ports };
		writeFileSync(this.#file(kind), JSON.stringify(note));
	}

	/** Ends a server, by its pid, and waits until it has ended. */
	async down(kind: ServerKind): Promise<void> {
		const note = this.alive(kind);
		if (!note) return;
		process.kill(note.pid, kind.signal ?? "SIGTERM");
		const end = Date.now() + STOP_MS;
		while (this.alive(kind)) {
			if (Date.now() > end) process.kill(note.pid, "SIGKILL");
			await sleep(50);
		}
		rmSync(this.#place(kind, note.ports).folder, { recursive: true, force: true });
	}

	/** @returns the address of a server that runs */
	url(kind: ServerKind): string | undefined {
		const note = this.alive(kind);
		return note && kind.url(this.#place(kind, note.ports));
	}

	/** @returns the note of a server whose process is alive */
	alive(kind: ServerKind): Note | undefined {
		const note = this.#read(kind);
		return note && beginningOf(note.pid) === note.began ? note : undefined;
	}

	#place(kind: ServerKind, ports: Readonly<Record<string, number>>): Place {
		return { folder: join(this.#cache, "data", kind.name), ports };
	}

	#file(kind: ServerKind): string {
		return join(this.#notes, `${kind.name}.json`);
	}

	#read(kind: ServerKind): Note | undefined {
		try {
			return JSON.parse(readFileSync(this.#file(kind), "utf8")) as Note;
		} catch {
			return undefined;
		}
	}
}

/** @returns when a living process began, in ticks since boot */
function beginningOf(pid: number): string | undefined {
	try {
		// The program's name, in parentheses, may have spaces in it; a zombie is dead.
		const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ");
		return fields?.[0] === "Z" ? undefined : fields?.[19];
	} catch {
		return undefined;
	}
}
