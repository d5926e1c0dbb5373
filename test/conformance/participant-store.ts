import { setTimeout as sleep } from "node:timers/promises";

import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";

import type {
	ConsumeRequest,
	ParticipantStore,
	RunRequest,
	TxBase,
} from "../../adapters/participant-store/index.ts";
import {
	type Clock,
	FENCED_ALL,
	type Failure,
	type Guarantee,
	newGroupId,
	type Owner,
	systemRandom,
} from "../../protocol/index.ts";
import { CLAIM_RENEW_MS } from "../../adapters/participant-store/rules.ts";
import { ManualClock, settle } from "../support/manual-clock.ts";

/** One place where a store keeps its data, as the suite needs it. */
export interface ParticipantBench {
	/** A store on this place, not opened yet; each call makes another one, as another instance would. */
	store(clock: Clock): ParticipantStore;
	/** Writes a business row: inside `tx` where the store is transactional, else at once. */
	write(tx: TxBase, key: string): Promise<void>;
	/** The keys of the business rows that stand. */
	rows(): Promise<string[]>;
	/**
	 * Lets the next COMMIT, or the next write of an outcome, fail before or after it took effect.
	 */
	failCommit(when: "before" | "after"): void;
	close(): Promise<void>;
}

/** What a suite is run for. */
export interface ParticipantFactory {
	readonly guarantee: Guarantee;
	/** Whether a second store made by the bench sees the same data. */
	readonly shared: boolean;
	/** Whether `failCommit` works. */
	readonly faults: boolean;
	/** Whether a nested work is rolled back alone (R11). @default true */
	readonly savepoints?: boolean;
	/** Whether the client sends a COMMIT again that got no answer. @default false */
	readonly repeatsCommit?: boolean;
	/** Rounds of the race between a fence and a late commit. */
	readonly races: number;
	/** Up to how many milliseconds later the commit of that race is tried. @default 0 */
	readonly lateness?: number;
	make(): Promise<ParticipantBench>;
}

const OWNER: Owner = { nodeID: "node-1", instanceID: "start-1" };
const OTHER: Owner = { nodeID: "node-1", instanceID: "start-2" };
const DAY = 86_400_000;

const FAILURE: Failure = { code: "NO", message: "no", stack: "at x", retryable: true };

