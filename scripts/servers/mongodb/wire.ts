import { BSON } from "mongodb";

const OP_REPLY = 1;
const OP_QUERY = 2004;
const OP_MSG = 2013;

const HEADER = 16;
const CHECKSUM_PRESENT = 1;
const MORE_TO_COME = 2;
const SECTION_BODY = 0;
const CHECKSUM_BYTES = 4;

/** One request of a client. */
export interface Request {
	readonly id: number;
	readonly opcode: number;
	/** Whether the client waits for an answer. */
	readonly answered: boolean;
	/** The command's document, as it came. */
	readonly body: Buffer;
	/** Documents that came beside it (`documents`, `updates`, `deletes`), one after the other. */
	readonly sequence: Buffer | undefined;
}

/** Takes whole messages out of a stream of bytes. */
export class Messages {
	#rest: Buffer = Buffer.alloc(0);

	/** @throws when the bytes are no MongoDB messages */
	*take(data: Buffer): Generator<Request> {
		this.#rest = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data]);
		while (this.#rest.length >= HEADER) {
			const length = this.#rest.readInt32LE(0);
			if (length < HEADER) throw new Error(`a message of ${length} bytes`);
			if (this.#rest.length < length) return;
			const message = this.#rest.subarray(0, length);
			this.#rest = this.#rest.subarray(length);
			yield parse(message);
		}
	}
}

function parse(message: Buffer): Request {
	const id = message.readInt32LE(4);
	const opcode = message.readInt32LE(12);
	if (opcode === OP_QUERY) {
		// Flags, the collection's name, how many to skip and to return; then the command.
		const at = message.indexOf(0, HEADER + 4) + 1 + 8;
		const body = documentAt(message, at);
		return { id, opcode, answered: true, body, sequence: undefined };
	}
	if (opcode !== OP_MSG) throw new Error(`opcode ${opcode} is not supported`);
	const flags = message.readUInt32LE(HEADER);
	const end = message.length - (flags & CHECKSUM_PRESENT ? CHECKSUM_BYTES : 0);
	let body: Buffer | undefined;
	let sequence: Buffer | undefined;
	let at = HEADER + 4;
	while (at < end) {
		const kind = message[at++];
		const size = message.readInt32LE(at);
		if (kind === SECTION_BODY) body = message.subarray(at, at + size);
		else sequence = message.subarray(message.indexOf(0, at + 4) + 1, at + size);
		at += size;
	}
	if (!body) throw new Error("a message without a command");
	return { id, opcode, answered: (flags & MORE_TO_COME) === 0, body, sequence };
}

function documentAt(bytes: Buffer, at: number): Buffer {
	return bytes.subarray(at, at + bytes.readInt32LE(at));
}

/** @returns the bytes of an answer; `reply` is BSON */
export function answerTo({ id, opcode }: Request, reply: Uint8Array): Buffer {
	const head = Buffer.alloc(opcode === OP_QUERY ? HEADER + 20 : HEADER + 5);
	head.writeInt32LE(head.length + reply.length, 0);
	head.writeInt32LE(id, 8);
	if (opcode === OP_QUERY) {
		head.writeInt32LE(OP_REPLY, 12);
		head.writeInt32LE(1, head.length - 4);
	} else {
		head.writeInt32LE(OP_MSG, 12);
	}
	return Buffer.concat([head, reply]);
}

/** What a client says around a command, which the engine itself does not take. */
const ENVELOPE = new Set([
	"$db",
	"$clusterTime",
	"$readPreference",
	"apiVersion",
	"autocommit",
	"lsid",
	"maxTimeMS",
	"readConcern",
	"startTransaction",
	"stmtId",
	"txnNumber",
	"writeConcern",
]);

/** A command, taken apart as far as the gateway must know it. */
export interface Command {
	/** As the client wrote it. */
	readonly name: string;
	readonly db: string;
	/** The value of every field of the envelope, and of the command's name. */
	readonly fields: Readonly<Record<string, unknown>>;
	/** The command without its envelope, for the engine. */
	readonly spec: Buffer;
	readonly sequence: Buffer | undefined;
	/** Everything in it: takes time with large ones. */
	whole(): BSON.Document;
}

/** Takes a command apart without looking into its documents. */
export function commandOf({ body, sequence, opcode }: Request): Command {
	const kept: Buffer[] = [];
	const envelope: Buffer[] = [];
	let name = "";
	for (const [type, nameAt, nameLength, at, length] of BSON.onDemand.parseToElements(body)) {
		const key = body.toString("utf8", nameAt, nameAt + nameLength);
		const element = body.subarray(nameAt - 1, at + length);
		if (type === undefined) continue;
		if (name === "") {
			name = key;
			envelope.push(element);
		}
		if (ENVELOPE.has(key)) envelope.push(element);
		else kept.push(element);
	}
	const fields = BSON.deserialize(documentOf(envelope));
	return {
		name,
		db: opcode === OP_QUERY ? "admin" : String(fields["$db"] ?? "admin"),
		fields,
		spec: documentOf(kept),
		sequence,
		whole: () => BSON.deserialize(body),
	};
}

function documentOf(elements: readonly Buffer[]): Buffer {
	const size = elements.reduce((sum, { length }) => sum + length, 5);
	const head = Buffer.alloc(4);
	head.writeInt32LE(size, 0);
	return Buffer.concat([head, ...elements, Buffer.alloc(1)], size);
}
