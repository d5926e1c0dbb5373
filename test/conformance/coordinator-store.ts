import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import fc from "fast-check";

import type {
	AuditFilter,
	ClaimRequest,
	CoordinatorStore,
	GroupFilter,
	MessageFilter,
	NewAuditEntry,
	Page,
	PageRequest,
} from "../../adapters/coordinator-store/contract.ts";
import { ACTIVITY_MS, slotOf } from "../../adapters/coordinator-store/contract.ts";
import {
	applyChange,
	type Change,
	type Clock,
	decide,
	type Decision,
	FENCED_ALL,
	GROUP_STATES,
	type GroupRecord,
	MESSAGE_STATES,
	type MessageEvent,
	type MessageRecord,
	newGroupId,
	type NewGroup,
	type NewMessage,
	systemRandom,
	TIMELINE_LIMIT,
	type TransitionResult,
} from "../../protocol/index.ts";
import {
	CONSUMER_STORE,
	dispatchTo,
	FAILURE,
	FATAL,
	newGroup,
	newMessage,
	PRODUCER_STORE,
	RETRY,
} from "../support/groups.ts";

/** One set of data that stores are opened on. */
export interface StoreHarness {
	/** A store on the data, opened: another one each time, as of another coordinator. */
	open(): Promise<CoordinatorStore>;
	/** Moves the stores' clock on. It stands still in between. */
	advance(ms: number): Promise<void>;
	/** Closes every store and deletes the data. */
	destroy(): Promise<void>;
}

const LEASE = 5_000;
const CHECK_AFTER = 10_000;