/** Holds a participant store to its contract; the expected results are those of its guarantee. */
export function participantStoreSuite(name: string, factory: ParticipantFactory): void {
	const transactional = factory.guarantee === "transactional";
	const recorded = !transactional;
	const { savepoints = true, repeatsCommit = false } = factory;
	/** Leaves out what a store of this kind has no notion of. */
	const when = (applies: boolean) => (applies ? it : () => undefined);

	describe(`participant store ${name}`, () => {
		let clock: ManualClock;
		let bench: ParticipantBench;
		let store: ParticipantStore;
		let opened: ParticipantStore[];

		beforeEach(async () => {
			clock = new ManualClock();
			bench = await factory.make();
			opened = [];
			store = await another();
		});

		afterEach(async () => {
			// A test that failed may have left some, which closing would wait for.
			for (const open of gates.splice(0)) open();
			await Promise.all(opened.map((one) => one.close()));
			await bench.close();
		});

		async function another(): Promise<ParticipantStore> {
			const made = bench.store(clock);
			await made.open();
			opened.push(made);
			return made;
		}

		const groupId = () => newGroupId(clock, systemRandom);
		const runRequest = (id: string, more: Partial<RunRequest<TxBase>> = {}) => ({
			id,
			owner: OWNER,
			coordinator: "coordinator-1",
			timeout: 60_000,
			...more,
		});
		const copy = (id: string, more: Partial<ConsumeRequest> = {}): ConsumeRequest => ({
			id,
			group: id.slice(0, 26),
			attempt: 1,
			revision: 0,
			receipt: "receipt",
			coordinator: "coordinator-1",
			owner: OWNER,
			isAlive: () => true,
			timeout: 30_000,
			...more,
		});
		const failure = (id: string, attempt: number, revision = 0) => ({
			id,
			attempt,
			revision,
			receipt: "receipt",
			coordinator: "coordinator-1",
			error: FAILURE,
		});
		const commit = (id: string) => store.run(runRequest(id), async () => undefined);
		const consume = (id: string, more: Partial<ConsumeRequest> = {}) =>
			store.consume(copy(id, more), (tx) => bench.write(tx, id));

		describe("opening", () => {
			it("tells its guarantee, and a storeId that stays", async () => {
				const first = await store.open();
				expect(first.guarantee).toBe(factory.guarantee);
				expect(first.storeId).toMatch(/^[0-9a-f]{32}$/);

				await store.close();
				expect(await store.open()).toEqual(first);
			});

			when(factory.shared)(
				"R3 gives every instance on the same data the same storeId",
				async () => {
					const second = await another();
					expect(await second.open()).toEqual(await store.open());
				},
			);

			it("R3 other data has another storeId", async () => {
				const elsewhere = await factory.make();
				const other = elsewhere.store(clock);
				expect((await other.open()).storeId).not.toBe((await store.open()).storeId);
				await other.close();
				await elsewhere.close();
			});

			it("runs no work once it is closed", async () => {
				await store.close();
				let ran = false;
				const result = await store.run(runRequest(groupId()), async () => {
					ran = true;
				});
				expect(result.state).toBe("rolledBack");
				expect(ran).toBe(false);
				await store.open();
			});
		});

		describe("outcomes", () => {
			it("R7 a work that returns is committed with its business row", async () => {
				const id = groupId();
				const result = await store.run(runRequest(id), async (tx) => {
					expect(tx.group).toBe(id);
					await bench.write(tx, id);
					return 42;
				});

				expect(result).toEqual({ state: "committed", value: 42 });
				expect(await store.resolve([id])).toEqual([{ result: "committed" }]);
				expect(await bench.rows()).toEqual([id]);
			});

			it("R7 a work that throws is rolled back; transactional: its row goes along", async () => {
				const id = groupId();
				const error = new Error("business says no");
				const result = await store.run(runRequest(id), async (tx) => {
					await bench.write(tx, id);
					throw error;
				});

				expect(result).toEqual({ state: "rolledBack", error });
				expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
				expect(await bench.rows()).toEqual(transactional ? [] : [id]);
			});

			it("R7 a fenced group's work does not run (LOTTOR_FENCED)", async () => {
				const id = groupId();
				expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
				const result = await store.run(runRequest(id), async (tx) => bench.write(tx, id));

				expect(result).toEqual({ state: "fenced" });
				expect(await bench.rows()).toEqual([]);
			});

			it("R7 no group's work runs twice", async () => {
				const id = groupId();
				await store.run(runRequest(id), async (tx) => bench.write(tx, "once"));
				const again = await store.run(runRequest(id), async (tx) =>
					bench.write(tx, "twice"),
				);

				expect(again).toEqual({ state: "fenced" });
				expect(await store.resolve([id])).toEqual([{ result: "committed" }]);
				expect(await bench.rows()).toEqual(["once"]);
			});

			it("R14 resolves each id on its own and the same way again", async () => {
				const [a, b, c] = [groupId(), groupId(), groupId()];
				await commit(a);
				const bad = 7 as unknown as string;
				const expected = [
					{ result: "committed" },
					{ result: "running" },
					{ result: "rolledBack" },
					{ result: "rolledBack" },
				];
				expect(await store.resolve([a, bad, b, c])).toEqual(expected);
				expect(await store.resolve([a, bad, b, c])).toEqual(expected);
			});

			it("R14 what is open is never fenced, and commits afterwards", async () => {
				const id = groupId();
				const held = gate();
				const work = store.run(runRequest(id), async (tx) => {
					await bench.write(tx, id);
					await held.pass();
				});
				await held.reached;
				const fence = store.resolve([id]);
				await settle();
				await clock.advance(1_000);

				expect(await fence).toEqual([
					transactional ? { result: "running" } : { result: "started", owner: OWNER },
				]);
				held.open();
				expect((await work).state).toBe("committed");
				expect(await store.resolve([id])).toEqual([{ result: "committed" }]);
			});

			it("R14 a fence and a late commit: exactly one of them wins", async () => {
				const fencer = factory.shared ? await another() : store;
				let committed = 0;
				for (let round = 0; round < factory.races; round++) {
					const id = groupId();
					const late = async () => {
						await settle(round % 4);
						if (factory.lateness)
							await sleep(Math.random() * factory.lateness * (1 + (round % 8)));
						return store.run(runRequest(id), async (tx) => {
							if (round % 2 === 0) await Promise.resolve();
							await bench.write(tx, id);
						});
					};
					const [result, [stands]] = await Promise.all([late(), fencer.resolve([id])]);
					const final = (await store.resolve([id]))[0];
					if (result.state === "committed") {
						committed++;
						expect(final).toEqual({ result: "committed" });
						expect(stands).not.toEqual({ result: "rolledBack" });
					} else {
						expect(result).toEqual({ state: "fenced" });
						expect(final).toEqual({ result: "rolledBack" });
						expect(stands).toEqual({ result: "rolledBack" });
					}
				}
				expect(await bench.rows()).toHaveLength(committed);
				expect([committed > 0, committed < factory.races]).toEqual([true, true]);
			}, 120_000);

			it("R15 force replaces only `started`, and its repeat is a no-op", async () => {
				const [absent, done, open] = [groupId(), groupId(), groupId()];
				await commit(done);
				expect(await store.force(absent, "committed")).toBe(false);
				expect(await store.force(done, "rolledBack")).toBe(false);
				expect(await store.force(done, "committed")).toBe(true);
				if (transactional) return;

				const held = gate();
				const work = store.run(runRequest(open), async () => {
					await held.pass();
					return "effect";
				});
				await held.reached;
				expect(await store.force(open, "rolledBack")).toBe(true);
				expect(await store.force(open, "rolledBack")).toBe(true);
				expect(await store.force(open, "committed")).toBe(false);
				held.open();
				expect(await work).toEqual({ state: "conflict", value: "effect" });
				expect(await store.resolve([open])).toEqual([{ result: "rolledBack" }]);
			});

			it("R10 a work over its limit: transactional rolled back, recorded unknown until it ends", async () => {
				const id = groupId();
				const held = gate();
				const work = store.run(runRequest(id, { timeout: 1_000 }), async (tx) => {
					await bench.write(tx, id);
					await held.pass();
				});
				await held.reached;
				await clock.advance(1_000);
				const result = await work;

				expect(result).toMatchObject({
					state: transactional ? "rolledBack" : "unknown",
					error: { type: "LOTTOR_WORK_TIMEOUT" },
				});
				if (transactional) {
					expect(await store.resolve([id])).toEqual([{ result: "rolledBack" }]);
					expect(await bench.rows()).toEqual([]);
					held.open();
					return;
				}
				expect(await store.resolve([id])).toEqual([{ result: "started", owner: OWNER }]);
				held.open();
				await until(async () => (await store.resolve([id]))[0]?.result === "committed");
			});

			when(transactional)(
				"R10 the handle refuses use after the limit (LOTTOR_TX_CLOSED)",
				async () => {
					const id = groupId();
					const held = gate();
					let late: Promise<unknown> | undefined;
					const work = store.run(runRequest(id, { timeout: 1_000 }), async (tx) => {
						late = held.opened
							.then(() => bench.write(tx, "late"))
							.catch((error: unknown) => error);
						await held.pass();
					});
					await held.reached;
					await clock.advance(1_000);
					await work;
					held.open();

					expect(await late).toMatchObject({ type: "LOTTOR_TX_CLOSED" });
					expect(await bench.rows()).toEqual([]);
				},
			);

			when(factory.faults)(
				"R8 an unclear COMMIT is answered by the row that stands",
				async () => {
					const [before, after] = [groupId(), groupId()];
					bench.failCommit("before");
					const lost = await run(before);
					bench.failCommit("after");
					const kept = await run(after);

					// A recorded work has happened: its outcome is written again until it stands.
					const stands = recorded || repeatsCommit;
					expect(lost.state).toBe(stands ? "committed" : "rolledBack");
					expect(kept).toEqual({ state: "committed", value: "done" });
					expect(await bench.rows()).toEqual(stands ? [before, after] : [after]);
					expect(await store.resolve([before, after])).toEqual([
						{ result: lost.state },
						{ result: "committed" },
					]);

					async function run(id: string) {
						const running = store.run(runRequest(id), async (tx) => {
							await bench.write(tx, id);
							return "done";
						});
						let over = false;
						void running.then(() => (over = true));
						while (!over) {
							await clock.advance(5);
							await sleep(2);
						}
						return running;
					}
				},
			);

			it("R9 unconfirmed lists committed outcomes by age until they are confirmed", async () => {
				const [first, second, undone, fenced] = [
					groupId(),
					groupId(),
					groupId(),
					groupId(),
				];
				await commit(first);
				await clock.advance(10);
				await commit(second);
				await store.run(runRequest(undone), async () => {
					throw new Error("no");
				});
				await store.resolve([fenced]);
				await clock.advance(1_000);
				await commit(groupId());
				const all = [first, second].map((id) => ({ id, coordinator: "coordinator-1" }));

				expect(await store.unconfirmed(500, 10)).toEqual(all);
				expect(await store.unconfirmed(500, 1)).toEqual(all.slice(0, 1));
				await store.confirm([first, "unknown", 7 as unknown as string]);
				await store.confirm([first]);
				expect(await store.unconfirmed(500, 10)).toEqual(all.slice(1));
			});
		});

		describe("R11 nested in a handler", () => {
			it("R11 the outcome stands with the handler's transaction", async () => {
				const [message, inner] = [`${groupId()}.0`, groupId()];
				const results: unknown[] = [];
				const result = await store.consume(copy(message), async (tx) => {
					const joined = await store.run(runRequest(inner, { join: tx }), async (own) => {
						await bench.write(own, inner);
						return "value";
					});
					if (joined.state === "joined") {
						expect(joined.value).toBe("value");
						void joined.ended.then((ended) => results.push(ended));
					} else results.push(joined);
				});

				expect(result).toEqual({ result: "consumed" });
				await settle();
				expect(results).toEqual([{ state: "committed", value: "value" }]);
				expect(await store.resolve([inner])).toEqual([{ result: "committed" }]);
				expect(await bench.rows()).toEqual([inner]);
			});

			it("R11 a handler that fails: transactional nothing stands, recorded at least once", async () => {
				const [message, inner] = [`${groupId()}.0`, groupId()];
				const results: string[] = [];
				const result = await store.consume(copy(message), async (tx) => {
					const joined = await store.run(runRequest(inner, { join: tx }), async (own) => {
						await bench.write(own, inner);
					});
					if (joined.state === "joined")
						void joined.ended.then((ended) => results.push(ended.state));
					else results.push(joined.state);
					throw new Error("handler fails");
				});

				expect(result).toMatchObject({ result: "failed" });
				await settle();
				expect(results).toEqual([transactional ? "rolledBack" : "committed"]);
				expect(await store.resolve([inner])).toEqual([
					{ result: transactional ? "rolledBack" : "committed" },
				]);
				expect(await bench.rows()).toEqual(transactional ? [] : [inner]);
			});

			const alone = recorded || savepoints;
			when(alone)("R11 a nested work that fails leaves the handler to decide", async () => {
				const [message, inner] = [`${groupId()}.0`, groupId()];
				const result = await store.consume(copy(message), async (tx) => {
					const nested = await store.run(runRequest(inner, { join: tx }), async () => {
						throw new Error("inner fails");
					});
					expect(nested).toMatchObject({ state: "rolledBack" });
					await bench.write(tx, "outer");
				});

				expect(result).toEqual({ result: "consumed" });
				expect(await store.resolve([inner])).toEqual([{ result: "rolledBack" }]);
				expect(await bench.rows()).toEqual(["outer"]);
			});

			when(transactional && !savepoints)(
				"R11 a nested work that fails takes the handler along: the whole is rolled back",
				async () => {
					const [message, inner] = [`${groupId()}.0`, groupId()];
					const result = await store.consume(copy(message), async (tx) => {
						await bench.write(tx, "outer");
						const nested = await store.run(
							runRequest(inner, { join: tx }),
							async (own) => {
								await bench.write(own, "inner");
								throw new Error("inner fails");
							},
						);
						expect(nested).toMatchObject({ state: "rolledBack" });
						await expect(async () => bench.write(tx, "later")).rejects.toMatchObject({
							type: "LOTTOR_TX_CLOSED",
						});
					});

					expect(result).toMatchObject({
						result: "failed",
						error: { type: "LOTTOR_TX_CLOSED" },
					});
					expect(await store.resolve([inner])).toEqual([{ result: "rolledBack" }]);
					expect(await bench.rows()).toEqual([]);
				},
			);
		});

		describe("inbox", () => {
			it("R32 runs a handler once and answers copies as duplicates", async () => {
				const id = `${groupId()}.0`;
				expect(await consume(id, { revision: 3 })).toEqual({ result: "consumed" });
				expect(await consume(id, { revision: 3 })).toEqual({
					result: "duplicate",
					revision: 3,
				});
				expect(await consume(id, { revision: 4, attempt: 2 })).toEqual({
					result: "duplicate",
					revision: 3,
				});
				expect(await store.look([id])).toEqual([{ result: "consumed", revision: 3 }]);
				expect(await bench.rows()).toEqual([id]);
			});

			it("R32 takes effect exactly once under 50 copies at once", async () => {
				const id = `${groupId()}.0`;
				const second = factory.shared ? await another() : store;
				const results = await Promise.all(
					Array.from({ length: 50 }, (_, i) =>
						(i % 2 === 0 ? store : second).consume(copy(id), async (tx) => {
							await bench.write(tx, id);
							await Promise.resolve();
						}),
					),
				);

				const count = (result: string) => results.filter((r) => r.result === result).length;
				expect(count("consumed")).toBe(1);
				expect(count("duplicate") + count("busy")).toBe(49);
				expect(await bench.rows()).toEqual([id]);
			});

			it("R32 a copy that waits over a second for a running one is busy", async () => {
				const id = `${groupId()}.0`;
				const held = gate();
				const first = store.consume(copy(id), held.pass);
				await held.reached;
				const waiting = consume(id);
				await clock.advance(1_000);

				expect(await waiting).toEqual({ result: "busy" });
				expect(await store.look([id])).toEqual([{ result: "running", owner: OWNER }]);
				held.open();
				expect(await first).toEqual({ result: "consumed" });
			});

			it("R32 a handler that throws fails; transactional: its effect and row go along", async () => {
				const id = `${groupId()}.0`;
				const error = new Error("handler says no");
				const result = await store.consume(copy(id), async (tx) => {
					await bench.write(tx, id);
					throw error;
				});
				expect(result).toEqual({ result: "failed", error });
				expect(await bench.rows()).toEqual(transactional ? [] : [id]);

				await store.fail(failure(id, 1));
				expect(await store.look([id])).toEqual([
					{ result: "failed", attempt: 1, revision: 0, error: FAILURE },
				]);
				expect(await consume(id)).toEqual({ result: "stale" });
				expect(await consume(id, { attempt: 2 })).toEqual({ result: "consumed" });
			});

			it("R32 fail overwrites no consumed row, no fence and no later attempt", async () => {
				const [done, fenced, later] = ["0", "1", "2"].map((n) => `${groupId()}.${n}`) as [
					string,
					string,
					string,
				];
				await consume(done);
				await store.fail(failure(done, 5));
				await store.fence(fenced, 2);
				await store.fail(failure(fenced, 1, 1));
				await store.fail(failure(later, 3));
				await store.fail(failure(later, 2));

				expect(await store.look([done, fenced, later, "unknown"])).toEqual([
					{ result: "consumed", revision: 0 },
					{ result: "unseen" },
					{ result: "failed", attempt: 3, revision: 0, error: FAILURE },
					{ result: "unseen" },
				]);
				await store.fail(failure(fenced, 1, 2));
				expect(await store.look([fenced])).toMatchObject([
					{ result: "failed", revision: 2 },
				]);
				expect(await consume(fenced, { attempt: 2, revision: 1 })).toEqual({
					result: "stale",
				});
			});

			it("R27 a fence refuses copies below its revision, for good", async () => {
				const id = `${groupId()}.0`;
				expect(await store.fence(id, 2)).toEqual({ result: "fenced" });
				expect(await store.fence(id, 1)).toEqual({ result: "fenced" });
				expect(await consume(id, { revision: 1 })).toEqual({ result: "stale" });
				expect(await consume(id, { revision: 2 })).toEqual({ result: "consumed" });
				expect(await store.fence(id, FENCED_ALL)).toEqual({
					result: "consumed",
					revision: 2,
				});
			});

			it("R27 a discarded message never runs", async () => {
				const id = `${groupId()}.0`;
				await store.fail(failure(id, 1));
				expect(await store.fence(id, FENCED_ALL)).toEqual({ result: "fenced" });
				expect(await consume(id, { attempt: 2, revision: 9 })).toEqual({ result: "stale" });
				expect(await bench.rows()).toEqual([]);
			});

			it("R27 R14 a fence against a running handler is busy, and the handler's effect stands", async () => {
				const id = `${groupId()}.0`;
				const held = gate();
				const work = store.consume(copy(id), async (tx) => {
					await held.pass();
					await bench.write(tx, id);
				});
				await held.reached;
				const fence = store.fence(id, FENCED_ALL);
				await clock.advance(1_000);

				expect(await fence).toEqual({ result: "busy" });
				held.open();
				expect(await work).toEqual({ result: "consumed" });
				expect(await store.fence(id, FENCED_ALL)).toEqual({
					result: "consumed",
					revision: 0,
				});
			});

			when(factory.faults && transactional)(
				"R32 R8 an unclear COMMIT is answered by the row that stands",
				async () => {
					const [before, after] = [`${groupId()}.0`, `${groupId()}.0`];
					bench.failCommit("before");
					expect(await consume(before)).toMatchObject({
						result: repeatsCommit ? "consumed" : "failed",
					});
					bench.failCommit("after");
					expect(await consume(after)).toEqual({ result: "consumed" });
					expect(await bench.rows()).toEqual(repeatsCommit ? [before, after] : [after]);
				},
			);

			it("R35 a handler over its limit fails; transactional: rolled back, recorded: it lasts", async () => {
				const id = `${groupId()}.0`;
				const held = gate();
				const work = store.consume(copy(id, { timeout: 1_000 }), async (tx) => {
					await bench.write(tx, id);
					await held.pass();
				});
				await held.reached;
				await clock.advance(1_000);
				const result = await work;

				expect(result).toMatchObject({
					result: "failed",
					error: { type: "LOTTOR_HANDLER_TIMEOUT" },
				});
				await store.fail(failure(id, 1));
				if (transactional) {
					expect(result).not.toHaveProperty("lasting");
					expect(await bench.rows()).toEqual([]);
					expect(await consume(id, { attempt: 2 })).toEqual({ result: "consumed" });
					held.open();
					return;
				}
				expect(await consume(id, { attempt: 2 })).toEqual({ result: "busy" });
				held.open();
				if (result.result === "failed") await result.lasting;
				await until(async () => (await store.look([id]))[0]?.result === "consumed");
				await until(async () => (await consume(id, { attempt: 2 })).result === "duplicate");
			});

			when(recorded && factory.shared)(
				"R32 a claim is renewed each 5 s and not taken over while it is",
				async () => {
					const second = await another();
					const id = `${groupId()}.0`;
					const held = gate();
					const first = store.consume(copy(id, { timeout: DAY }), held.pass);
					await held.reached;
					for (let i = 0; i < 20; i++) {
						await clock.advance(CLAIM_RENEW_MS);
						// The next renewal is planned once this one is stored.
						await until(async () => clock.dueIn(CLAIM_RENEW_MS));
					}
					const taking = await second.consume(
						copy(id, { owner: OTHER, isAlive: () => false }),
						async () => undefined,
					);

					expect(taking).toEqual({ result: "busy" });
					held.open();
					expect(await first).toEqual({ result: "consumed" });
				},
			);

			when(recorded && factory.shared)(
				"R32 a claim unrenewed for 30 s is taken over only when its owner is gone",
				async () => {
					const second = await another();
					const id = `${groupId()}.0`;
					const held = gate();
					const first = store.consume(copy(id, { timeout: DAY }), held.pass);
					await held.reached;
					const later = new ManualClock(clock.now() + 29_000);
					const observer = bench.store(later);
					await observer.open();
					opened.push(observer);
					const take = (alive: boolean) =>
						observer.consume(
							copy(id, { owner: OTHER, isAlive: () => alive }),
							async () => undefined,
						);

					expect(await take(false)).toEqual({ result: "busy" });
					await later.advance(1_000);
					expect(await take(true)).toEqual({ result: "busy" });
					expect(await take(false)).toEqual({ result: "consumed" });
					expect(await second.look([id])).toEqual([{ result: "consumed", revision: 0 }]);
					held.open();
					expect(await first).toEqual({ result: "consumed" });
				},
			);

			it("unsettled lists consumed messages by age until their report is acknowledged", async () => {
				const [first, second, failed] = ["0", "1", "2"].map((n) => `${groupId()}.${n}`) as [
					string,
					string,
					string,
				];
				await consume(first);
				await clock.advance(10);
				await consume(second, { attempt: 2, revision: 1 });
				await store.fail(failure(failed, 1));
				await clock.advance(1_000);
				await consume(`${groupId()}.0`);
				const common = { receipt: "receipt", coordinator: "coordinator-1" };
				const all = [
					{ id: first, attempt: 1, revision: 0, ...common },
					{ id: second, attempt: 2, revision: 1, ...common },
				];

				expect(await store.unsettled(500, 10)).toEqual(all);
				expect(await store.unsettled(500, 1)).toEqual(all.slice(0, 1));
				await store.settled([
					{ id: first, attempt: 1 },
					{ id: second, attempt: 1 },
					{ id: "unknown", attempt: 1 },
					{ id: 7 as unknown as string, attempt: 1 },
				]);
				// The report of attempt 1 was its failure: attempt 2 is still to be reported.
				expect(await store.unsettled(500, 10)).toEqual(all.slice(1));
				await store.settled([{ id: second, attempt: 2 }]);
				expect(await store.unsettled(500, 10)).toEqual([]);
			});
		});

		describe("R34 purge", () => {
			it("R34 deletes what is acknowledged and old, and fences; never what is not acknowledged", async () => {
				const groups = Array.from({ length: 3 }, groupId) as [string, string, string];
				const [confirmed, unconfirmed, fenced] = groups;
				const ids = groups.map((id) => `${id}.0`) as [string, string, string];
				const [settled, unsettled, discarded] = ids;
				await commit(confirmed);
				await commit(unconfirmed);
				await store.resolve([fenced]);
				await store.confirm([confirmed]);
				await consume(settled);
				await consume(unsettled);
				await store.fence(discarded, FENCED_ALL);
				await store.settled([{ id: settled, attempt: 1 }]);

				await clock.advance(7 * DAY);
				expect(await store.purge(7 * DAY, 100)).toBe(0);
				await clock.advance(1);
				expect(await store.purge(7 * DAY, 100)).toBe(4);
				expect(await store.purge(7 * DAY, 100)).toBe(0);

				await clock.advance(100 * DAY);
				expect(await store.purge(7 * DAY, 100)).toBe(0);
				expect(await store.unconfirmed(0, 10)).toMatchObject([{ id: unconfirmed }]);
				expect(await store.unsettled(0, 10)).toMatchObject([{ id: unsettled }]);
				expect(await store.look(ids)).toMatchObject([
					{ result: "unseen" },
					{ result: "consumed" },
					{ result: "unseen" },
				]);
			});

			it("R34 deletes at most `limit` rows at once", async () => {
				const ids = Array.from({ length: 5 }, groupId);
				await store.resolve(ids);
				await store.fence(`${groupId()}.0`, FENCED_ALL);
				await clock.advance(DAY);

				expect(await store.purge(1_000, 4)).toBe(4);
				expect(await store.purge(1_000, 4)).toBe(2);
			});
		});

		it("keeps everything over a restart", async () => {
			const [done, fenced] = [groupId(), groupId()];
			const [eaten, failed] = [`${groupId()}.0`, `${groupId()}.0`];
			await commit(done);
			await store.resolve([fenced]);
			await consume(eaten);
			await store.fail(failure(failed, 2));
			await store.close();
			await store.open();

			expect(await store.resolve([done, fenced])).toEqual([
				{ result: "committed" },
				{ result: "rolledBack" },
			]);
			expect(await store.look([eaten, failed])).toMatchObject([
				{ result: "consumed" },
				{ result: "failed", attempt: 2 },
			]);
			expect((await store.run(runRequest(fenced), async () => 1)).state).toBe("fenced");
			expect(await consume(eaten)).toMatchObject({ result: "duplicate" });
		});

		it("a bad work among many takes none of the others along", async () => {
			const ids = Array.from({ length: 12 }, groupId);
			const results = await Promise.all(
				ids.map((id, i) =>
					store.run(runRequest(id), async (tx) => {
						await bench.write(tx, id);
						if (i % 4 === 0) throw new Error("bad");
					}),
				),
			);
			const good = ids.filter((_, i) => i % 4 !== 0);

			results.forEach((result, i) =>
				expect(result.state).toBe(i % 4 === 0 ? "rolledBack" : "committed"),
			);
			expect((await bench.rows()).sort()).toEqual([...(transactional ? good : ids)].sort());
			const stands = await store.resolve(ids);
			stands.forEach((one, i) =>
				expect(one).toEqual({ result: i % 4 === 0 ? "rolledBack" : "committed" }),
			);
		});
	});
}

/** Opens every gate that a test made. */
const gates: (() => void)[] = [];

/** Where a work waits until it is let go on. */
function gate() {
	let reach = () => undefined as void;
	let open = () => undefined as void;
	const reached = new Promise<void>((resolve) => (reach = resolve));
	const opened = new Promise<void>((resolve) => (open = resolve));
	gates.push(open);
	const pass = () => {
		reach();
		return opened;
	};
	return { reached, opened, pass, open };
}

/** Waits for background writes of a store, which need turns of the loop and no time. */
async function until(holds: () => Promise<boolean>): Promise<void> {
	for (let turn = 0; turn < 10_000; turn++) {
		if (await holds()) return;
		await sleep(1);
	}
	throw new Error("what was waited for did not come");
}
