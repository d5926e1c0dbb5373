import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from "node:crypto";

import { type BSON, Binary } from "mongodb";

import { CommandError } from "./faults.ts";

const ITERATIONS = 4_096;
const KEY_BYTES = 32;
const CONVERSATION = 1;

/** Who may come in. */
export interface Login {
	readonly user: string;
	readonly password: string;
}

/** The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), for one connection. */
export class ScramServer {
	readonly #login: Login;
	readonly #salt = randomBytes(16);
	#exchanged = "";
	#nonce = "";
	#proven = false;

	constructor(login: Login) {
		this.#login = login;
	}

	/** Whether the client has proven to know the password. */
	get done(): boolean {
		return this.#proven;
	}

	/** @throws AuthenticationFailed */
	step(command: BSON.Document): BSON.Document {
		const payload = command["payload"] as Binary | Uint8Array;
		const text = Buffer.from(payload instanceof Binary ? payload.buffer : payload).toString();
		if (command["saslStart"] !== undefined) return this.#challenge(command, text);
		// Some drivers close with an empty step.
		return text === "" && this.#proven ? answer("", true) : this.#verify(text);
	}

	#challenge(command: BSON.Document, text: string): BSON.Document {
		const bare = text.slice(text.indexOf("n=", 3));
		const { n, r } = partsOf(bare);
		if (command["mechanism"] !== "SCRAM-SHA-256" || n !== this.#login.user || !r)
			throw refused();
		this.#nonce = r + randomBytes(18).toString("base64");
		const challenge = `r=${this.#nonce},s=${this.#salt.toString("base64")},i=${ITERATIONS}`;
		this.#exchanged = `${bare},${challenge}`;
		return answer(challenge, false);
	}

	#verify(text: string): BSON.Document {
		const { r, p = "" } = partsOf(text);
		const { password } = this.#login;
		const salted = pbkdf2Sync(password, this.#salt, ITERATIONS, KEY_BYTES, "sha256");
		const key = mac(salted, "Client Key");
		const message = `${this.#exchanged},${text.slice(0, text.lastIndexOf(",p="))}`;
		const signature = mac(createHash("sha256").update(key).digest(), message);
		const expected = key.map((byte, place) => byte ^ (signature[place] ?? 0));
		const proof = Buffer.from(p, "base64");
		if (r !== this.#nonce || proof.length !== KEY_BYTES || !timingSafeEqual(proof, expected)) {
			throw refused();
		}
		this.#proven = true;
		return answer(`v=${mac(mac(salted, "Server Key"), message).toString("base64")}`, true);
	}
}

function mac(key: Uint8Array, text: string): Buffer {
	return createHmac("sha256", key).update(text).digest();
}

function partsOf(text: string): Partial<Record<string, string>> {
	return Object.fromEntries(text.split(",").map((part) => [part.slice(0, 1), part.slice(2)]));
}

function answer(text: string, done: boolean): BSON.Document {
	return { conversationId: CONVERSATION, done, payload: new Binary(Buffer.from(text)), ok: 1 };
}

function refused(): CommandError {
	return new CommandError(18, "AuthenticationFailed", "Authentication failed.");
}