/** Every coordinator store must pass this, whatever it is built on. */
export function coordinatorStoreSuite(name: string, make: () => Promise<StoreHarness>): void {
	describe(`coordinator store: ${name}`, () => {
		let harness: StoreHarness;
		let store: CoordinatorStore;

		beforeEach(async () => {
			harness = await make();
			store = await harness.open();
		});
		afterEach(() => harness.destroy());

		function fresh(fields: Partial<NewGroup> = {}): NewGroup {
			const clock: Clock = { now: () => store.now(), after: () => ({ cancel: () => {} }) };
			return newGroup({ id: newGroupId(clock, systemRandom), ...fields });
		}

		async function prepare(fields: Partial<NewGroup> = {}): Promise<string> {
			const group = fresh(fields);
			expect(await store.insert([group])).toEqual([{ result: "created" }]);
			return group.id;
		}

		async function prepareMany(
			count: number,
			fields: Partial<NewGroup> = {},
		): Promise<string[]> {
			const groups = Array.from({ length: count }, () => fresh(fields));
			await store.insert(groups);
			return groups.map(({ id }) => id);
		}

		async function standing(id: string): Promise<GroupRecord> {
			const [group] = await store.get([id]);
			if (!group) throw new Error(`no group ${id}`);
			return group;
		}

		async function decideOne(id: string, fields: Partial<Decision> = {}) {
			const [result] = await store.decide([
				{ id, to: "committed", by: "producer", who: "user@node-user", ...fields },
			]);
			if (!result) throw new Error("no result");
			return result;
		}

		/** Commits and dispatches, so that the group's messages are delivering. */
		const send = (id: string) => decideOne(id, { dispatch: dispatchTo("auth") });

		/** Applies an event, by default as whoever has the group now. */
		async function change(id: string, event: MessageEvent, epoch?: number) {
			const current = epoch ?? (await store.get([id]))[0]?.epoch ?? 0;
			const [result] = await store.apply([{ id, index: 0, event, epoch: current }]);
			if (!result) throw new Error("no result");
			return result;
		}

		function claim(fields: Partial<ClaimRequest> = {}) {
			return store.claim({
				kind: "check",
				owner: "lottor@node-1",
				lease: LEASE,
				limit: 1_000,
				...fields,
			});
		}

		describe("prepare", () => {
			it("R6: stores a group once; a repeat exists, other content differs", async () => {
				const group = fresh({ messages: [newMessage(), newMessage({ target: "mail" })] });
				const other = { ...group, hash: "1".repeat(64) };
				expect(await store.insert([group])).toEqual([{ result: "created" }]);
				expect(await store.insert([group])).toEqual([
					{ result: "exists", id: group.id, state: "prepared" },
				]);
				expect(await store.insert([other])).toEqual([
					{ result: "differs", state: "prepared" },
				]);
				await send(group.id);
				expect(await store.insert([group, other])).toEqual([
					{ result: "exists", id: group.id, state: "committed" },
					{ result: "differs", state: "committed" },
				]);
				expect((await store.timeline(group.id)).map(({ event }) => event)).toEqual([
					"prepare",
					"commit",
					"sent",
				]);
			});

			it("R6: the same id twice in one call is a repeat, and bad neighbours change nothing", async () => {
				const [a, b] = [fresh(), fresh()];
				const results = await store.insert([a, a, { ...a, hash: "1".repeat(64) }, b, b]);
				expect(results.map(({ result }) => result)).toEqual([
					"created",
					"exists",
					"differs",
					"created",
					"exists",
				]);
				expect(await store.payloads(b.id)).toHaveLength(1);
			});

			it("gives back what it was given, and puts the check-back on its own clock (R19)", async () => {
				const group = fresh({
					context: '{"requestID":"ü\\u0000"}',
					idempotencyKey: "order-7",
					messages: [
						newMessage({ content: '{"role":"é𝄞"}', delay: 250, maxAttempts: 3 }),
						newMessage({ target: "v2.mail", plain: "channel", orderingKey: "k" }),
					],
				});
				await store.insert([group]);
				const stored = await standing(group.id);
				expect(stored).toMatchObject({
					source: "user",
					storeId: PRODUCER_STORE,
					owner: group.owner,
					guarantee: "transactional",
					hash: group.hash,
					idempotencyKey: "order-7",
					createdAt: store.now(),
					checkAt: store.now() + CHECK_AFTER,
				});
				expect(stored.messages).toMatchObject([
					{ state: "held", delay: 250, maxAttempts: 3, plain: false },
					{ target: "v2.mail", plain: "channel", orderingKey: "k", instance: null },
				]);
				expect(await store.context(group.id)).toBe(group.context);
				expect((await store.payloads(group.id)).map(({ content }) => content)).toEqual([
					'{"role":"é𝄞"}',
					"{}",
				]);
			});

			it("answers a used idempotency key with the group that has it, until that rolls back", async () => {
				const first = await prepare({ idempotencyKey: "k" });
				expect(await store.insert([fresh({ idempotencyKey: "k" })])).toEqual([
					{ result: "exists", id: first, state: "prepared" },
				]);
				expect(
					await store.insert([fresh({ idempotencyKey: "k", source: "other" })]),
				).toEqual([{ result: "created" }]);
				await decideOne(first, { to: "rolledBack" });
				const next = fresh({ idempotencyKey: "k" });
				const again = fresh({ idempotencyKey: "k" });
				expect(await store.insert([next, again])).toEqual([
					{ result: "created" },
					{ result: "exists", id: next.id, state: "prepared" },
				]);
				await send(next.id);
				expect(await store.insert([again])).toEqual([
					{ result: "exists", id: next.id, state: "committed" },
				]);
			});

			it("knows nothing of ids that were never prepared", async () => {
				const { id } = fresh();
				expect(await store.get([id])).toEqual([undefined]);
				expect(await store.context(id)).toBeUndefined();
				expect(await store.payloads(id)).toEqual([]);
				expect(await store.timeline(id)).toEqual([]);
				expect(await decideOne(id)).toEqual({ result: "unknown" });
				expect(await change(id, { type: "fenced", minRevision: 1 })).toEqual({
					result: "unknown",
				});
				expect(await store.release([{ id, epoch: 1 }])).toEqual([{ result: "unknown" }]);
			});
		});

		describe("decide", () => {
			it("hands out payloads and context of exactly what went to delivering in that write", async () => {
				const id = await prepare({
					context: '{"c":1}',
					messages: [
						newMessage({ content: '"now"' }),
						newMessage({ content: '"late"', delay: 1_000 }),
						newMessage({ content: '"nobody"', target: "mail" }),
					],
				});
				const result = await send(id);
				expect(result).toMatchObject({
					result: "done",
					context: '{"c":1}',
					payloads: [{ message: `${id}.0`, revision: 0, content: '"now"' }],
					group: { state: "committed", epoch: 1, leaseOwner: "lottor@node-1" },
				});
				const stored = await standing(id);
				expect(result).toHaveProperty("group", stored);
				expect(stored.messages.map(({ state }) => state)).toEqual([
					"delivering",
					"pending",
					"pending",
				]);
				expect(await send(id)).toEqual({
					result: "already",
					state: "committed",
					owner: "lottor@node-1",
					epoch: 1,
				});
			});

			it("R17: contradicting decisions are conflicts that the group keeps", async () => {
				const undone = await prepare();
				await harness.advance(1);
				const done = await prepare();
				await decideOne(undone, { to: "rolledBack" });
				expect(await decideOne(undone)).toMatchObject({
					result: "conflict",
					state: "rolledBack",
				});
				expect(await standing(undone)).toMatchObject({
					state: "inDoubt",
					messages: [{ state: "held" }],
				});
				await send(done);
				expect(await decideOne(done, { to: "rolledBack" })).toMatchObject({
					result: "conflict",
					state: "committed",
				});
				expect((await standing(done)).conflict).not.toBeNull();
				expect((await store.stats()).conflicts).toBe(2);
				const { items } = await store.list({ conflict: true }, { limit: 10 });
				expect(items.map(({ id }) => id)).toEqual([done, undone]);
			});

			it("one bad element leaves the others of its batch alone", async () => {
				const [a, b, c] = [await prepare(), await prepare(), await prepare()];
				await decideOne(b, { to: "rolledBack" });
				const results = await store.decide(
					[a, "0".repeat(26), b, c].map((id) => ({
						id,
						to: "committed",
						by: "producer",
						who: "user",
					})),
				);
				expect(results.map(({ result }) => result)).toEqual([
					"done",
					"unknown",
					"conflict",
					"done",
				]);
				const applied = await store.apply([
					{ id: a, index: 0, event: { type: "discard", who: "ann", fenced: true } },
					{ id: a, index: 9, event: { type: "discard", who: "ann", fenced: true } },
					{
						id: "0".repeat(26),
						index: 0,
						event: { type: "discard", who: "ann", fenced: true },
					},
					{
						id: c,
						index: 0,
						event: { type: "edit", content: "1", bytes: 1, who: "ann" },
					},
					{ id: c, index: 0, event: { type: "discard", who: "ann", fenced: true } },
				]);
				expect(applied.map(({ result }) => result)).toEqual([
					"done",
					"conflict",
					"unknown",
					"conflict",
					"done",
				]);
			});
		});

		describe("apply", () => {
			const EVENTS: readonly MessageEvent[] = [
				{ type: "sent", storeId: CONSUMER_STORE, instance: null, ackTimeout: 10_000 },
				{ type: "rescheduled", delay: 7, parked: true, why: "nobody" },
				{ type: "asked", answer: "running", delay: 20_000 },
				{ type: "unseen", vanished: true },
				{ type: "crashed", error: FATAL },
				{ type: "unanswered", error: FAILURE, policy: RETRY, fraction: 0.5 },
				{ type: "consumed", revision: 0, who: "auth" },
				{
					type: "failed",
					attempt: 1,
					revision: 0,
					error: { ...FAILURE, stack: "at x" },
					policy: RETRY,
					fraction: 0.5,
					who: "auth",
				},
				{ type: "fenced", minRevision: 1 },
				{ type: "fenced", minRevision: FENCED_ALL },
				{ type: "retry", who: "ann", why: "why not" },
				{ type: "edit", content: '"new"', bytes: 5, who: "ann" },
				{ type: "discard", who: "ann", fenced: false },
				{ type: "discard", who: "ann", fenced: true },
			];
			const REACH: Record<string, (id: string) => Promise<unknown>> = {
				held: async () => {},
				pending: (id) => decideOne(id),
				delivering: send,
				consumed: async (id) => {
					await send(id);
					await change(id, { type: "consumed", revision: 0, who: "auth" });
				},
				failed: async (id) => {
					await send(id);
					await change(id, { type: "crashed", error: FATAL });
				},
				discarded: (id) => decideOne(id, { to: "rolledBack" }),
			};

			for (const state of MESSAGE_STATES) {
				it(`stores what the state machine says of every event that meets ${state}`, async () => {
					for (const event of EVENTS) {
						const id = await prepare();
						await REACH[state]?.(id);
						const before = await standing(id);
						expect(before.messages[0]?.state).toBe(state);
						const told = await store.timeline(id);
						await harness.advance(3);
						const step: Change = { id, index: 0, event, epoch: before.epoch };
						const expected = applyChange(before, step, store.now());
						expect(await store.apply([step])).toEqual([
							{ ...expected.outcome, group: expected.group },
						]);
						expect(await standing(id)).toEqual(expected.group);
						const more = (await store.timeline(id)).slice(told.length);
						expect(more).toEqual(
							expected.entries.map((entry, place) => ({
								...entry,
								group: id,
								at: store.now(),
								version: expected.group.version,
								place,
							})),
						);
					}
				});
			}

			it("stores what the state machine says of every decision that meets every state", async () => {
				const reach: Record<string, (id: string) => Promise<unknown>> = {
					prepared: async () => {},
					committed: (id) => decideOne(id),
					completed: (id) => REACH["consumed"]?.(id) ?? Promise.resolve(),
					rolledBack: (id) => decideOne(id, { to: "rolledBack" }),
					inDoubt: async (id) => {
						const event = {
							type: "checked" as const,
							answer: "unknown" as const,
							delay: 1,
							maxChecks: 1,
							doubtAfter: 1,
						};
						await store.apply([{ id, epoch: 0, event }]);
					},
				};
				for (const state of GROUP_STATES) {
					for (const by of ["producer", "resolved", "operator"] as const) {
						for (const to of ["committed", "rolledBack"] as const) {
							const id = await prepare();
							await reach[state]?.(id);
							const before = await standing(id);
							expect(before.state).toBe(state);
							const decision = { id, by, to, who: "x" };
							const expected = decide(before, decision, store.now());
							const [result] = await store.decide([decision]);
							expect(result?.result).toBe(expected.outcome.result);
							expect(await standing(id)).toEqual(expected.group);
						}
					}
				}
			});

			it("R20: refuses scheduling writes of a former owner, and takes facts from anybody", async () => {
				const id = await prepare();
				await send(id);
				await harness.advance(CHECK_AFTER);
				const [mine] = await claim({ kind: "ask", owner: "lottor@node-2" });
				expect(mine?.group.epoch).toBe(2);
				const late: MessageEvent = { type: "asked", answer: "running", delay: 1 };
				expect(await change(id, late, 1)).toMatchObject({ result: "fenced" });
				expect(await standing(id)).toEqual(mine?.group);
				expect(await change(id, late, 2)).toMatchObject({ result: "done" });
				expect(
					await change(id, { type: "consumed", revision: 0, who: "auth" }, 1),
				).toMatchObject({ result: "done", group: { state: "completed" } });
			});

			it("R26: consumed absorbs, however often and from wherever it comes", async () => {
				const id = await prepare();
				await send(id);
				const event: MessageEvent = { type: "consumed", revision: 0, who: "auth" };
				const results = await Promise.all(
					Array.from({ length: 20 }, () => change(id, event)),
				);
				expect(results.filter(({ result }) => result === "done")).toHaveLength(1);
				expect(results.filter(({ result }) => result === "already")).toHaveLength(19);
				const told = await store.timeline(id);
				expect(told.filter(({ event }) => event === "complete")).toHaveLength(1);
			});

			it("R27, R29: an edit is a payload of its own, beside the former ones", async () => {
				const id = await prepare({ messages: [newMessage({ content: '"old"' })] });
				await send(id);
				await change(id, { type: "crashed", error: FATAL });
				for (const content of ['"new"', '"newer"']) {
					expect(
						await change(id, { type: "edit", content, bytes: 5, who: "ann" }),
					).toMatchObject({ result: "done" });
				}
				await change(id, { type: "retry", who: "ann" });
				const payloads = await store.payloads(id);
				expect(payloads.map(({ content }) => content)).toEqual([
					'"old"',
					'"new"',
					'"newer"',
				]);
				await harness.advance(LEASE);
				const [claimed] = await claim({ kind: "deliver" });
				expect(claimed?.payloads).toEqual([payloads[2]]);
			});

			it("a message whose revision a retry has raised is sent with the payload that it has", async () => {
				const id = await prepare({ messages: [newMessage({ content: '"only"' })] });
				await send(id);
				await change(id, { type: "crashed", error: FATAL });
				await change(id, { type: "retry", who: "ann" });
				expect((await standing(id)).messages[0]?.revision).toBe(1);
				await harness.advance(LEASE);
				const [claimed] = await claim({ kind: "deliver" });
				expect(claimed?.payloads.map(({ content }) => content)).toEqual(['"only"']);
			});

			it(`R29: keeps ${TIMELINE_LIMIT} entries of a message and counts the rest`, async () => {
				const id = await prepare();
				await decideOne(id);
				for (let round = 0; round < TIMELINE_LIMIT; round++) {
					await change(id, {
						type: "sent",
						storeId: CONSUMER_STORE,
						instance: null,
						ackTimeout: 1,
					});
					await change(id, { type: "unseen", vanished: false });
				}
				const own = (await store.timeline(id)).filter(({ message }) => message !== null);
				expect(own).toHaveLength(TIMELINE_LIMIT);
				expect((await standing(id)).messages[0]?.entries).toBe(2 * TIMELINE_LIMIT);
			});
		});

		describe("claim", () => {
			it("R19, R21: gives what is due and not leased, by the store's clock, oldest first", async () => {
				const first = await prepare({ context: '"first"' });
				await harness.advance(1);
				const second = await prepare();
				expect(await claim()).toEqual([]);
				await harness.advance(CHECK_AFTER - 2);
				expect(await claim()).toEqual([]);
				await harness.advance(2);
				const claimed = await claim({ limit: 1 });
				expect(claimed).toMatchObject([
					{
						group: { id: first, epoch: 1, leaseUntil: store.now() + LEASE },
						payloads: [],
						context: '"first"',
					},
				]);
				expect((await claim()).map(({ group }) => group.id)).toEqual([second]);
				await harness.advance(LEASE - 1);
				expect(await claim()).toEqual([]);
				await harness.advance(1);
				expect((await claim()).map(({ group }) => group.epoch)).toEqual([2, 2]);
			});

			it("gives each kind of work to those who ask for it, with the payloads that are due", async () => {
				const id = await prepare({
					messages: [
						newMessage({ content: '"a"' }),
						newMessage({ content: '"b"', delay: 60_000 }),
					],
				});
				await decideOne(id);
				expect(await claim({ kind: "check" })).toEqual([]);
				expect(await claim({ kind: "ask" })).toEqual([]);
				const [claimed] = await claim({ kind: "deliver" });
				expect(claimed?.payloads.map(({ content }) => content)).toEqual(['"a"']);
				await change(
					id,
					{ type: "sent", storeId: CONSUMER_STORE, instance: null, ackTimeout: 10_000 },
					1,
				);
				await harness.advance(10_000);
				expect(await claim({ kind: "deliver" })).toEqual([]);
				const [asked] = await claim({ kind: "ask" });
				expect(asked).toMatchObject({ group: { id }, payloads: [] });
			});

			it("R20: 200 claimers race for 150 groups through two stores, and each goes to one", async () => {
				const other = await harness.open();
				const ids = await prepareMany(150);
				await harness.advance(CHECK_AFTER);
				const claims = await Promise.all(
					Array.from({ length: 200 }, (_, claimer) =>
						(claimer % 2 ? store : other).claim({
							kind: "check",
							owner: `lottor@node-${claimer}`,
							lease: LEASE,
							limit: 1 + (claimer % 3),
						}),
					),
				);
				const taken = claims.flat().map(({ group }) => group);
				expect(taken.map(({ id }) => id).sort()).toEqual([...ids].sort());
				expect(taken.every(({ epoch }) => epoch === 1)).toBe(true);
			});

			it("what one store writes is what another on the same data reads and decides on", async () => {
				const other = await harness.open();
				const id = await prepare();
				expect(await other.get([id])).toEqual([await standing(id)]);
				await send(id);
				const consumed: Change = {
					id,
					index: 0,
					event: { type: "consumed", revision: 0, who: "auth" },
				};
				expect(await other.apply([consumed])).toMatchObject([{ result: "done" }]);
				expect(await store.apply([consumed])).toMatchObject([{ result: "already" }]);
			});

			it("spreads groups by slot, and lets anybody have what is overdue", async () => {
				const ids = await prepareMany(100);
				await harness.advance(CHECK_AFTER);
				const slots = Array.from({ length: 128 }, (_, slot) => slot * 2);
				const even = await claim({ share: { slots, after: 2_000 } });
				expect(even.map(({ group }) => group.id).sort()).toEqual(
					ids.filter((id) => slotOf(id) % 2 === 0).sort(),
				);
				await harness.advance(2_000);
				const rest = await claim({ share: { slots: [], after: 2_000 } });
				expect(rest).toHaveLength(ids.length - even.length);
			});

			it("release ends the lease of its own claim only", async () => {
				const id = await prepare();
				await harness.advance(CHECK_AFTER);
				await claim();
				const results = await store.release([
					{ id, epoch: 0 },
					{ id, epoch: 1 },
					{ id, epoch: 1 },
				]);
				expect(results.map(({ result }) => result)).toEqual(["fenced", "done", "already"]);
				expect(await claim()).toHaveLength(1);
			});
		});

		describe("wake", () => {
			it("makes due what waits for a target, up to the limit", async () => {
				const ids = await prepareMany(5);
				for (const id of ids) {
					await decideOne(id);
					await change(id, {
						type: "rescheduled",
						delay: 3_600_000,
						parked: true,
						why: "nobody",
					});
				}
				expect(await claim({ kind: "deliver" })).toEqual([]);
				expect(await store.wake({ target: "mail" }, 10)).toBe(0);
				expect(await store.wake({ target: "auth" }, 3)).toBe(3);
				expect(await claim({ kind: "deliver" })).toHaveLength(3);
				expect(await store.wake({ target: "auth" }, 3)).toBe(2);
				expect(await store.wake({ target: "auth" }, 3)).toBe(0);
			});

			it("R16: makes due the check-backs that wait for an instance with the storeId", async () => {
				const [waiting, doubted, other] = [
					await prepare(),
					await prepare(),
					await prepare({ storeId: "f".repeat(32) }),
				];
				const checked = { type: "checked" as const, delay: 300_000, doubtAfter: 3_600_000 };
				await store.apply([
					{
						id: waiting,
						epoch: 0,
						event: { ...checked, answer: "none", why: "down", maxChecks: 9 },
					},
					{
						id: doubted,
						epoch: 0,
						event: { ...checked, answer: "unknown", maxChecks: 1 },
					},
					{
						id: other,
						epoch: 0,
						event: { ...checked, answer: "none", why: "down", maxChecks: 9 },
					},
				]);
				expect((await standing(doubted)).state).toBe("inDoubt");
				expect(await store.wake({ storeId: PRODUCER_STORE }, 10)).toBe(2);
				expect(await store.wake({ storeId: PRODUCER_STORE }, 10)).toBe(0);
				const due = (await claim()).map(({ group }) => group.id);
				expect(due.sort()).toEqual([waiting, doubted].sort());
			});
		});

		describe("lists", () => {
			async function all<T>(
				read: (cursor: string | undefined) => Promise<Page<T>>,
			): Promise<T[]> {
				const items: T[] = [];
				for (let cursor: string | undefined, first = true; first || cursor; first = false) {
					const page: Page<T> = await read(cursor);
					items.push(...page.items);
					cursor = page.next;
				}
				return items;
			}

			const groups = (filter: GroupFilter, limit = 7, more: Partial<PageRequest> = {}) =>
				all((cursor) =>
					store.list(filter, {
						limit,
						...more,
						...(cursor === undefined ? {} : { cursor }),
					}),
				);
			const messages = (filter: MessageFilter, limit = 7, more: Partial<PageRequest> = {}) =>
				all((cursor) =>
					store.listMessages(filter, {
						limit,
						...more,
						...(cursor === undefined ? {} : { cursor }),
					}),
				);

			/** 60 groups in every state, of two sources, with one or two messages to two targets. */
			async function mixed(): Promise<void> {
				for (let i = 0; i < 60; i++) {
					const terms = i % 7 ? [`user-${i}`] : ["ada", "grant"];
					const list: NewMessage[] = [
						// The record shows the terms, too.
						newMessage({
							type: i % 4 ? "grant" : "revoke",
							terms,
							orderingKey: terms.join(" "),
						}),
					];
					if (i % 3 === 0) list.push(newMessage({ target: "mail", type: "grant" }));
					const id = await prepare({
						messages: list,
						source: i % 2 ? "user" : "shop",
					});
					if (i % 5 === 1) await decideOne(id, { to: "rolledBack" });
					if (i % 10 === 1) await decideOne(id);
					if (i % 5 > 1) await send(id);
					if (i % 5 === 3) {
						await change(id, { type: "consumed", revision: 0, who: "auth" });
					}
					if (i % 5 === 4) await change(id, { type: "crashed", error: FATAL });
					await harness.advance(10);
				}
			}

			it("find the same as looking at everything, by every filter and newest first", async () => {
				await mixed();
				const everything = await groups({}, 1_000);
				expect(everything).toHaveLength(60);
				const times = everything.map(({ createdAt }) => createdAt);
				expect(times).toEqual([...times].sort((a, b) => b - a));
				const middle = times[30] ?? 0;
				const prefix = (everything[20]?.id ?? "").slice(0, 9);
				const filters: GroupFilter[] = [
					{ states: ["completed"] },
					{ states: ["inDoubt", "prepared", "committed"] },
					{ states: [] },
					{ source: "shop" },
					{ source: "shop", states: ["completed", "rolledBack"] },
					{ source: "nobody" },
					{ target: "mail" },
					{ type: "revoke" },
					{ target: "mail", type: "revoke" },
					{ target: "auth", source: "user", states: ["committed"] },
					{ target: "mail", states: ["inDoubt", "prepared"] },
					{ conflict: true },
					{ conflict: true, source: "shop" },
					{ conflict: false },
					{ conflict: false, type: "grant", states: ["prepared"] },
					{ since: middle },
					{ until: middle },
					{ since: middle, until: middle + 100, states: ["committed", "completed"] },
					{ idPrefix: prefix },
					{ idPrefix: prefix, states: ["committed"], since: middle, target: "auth" },
					{ idPrefix: everything[3]?.id ?? "" },
					{ since: middle, target: "auth" },
					{ errorCode: "E_GRANT" },
					{ errorCode: "E_GRANT", target: "mail" },
					{ errorCode: "E_GRANT", source: "user", since: middle },
					{ terms: ["ada"] },
					{ terms: ["user-3", "user-5", "nobody"] },
					{ terms: ["revoke"] },
					{ terms: ["mail", "ada"] },
					{ terms: ["grant", "E_GRANT"], states: ["committed"], source: "shop" },
					{ terms: ["ada"], type: "revoke", until: middle },
					{ terms: [] },
					{ terms: ["ada"], idPrefix: prefix },
				];
				for (const filter of filters) {
					const expected = everything.filter(matchesGroup(filter)).map(({ id }) => id);
					if (filter.idPrefix !== undefined) expected.sort().reverse();
					const found = (await groups(filter)).map(({ id }) => id);
					expect({ filter, found }).toEqual({ filter, found: expected });
					const rising = (await groups(filter, 7, { order: "oldest" })).map(
						({ id }) => id,
					);
					expect({ filter, rising }).toEqual({ filter, rising: expected.reverse() });
					const total = await store.countGroups(filter, 1_000);
					expect({ filter, total }).toEqual({
						filter,
						total: { count: expected.length, exact: true },
					});
				}
			}, 120_000);

			it("of messages find the same as looking at everything, by every filter", async () => {
				await mixed();
				const everything = await messages({}, 1_000);
				expect(everything).toHaveLength(80);
				const middle = everything[40]?.createdAt ?? 0;
				const prefix = (everything[20]?.group ?? "").slice(0, 9);
				const filters: MessageFilter[] = [
					{ states: ["failed"] },
					{ states: ["delivering", "pending", "held"] },
					{ states: ["consumed", "discarded"] },
					{ target: "mail" },
					{ target: "mail", states: ["discarded"] },
					{ type: "revoke" },
					{ type: "grant", target: "auth", states: ["failed"] },
					{ source: "shop" },
					{ source: "shop", states: ["consumed"], since: middle },
					{ errorCode: "E_GRANT" },
					{ errorCode: "E_GRANT", source: "user" },
					{ errorCode: "NONE" },
					{ since: middle },
					{ until: middle, target: "auth" },
					{ groupPrefix: prefix },
					{ groupPrefix: prefix, type: "grant", until: middle + 50 },
					{ groupPrefix: everything[20]?.group ?? "", index: 1 },
					{ groupPrefix: everything[20]?.group ?? "", index: 7 },
					{ groupPrefix: prefix, index: 0, states: ["failed", "held"] },
					{ index: 1 },
					{ index: 1, target: "mail", since: middle },
					{ index: 0, source: "user", terms: ["ada", "mail"] },
					{ terms: ["ada"] },
					{ terms: ["mail", "user-4", "E_GRANT"] },
					{ terms: ["grant"], states: ["consumed"], source: "user" },
					{ terms: ["ada"], groupPrefix: prefix },
				];
				for (const filter of filters) {
					const expected = everything
						.filter(
							(row) =>
								matches(filter.states, row.state) &&
								(filter.target ?? row.target) === row.target &&
								(filter.type ?? row.type) === row.type &&
								(filter.source ?? row.source) === row.source &&
								(filter.errorCode === undefined ||
									row.error?.code === filter.errorCode) &&
								hasTerm(row, filter.terms) &&
								row.group.startsWith(filter.groupPrefix ?? "") &&
								(filter.index ?? row.index) === row.index &&
								row.createdAt >= (filter.since ?? 0) &&
								row.createdAt < (filter.until ?? Number.POSITIVE_INFINITY),
						)
						.map(({ id }) => id);
					const found = (await messages(filter, 5)).map(({ id }) => id);
					expect({ filter, found: [...found].sort() }).toEqual({
						filter,
						found: [...expected].sort(),
					});
					const rising = await messages(filter, 5, { order: "oldest" });
					expect(rising.map(({ id }) => id).reverse()).toEqual(found);
					expect(await store.countMessages(filter, 1_000)).toEqual({
						count: expected.length,
						exact: true,
					});
				}
				const row = everything.find(({ state }) => state === "failed");
				const group = await standing(row?.group ?? "");
				expect(row).toEqual({
					...group.messages[row?.index ?? 0],
					group: group.id,
					groupState: group.state,
					source: group.source,
					createdAt: group.createdAt,
				});
			}, 120_000);

			it("stay whole while groups come, change and go between the pages", async () => {
				const ids = await prepareMany(50);
				const seen: string[] = [];
				let cursor: string | undefined;
				do {
					const page = await store.list(
						{},
						{ limit: 8, ...(cursor === undefined ? {} : { cursor }) },
					);
					seen.push(...page.items.map(({ id }) => id));
					cursor = page.next;
					await harness.advance(1);
					await prepareMany(3);
					const gone = seen.at(-1) ?? "";
					await decideOne(gone, { to: "rolledBack" });
					await store.purge({ state: "rolledBack", age: 0, limit: 10 });
				} while (cursor !== undefined);
				expect(seen.sort()).toEqual([...ids].sort());
			});

			it("count no further than asked", async () => {
				await prepareMany(9);
				expect(await store.countGroups({ source: "user" }, 5)).toEqual({
					count: 5,
					exact: false,
				});
				expect(await store.countMessages({ target: "auth" }, 5)).toEqual({
					count: 5,
					exact: false,
				});
			});

			it("end a page early that looked at many rows, and lose nothing by it", async () => {
				await mixed();
				const filter: GroupFilter = { source: "shop", target: "mail", conflict: false };
				const whole = await groups(filter);
				expect(await groups(filter, 50, { scan: 1 })).toEqual(whole);
				const ofMessages: MessageFilter = { source: "shop", states: ["consumed"] };
				expect(await messages(ofMessages, 50, { scan: 1 })).toEqual(
					await messages(ofMessages),
				);
			});

			it("find an edited payload by its new terms, and by its former", async () => {
				const id = await prepare({ messages: [newMessage({ terms: ["bob"] })] });
				await send(id);
				await change(id, { type: "crashed", error: FATAL });
				await change(id, {
					type: "edit",
					content: '{"user":"ann"}',
					bytes: 14,
					terms: ["ann"],
					who: "op",
				});
				for (const term of ["ann", "bob"]) {
					expect(await store.countMessages({ terms: [term] }, 5)).toMatchObject({
						count: 1,
					});
				}
				await change(id, { type: "discard", fenced: true, who: "op" });
				expect((await standing(id)).state).toBe("completed");
				await store.purge({ state: "completed", age: 0, limit: 10 });
				expect(await store.countMessages({ terms: ["ann"] }, 5)).toEqual({
					count: 0,
					exact: true,
				});
			});

			it("facets tell what there is to filter by", async () => {
				expect(await store.facets()).toEqual({
					sources: [],
					targets: [],
					types: [],
					errorCodes: [],
				});
				await mixed();
				expect(await store.facets()).toEqual({
					sources: ["shop", "user"],
					targets: ["auth", "mail"],
					types: ["grant", "revoke"],
					errorCodes: ["E_GRANT"],
				});
			});

			it("failures are counted by target, type and error code", async () => {
				expect(await store.failures()).toEqual([]);
				const failing = async (type: string, code: string) => {
					const id = await prepare({ messages: [newMessage({ type })] });
					await send(id);
					await change(id, { type: "crashed", error: { ...FATAL, code } });
					await harness.advance(5);
					return id;
				};
				await failing("grant", "E_ONE");
				const newest = await failing("grant", "E_ONE");
				const other = await failing("grant", "E_TWO");
				const third = await failing("revoke", "E_ONE");
				const kinds = (await store.failures()).map(({ newest: row, ...kind }) => ({
					...kind,
					group: row.group,
					code: row.error?.code,
				}));
				const target = "auth";
				expect(kinds).toEqual([
					{
						target,
						type: "grant",
						errorCode: "E_ONE",
						messages: 2,
						group: newest,
						code: "E_ONE",
					},
					{
						target,
						type: "grant",
						errorCode: "E_TWO",
						messages: 1,
						group: other,
						code: "E_TWO",
					},
					{
						target,
						type: "revoke",
						errorCode: "E_ONE",
						messages: 1,
						group: third,
						code: "E_ONE",
					},
				]);
				await change(other, { type: "retry", who: "op" });
				expect(await store.failures()).toHaveLength(2);
			});

			it("activity is counted by minute and day, by source and target", async () => {
				const since = store.now();
				await mixed();
				const until = store.now() + 60_000;
				const everything = await groups({}, 1_000);
				for (const step of ["minute", "day"] as const) {
					const rows = await store.activity(step, since, until);
					const sum = (what: string, part?: string) =>
						rows
							.filter((row) => row.what === what && (part ?? row.part) === row.part)
							.reduce((total, { count }) => total + count, 0);
					expect(sum("prepared")).toBe(60);
					expect(sum("prepared", "shop")).toBe(30);
					expect(sum("rolledBack")).toBe(
						everything.filter(
							({ state, conflict }) => state === "rolledBack" || conflict !== null,
						).length,
					);
					expect(sum("completed")).toBe(
						everything.filter(({ state }) => state === "completed").length,
					);
					expect(sum("latency")).toBe(sum("completed"));
					const states = everything.flatMap((group) => group.messages);
					for (const what of ["consumed", "failed"] as const) {
						expect(sum(what, "auth")).toBe(
							states.filter(
								({ state, target }) => state === what && target === "auth",
							).length,
						);
					}
					expect(rows.every(({ at }) => at % ACTIVITY_MS[step] === 0)).toBe(true);
				}
				await harness.advance(ACTIVITY_MS.day);
				const tomorrow = store.now() - (store.now() % ACTIVITY_MS.day);
				await prepare();
				expect(await store.activity("day", tomorrow, store.now() + 1)).toEqual([
					{ at: tomorrow, what: "prepared", part: "user", count: 1 },
				]);
				expect(await store.activity("minute", until, tomorrow)).toEqual([]);
			});

			it("end exactly at the last page", async () => {
				await prepareMany(4);
				const first = await store.list({}, { limit: 2 });
				const second = await store.list({}, { limit: 2, cursor: first.next ?? "" });
				expect(second.items).toHaveLength(2);
				expect(second).not.toHaveProperty("next");
				expect(await store.list({ source: "nobody" }, { limit: 2 })).toEqual({ items: [] });
			});

			it("refuse a cursor that is none with LOTTOR_INVALID_REQUEST", async () => {
				await prepareMany(3);
				const { next = "" } = await store.list({}, { limit: 1 });
				const bad = ["", "x", "!!", "W10", "WzEsMl0x", `${next}a`, "WyJhIiwiYiJd"];
				for (const cursor of bad) {
					await expect(store.list({}, { limit: 1, cursor })).rejects.toMatchObject({
						type: "LOTTOR_INVALID_REQUEST",
						data: { field: "cursor" },
					});
					await expect(
						store.listMessages({}, { limit: 1, cursor }),
					).rejects.toMatchObject({ type: "LOTTOR_INVALID_REQUEST" });
				}
				await expect(
					store.list({ idPrefix: "0" }, { limit: 1, cursor: next }),
				).rejects.toMatchObject({ type: "LOTTOR_INVALID_REQUEST" });
				for (const limit of [0, -1, 1.5, 1_001]) {
					await expect(store.list({}, { limit })).rejects.toMatchObject({
						type: "LOTTOR_INVALID_REQUEST",
						data: { field: "limit" },
					});
				}
			});

			it("the audit log tells who did what, newest first, by person and by action", async () => {
				const entry = (fields: Partial<NewAuditEntry>): NewAuditEntry => ({
					who: "ann",
					action: "retry",
					result: "ok",
					why: null,
					subject: null,
					data: null,
					...fields,
				});
				const written = [
					entry({ subject: "g.0", why: "mended" }),
					entry({ who: "bob", action: "discard", data: { count: 3, of: ["x"] } }),
					entry({ action: "discard", result: "refused" }),
				];
				const at = store.now();
				await store.record([]);
				await store.record(written.slice(0, 2));
				await store.record(written.slice(2));
				const { items, next } = await store.audits({}, { limit: 10 });
				expect(items.map(({ id: _, ...rest }) => rest)).toEqual(
					[...written].reverse().map((one) => ({ at, ...one })),
				);
				expect(new Set(items.map(({ id }) => id)).size).toBe(3);
				expect(next).toBeUndefined();
				const first = await store.audits({}, { limit: 2 });
				const rest = await store.audits({}, { limit: 2, cursor: first.next ?? "" });
				expect([...first.items, ...rest.items]).toEqual(items);
				expect(rest.next).toBeUndefined();
				const found = async (filter: AuditFilter) =>
					(await store.audits(filter, { limit: 10 })).items.map(({ id }) => id);
				const ids = items.map(({ id }) => id);
				expect(await found({ who: "bob" })).toEqual([ids[1]]);
				expect(await found({ action: "discard" })).toEqual([ids[0], ids[1]]);
				expect(await found({ action: "discard", who: "ann" })).toEqual([ids[0]]);
				await expect(store.audits({}, { limit: 2, cursor: "'; --" })).rejects.toMatchObject(
					{ type: "LOTTOR_INVALID_REQUEST" },
				);
			});

			it("stats count what there is", async () => {
				await mixed();
				const everything = await groups({}, 1_000);
				const all = everything.flatMap((group) => group.messages);
				const stats = await store.stats();
				for (const state of GROUP_STATES) {
					expect(stats.groups[state]).toBe(
						everything.filter((group) => group.state === state).length,
					);
				}
				for (const state of MESSAGE_STATES) {
					expect(stats.messages[state]).toBe(
						all.filter((message) => message.state === state).length,
					);
				}
				const waiting = all.filter(
					({ state }) => state === "pending" || state === "delivering",
				);
				const byTarget = ["auth", "mail"].map((target) => {
					const own = waiting.filter((message) => message.target === target);
					return {
						target,
						messages: own.length,
						since: Math.min(...own.map(({ stateAt }) => stateAt)),
					};
				});
				expect([...stats.backlog].sort((a, b) => (a.target < b.target ? -1 : 1))).toEqual(
					byTarget,
				);
				expect(stats.oldestPrepared).toBe(
					Math.min(
						...everything
							.filter(({ state }) => state === "prepared")
							.map(({ createdAt }) => createdAt),
					),
				);
			});
		});

		it("R30: purge takes what is completed or rolled back and old enough, never conflicts", async () => {
			const [done, undone, failed, disputed] = [
				await prepare(),
				await prepare(),
				await prepare(),
				await prepare(),
			];
			for (const id of [done, failed, disputed]) await send(id);
			for (const id of [done, disputed]) {
				await change(id, { type: "consumed", revision: 0, who: "auth" });
			}
			await change(failed, { type: "crashed", error: FATAL });
			await decideOne(disputed, { to: "rolledBack" });
			await decideOne(undone, { to: "rolledBack" });
			await harness.advance(999);
			const purge = (state: "completed" | "rolledBack", limit = 10) =>
				store.purge({ state, age: 1_000, limit });
			expect(await purge("completed")).toBe(0);
			await harness.advance(1);
			expect(await purge("completed")).toBe(1);
			expect(await purge("rolledBack")).toBe(1);
			expect(await purge("rolledBack")).toBe(0);
			const left = await store.get([done, undone, failed, disputed]);
			expect(left.map((group) => group?.id)).toEqual([
				undefined,
				undefined,
				failed,
				disputed,
			]);
			expect(await store.payloads(done)).toEqual([]);
			expect(await store.timeline(done)).toEqual([]);
			expect(await store.context(done)).toBeUndefined();
			const stats = await store.stats();
			expect(stats.groups).toMatchObject({ completed: 1, rolledBack: 0, committed: 1 });
			expect(stats.messages).toMatchObject({ consumed: 1, discarded: 0, failed: 1 });
		});

		it("R30: purge stops at its limit", async () => {
			const ids = await prepareMany(250);
			await store.decide(
				ids.map((id) => ({ id, to: "rolledBack", by: "producer", who: "user" })),
			);
			const purge = () => store.purge({ state: "rolledBack", age: 0, limit: 120 });
			expect([await purge(), await purge(), await purge()]).toEqual([120, 120, 10]);
		});

		it("keeps its id, its key and every group when it is opened again", async () => {
			const opened = await store.open();
			const ids = await prepareMany(20, { idempotencyKey: null });
			await send(ids[0] ?? "");
			const before = await store.get(ids);
			await store.close();
			await expect(store.get(ids)).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNAVAILABLE",
			});
			await expect(store.insert([fresh()])).rejects.toMatchObject({
				type: "LOTTOR_STORE_UNAVAILABLE",
			});
			expect(await store.open()).toEqual(opened);
			expect(await store.get(ids)).toEqual(before);
			const other = await harness.open();
			expect(await other.open()).toEqual(opened);
			expect(opened.key).toHaveLength(32);
			expect(await other.get(ids)).toEqual(before);
		});

		it("close stores what is queued", async () => {
			const groups = Array.from({ length: 30 }, () => fresh());
			const answers = groups.map((group) => store.insert([group]));
			await store.close();
			expect((await Promise.all(answers)).flat()).toEqual(
				groups.map(() => ({ result: "created" })),
			);
			await store.open();
			expect(await store.get(groups.map(({ id }) => id))).not.toContain(undefined);
		});

		it("holds 100,000 groups, and still claims, lists and counts right", async () => {
			const total = 100_000;
			const size = 1_000;
			for (let at = 0; at < total; at += size) {
				const checkAfter = at === 50_000 ? 1 : CHECK_AFTER;
				await Promise.all([
					prepareMany(size / 2, { checkAfter }),
					prepareMany(size / 2, { checkAfter }),
				]);
			}
			await harness.advance(1);
			const claimed = await claim({ limit: 2_000 });
			expect(claimed).toHaveLength(size);
			expect(new Set(claimed.map(({ group }) => group.id)).size).toBe(size);
			await send(claimed[0]?.group.id ?? "");
			const { items, next } = await store.list({}, { limit: 50 });
			expect(items).toHaveLength(50);
			expect(next).toBeDefined();
			const [only] = (await store.list({ states: ["committed"] }, { limit: 50 })).items;
			expect(only?.id).toBe(claimed[0]?.group.id);
			const stats = await store.stats();
			expect(stats.groups).toMatchObject({ prepared: total - 1, committed: 1 });
		}, 600_000);

		it("property: any sequence of steps leaves what the state machine makes of it", async () => {
			const event = fc.oneof(
				fc.constantFrom<MessageEvent>(
					{ type: "sent", storeId: CONSUMER_STORE, instance: null, ackTimeout: 10 },
					{ type: "rescheduled", delay: 7, parked: true, why: "nobody" },
					{ type: "asked", answer: "none", delay: 20 },
					{ type: "unseen", vanished: true },
					{ type: "crashed", error: FATAL },
					{ type: "consumed", revision: 0, who: "auth" },
					{ type: "fenced", minRevision: 1 },
					{ type: "retry", who: "ann" },
					{ type: "edit", content: "1", bytes: 1, who: "ann" },
					{ type: "discard", who: "ann", fenced: false },
				),
				fc.record({
					type: fc.constant("failed" as const),
					attempt: fc.integer({ min: 1, max: 3 }),
					revision: fc.integer({ min: 0, max: 1 }),
					error: fc.constantFrom(FAILURE, FATAL),
					policy: fc.constant(RETRY),
					fraction: fc.constantFrom(0, 0.5),
					who: fc.constant("auth"),
				}),
			);
			const step = fc.oneof(
				{
					weight: 3,
					arbitrary: fc.record({
						kind: fc.constant("change" as const),
						index: fc.integer({ min: 0, max: 2 }),
						stale: fc.boolean(),
						event,
					}),
				},
				{
					weight: 1,
					arbitrary: fc.record({
						kind: fc.constant("decide" as const),
						to: fc.constantFrom("committed" as const, "rolledBack" as const),
						by: fc.constantFrom(
							"producer" as const,
							"resolved" as const,
							"operator" as const,
						),
						dispatch: fc.boolean(),
					}),
				},
				{
					weight: 1,
					arbitrary: fc.record({
						kind: fc.constant("wait" as const),
						ms: fc.integer({ min: 0, max: 12_000 }),
					}),
				},
			);
			await fc.assert(
				fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
					const id = await prepare({ messages: [newMessage(), newMessage()] });
					let model = await standing(id);
					let entries = 1;
					for (const taken of steps) {
						if (taken.kind === "wait") {
							await harness.advance(taken.ms);
							continue;
						}
						const now = store.now();
						let result: { readonly result: string } | undefined;
						let outcome: TransitionResult;
						if (taken.kind === "decide") {
							const decision: Decision = {
								id,
								to: taken.to,
								by: taken.by,
								who: "x",
								...(taken.dispatch ? { dispatch: dispatchTo("auth") } : {}),
							};
							[result] = await store.decide([decision]);
							const expected = decide(model, decision, now);
							({ outcome } = expected);
							model = expected.group;
							entries += expected.entries.length;
						} else {
							const epoch = model.epoch - (taken.stale ? 1 : 0);
							const { index, event } = taken;
							const change: Change = { id, index, event, epoch };
							[result] = await store.apply([change]);
							const expected = applyChange(model, change, now);
							({ outcome } = expected);
							model = expected.group;
							entries += expected.entries.length;
						}
						expect(result?.result).toBe(outcome.result);
						expect(await standing(id)).toEqual(model);
					}
					expect(await store.timeline(id)).toHaveLength(entries);
				}),
				{ numRuns: 60 },
			);
		}, 120_000);
	});
}

function matches<T>(wanted: readonly T[] | undefined, value: T): boolean {
	return wanted === undefined || wanted.includes(value);
}

function hasTerm(message: MessageRecord, terms: readonly string[] | undefined): boolean {
	const { target, type, error, orderingKey } = message;
	const own = [target, type, error?.code ?? "", ...(orderingKey ?? "").split(" ")];
	return terms === undefined || terms.some((term) => own.includes(term));
}

function matchesGroup(filter: GroupFilter): (group: GroupRecord) => boolean {
	return (group) =>
		matches(filter.states, group.state) &&
		(filter.source ?? group.source) === group.source &&
		(filter.conflict === undefined || filter.conflict === (group.conflict !== null)) &&
		group.id.startsWith(filter.idPrefix ?? "") &&
		group.createdAt >= (filter.since ?? 0) &&
		group.createdAt < (filter.until ?? Number.POSITIVE_INFINITY) &&
		group.messages.some(
			(message) =>
				(filter.target ?? message.target) === message.target &&
				(filter.type ?? message.type) === message.type &&
				(filter.errorCode ?? message.error?.code) === message.error?.code &&
				hasTerm(message, filter.terms),
		);
}
