import { createHmac, createSecretKey, hash, type KeyObject, timingSafeEqual } from "node:crypto";
import type { Clock, Random } from "./clock.ts";

const BASE32 = "0123456789abcdefghjkmnpqrstvwxyz";
const TIME_CHARS = 10;
const RANDOM_BYTES = 16;

const GROUP_ID = /^[0-9a-hjkmnp-tv-z]{26}$/;
const MESSAGE_ID = /^([0-9a-hjkmnp-tv-z]{26})\.(0|[1-9][0-9]{0,3})$/;

/** Who holds work: one process start of one node (R2). */
export interface Owner {
	readonly nodeID: string;
	readonly instanceID: string;
}

/** @returns whether both name the same process start */
export function sameOwner(a: Owner | null | undefined, b: Owner | null | undefined): boolean {
	return !!a && !!b && a.nodeID === b.nodeID && a.instanceID === b.instanceID;
}

/**
 * Makes a group id (R1): 26 characters of lower-case base32, the first ten the time in
 * milliseconds, so that ids sort by the time they were made.
 */
export function newGroupId(clock: Clock, random: Random): string {
	let time = clock.now();
	let head = "";
	for (let i = 0; i < TIME_CHARS; i++) {
		head = BASE32.charAt(time % 32) + head;
		time = Math.floor(time / 32);
	}
	let tail = "";
	for (const byte of random.bytes(RANDOM_BYTES)) tail += BASE32.charAt(byte & 31);
	return head + tail;
}

/** Makes the id of a store (R3) or of anything else that only has to be unique: 32 hex digits. */
export function newStoreId(random: Random): string {
	return Buffer.from(random.bytes(16)).toString("hex");
}

/** @returns the id of the group's message at this place: `<groupId>.<index>` */
export function messageId(groupId: string, index: number): string {
	return `${groupId}.${index}`;
}

/** @returns whether the text has the form of a group id */
export function isGroupId(text: unknown): text is string {
	return typeof text === "string" && GROUP_ID.test(text);
}

/** @returns the group and place that a message id names, or undefined when it is none */
export function parseMessageId(text: unknown): { group: string; index: number } | undefined {
	const match = typeof text === "string" ? MESSAGE_ID.exec(text) : null;
	return match?.[1] === undefined ? undefined : { group: match[1], index: Number(match[2]) };
}

/** Keys as the crypto library wants them: to make one anew takes longer than the MAC itself. */
const keys = new WeakMap<Uint8Array, KeyObject>();

function prepared(key: Uint8Array): KeyObject {
	let made = keys.get(key);
	if (!made) {
		made = createSecretKey(key);
		keys.set(key, made);
	}
	return made;
}

/**
 * The MAC that proves a message was sent to whoever shows it (R5).
 *
 * @param key the coordinator store's key
 * @param id the message id
 */
export function makeReceipt(key: Uint8Array, id: string): string {
	return createHmac("sha256", prepared(key)).update(id).digest("base64url").slice(0, 32);
}

/** @returns whether `receipt` was made for this message under this key */
export function checkReceipt(key: Uint8Array, id: string, receipt: unknown): boolean {
	if (typeof receipt !== "string") return false;
	const expected = Buffer.from(makeReceipt(key, id));
	const given = Buffer.from(receipt);
	return expected.length === given.length && timingSafeEqual(expected, given);
}

/** @returns a 64-digit hash of the text, to compare contents by (R6) */
export function contentHash(text: string): string {
	return hash("sha256", text);
}
