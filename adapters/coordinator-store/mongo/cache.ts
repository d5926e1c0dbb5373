import type { Kept } from "./documents.ts";

/**
 * Messages whose groups are kept from one step to the next: enough for those between prepare and
 * report, and for a group of the largest size, whose reports come one by one.
 */
const CACHED_MESSAGES = 8_192;

/**
 * Groups as this process last saw them. Only a hint: what is written on its ground holds only where
 * the version still stands, and what is answered without a write is read anew.
 */
export class GroupCache {
	readonly #kept = new Map<string, Kept>();
	#messages = 0;

	get(id: string): Kept | undefined {
		return this.#kept.get(id);
	}

	put(kept: Kept): void {
		const { id, version, state, messages } = kept.group;
		if ((this.#kept.get(id)?.group.version ?? 0) > version) return;
		this.drop(id);
		if (state === "completed") return;
		this.#kept.set(id, kept);
		this.#messages += messages.length;
		for (const oldest of this.#kept.keys()) {
			if (this.#messages <= CACHED_MESSAGES) break;
			this.drop(oldest);
		}
	}

	drop(id: string): void {
		this.#messages -= this.#kept.get(id)?.group.messages.length ?? 0;
		this.#kept.delete(id);
	}
}

/** Characters of payloads kept between prepare and commit. */
const CACHED_CHARACTERS = 16 * 1024 * 1024;

/** Payloads of groups that were just prepared: on the happy path the commit needs no read. */
export class PayloadCache {
	readonly #bodies = new Map<string, { readonly content: string; readonly context?: string }>();
	#characters = 0;

	get(key: string): { readonly content: string; readonly context?: string } | undefined {
		return this.#bodies.get(key);
	}

	put(key: string, body: { readonly content: string; readonly context?: string }): void {
		this.drop(key);
		this.#bodies.set(key, body);
		this.#characters += sizeOf(body);
		for (const oldest of this.#bodies.keys()) {
			if (this.#characters <= CACHED_CHARACTERS) break;
			this.drop(oldest);
		}
	}

	drop(key: string): void {
		const body = this.#bodies.get(key);
		if (!body) return;
		this.#characters -= sizeOf(body);
		this.#bodies.delete(key);
	}
}

function sizeOf(body: { readonly content: string; readonly context?: string }): number {
	return body.content.length + (body.context?.length ?? 0);
}
