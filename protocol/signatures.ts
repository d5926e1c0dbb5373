import { createHmac, timingSafeEqual } from "node:crypto";
import type { ServiceBroker } from "moleculer";

/** What is signed: a signature for one use is none for another. */
export type SignatureUse = "call" | "answer" | "envelope";

/** Signs with a secret that all nodes of a cluster share. It is kept where nothing prints it. */
export class Signer {
	readonly #secret: string;

	constructor(secret: string) {
		this.#secret = secret;
	}

	/** @returns the HMAC-SHA256 of the parts, each told apart from its neighbours by its length */
	sign(use: SignatureUse, ...parts: readonly (string | Uint8Array)[]): string {
		const hmac = createHmac("sha256", this.#secret).update(use);
		for (const part of parts) {
			const bytes = typeof part === "string" ? Buffer.from(part) : part;
			hmac.update(`\n${bytes.length}\n`).update(bytes);
		}
		return hmac.digest("base64url");
	}

	/** Compares in a time that tells nothing of where the two differ. */
	fits(expected: string, given: unknown): boolean {
		if (typeof given !== "string" || given.length !== expected.length) return false;
		const bytes = Buffer.from(given);
		return bytes.length === expected.length && timingSafeEqual(bytes, Buffer.from(expected));
	}
}

const signers = new WeakMap<ServiceBroker, Signer>();

/** Has everything that leaves this node for Lottor's sake signed, and refuses what is not. */
export function signWith(broker: ServiceBroker, signer: Signer): void {
	signers.set(broker, signer);
}

/** @returns what this node signs with; undefined where the network is trusted */
export function signerOf(broker: ServiceBroker): Signer | undefined {
	return signers.get(broker);
}
