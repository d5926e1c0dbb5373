import type { Knex } from "knex";

import { hasCode, LottorError, messageOf } from "../../../protocol/index.ts";
import { type Waiting, within } from "../within.ts";
import type { Answer, Dialect, Value } from "./dialect.ts";

/** A statement of Lottor's own that takes longer was lost on the way. Milliseconds. */
export const STATEMENT_MS = 4_000;
/** Between two tries to get a lock that another process has. Milliseconds. */
const LOCK_RETRY_MS = 1;

/** What a session needs of the store. */
export interface SessionHost extends Waiting {
	readonly dialect: Dialect;
}

/** What {@link Knex.Raw} is made by: a Knex instance, or a transaction. */
type Runner = Pick<Knex, "raw">;

/** One connection while somebody has it, for statements outside and inside of a transaction. */
export class Session {
	readonly connection: unknown;
	readonly #host: SessionHost;
	readonly #runner: Runner;
	/** Until when a lock is waited for, by the host's clock. */
	readonly #until: number;
	#broken = false;

	/** @param until until when {@link patiently} tries again, by the host's clock */
	constructor(
		host: SessionHost,
		runner: Runner,
		connection: unknown,
		until = Number.NEGATIVE_INFINITY,
	) {
		this.#host = host;
		this.#runner = runner;
		this.connection = connection;
		this.#until = until;
	}

	get isBroken(): boolean {
		return this.#broken;
	}

	/** The same connection inside a transaction that Knex began on it. */
	inside(trx: Runner): Session {
		return new Session(this.#host, trx, this.connection);
	}

	/**
	 * Runs a statement.
	 * @throws LOTTOR_STORE_UNAVAILABLE when the database can't be reached, LOTTOR_STORE_BUSY when a
	 *   lock was not free in time; else the driver's error
	 */
	async query(sql: string, values: readonly Value[] = []): Promise<Answer> {
		const raw = this.#runner.raw(sql, [...values]).connection(this.connection);
		return this.#host.dialect.answer(await this.run<unknown>(raw));
	}

	/** Waits for a statement of Lottor's own; throws as {@link query} does. */
	async run<T>(statement: PromiseLike<T>): Promise<T> {
		try {
			return await this.within(STATEMENT_MS, statement);
		} catch (error) {
			this.failed(error);
			throw storeError(this.#host, error);
		}
	}

	/**
	 * Runs `fn` again and again while a lock that it needs is not free: where the database is a file
	 * in this process, no statement may wait for that itself.
	 * @throws LOTTOR_STORE_BUSY when it was not free in time
	 */
	async patiently<T>(fn: () => T | Promise<T>): Promise<T> {
		const { clock, dialect } = this.#host;
		for (;;) {
			try {
				return await fn();
			} catch (error) {
				const driver = dialect.code(error) !== undefined;
				const reported = driver ? storeError(this.#host, error) : error;
				const again = hasCode(reported, "LOTTOR_STORE_BUSY") && clock.now() < this.#until;
				if (!again) throw reported;
			}
			await new Promise<void>((resolve) => clock.after(LOCK_RETRY_MS, resolve));
		}
	}

	/** Takes note of a failure after which a file must be opened anew before it is trusted again. */
	failed(error: unknown): void {
		const { dialect } = this.#host;
		if (!dialect.oneWriter || error instanceof LottorError) return;
		const trouble = dialect.trouble(error);
		if (trouble === "gone" || trouble === "file") this.destroy();
	}

	/** Waits for the database, but not for ever: then the connection is dropped. */
	async within<T>(ms: number, work: PromiseLike<T>): Promise<T> {
		return within(this.#host, ms, work, () => this.destroy());
	}

	/** Drops the connection: the server rolls back what it had open. */
	destroy(): void {
		if (this.#broken) return;
		this.#broken = true;
		// What Knex itself notes of a connection that must not be used again.
		Object.assign(this.connection as object, { __knex__disposed: "dropped by Lottor" });
		this.#host.dialect.destroy(this.connection);
	}
}

/** @returns the error as callers get it */
export function storeError({ dialect, place }: SessionHost, error: unknown): unknown {
	if (error instanceof LottorError) return error;
	const why = plainMessage(error);
	switch (dialect.trouble(error)) {
		case "gone":
		case "login":
		case "file":
			return new LottorError(
				"LOTTOR_STORE_UNAVAILABLE",
				`${place} can't be reached: ${why}`,
				{ place },
				withoutStatement(error, why),
			);
		case "locked":
			return new LottorError(
				"LOTTOR_STORE_BUSY",
				`${place}: a lock was not free in time (${why})`,
				{ place },
			);
		default:
			return error;
	}
}

/** The same error for whoever asks for its codes; Knex writes the statement's values into the other. */
function withoutStatement(error: unknown, why: string): Error {
	const { code, errno, sqlState } = (error ?? {}) as Record<string, unknown>;
	return Object.assign(new Error(why), { code, errno, sqlState });
}

/** @returns what the driver said; Knex puts the statement, with all its values, before it */
export function plainMessage(error: unknown): string {
	const text = messageOf(error) || (error as { code?: string } | null)?.code || "no reason given";
	const at = text.lastIndexOf(" - ");
	return at < 0 ? text : text.slice(at + 3);
}
