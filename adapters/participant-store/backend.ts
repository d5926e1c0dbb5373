import type { Outcome } from "../../protocol/index.ts";
import type { UnsettledMessage } from "./contract.ts";
import type { InboxRow, OutcomeRow } from "./rules.ts";

/**
 * What any store must be able to do with its rows, whatever its guarantee: each call is one atomic,
 * durable step, or a read. It may reject with LOTTOR_STORE_UNAVAILABLE, and then may or may not
 * have happened.
 */
export interface RowBackend {
	/** What and where, without secrets. */
	readonly description: string;
	open(): Promise<{ readonly storeId: string }>;
	close(): Promise<void>;
	/** The store's clock, milliseconds since 1970 (R19). */
	now(): number;

	outcomes(ids: readonly string[]): Promise<(OutcomeRow | undefined)[]>;
	/** Replaces `started`. @returns whether it stood */
	endOutcome(id: string, to: Outcome, at: number): Promise<boolean>;
	/** Marks outcomes other than `started` as acknowledged. */
	confirm(ids: readonly string[]): Promise<void>;
	/** Unconfirmed `committed` with `at` before the given time, oldest first. */
	unconfirmed(
		before: number,
		limit: number,
	): Promise<{ readonly id: string; readonly coordinator: string }[]>;

	inbox(ids: readonly string[]): Promise<(InboxRow | undefined)[]>;
	/** Marks consumed and failed rows of these attempts, or earlier ones, as acknowledged. */
	settle(reports: readonly { readonly id: string; readonly attempt: number }[]): Promise<void>;
	/** Unsettled `consumed` with `at` before the given time, oldest first. */
	unsettled(before: number, limit: number): Promise<UnsettledMessage[]>;
	/** Deletes confirmed outcomes and settled inbox rows with `at` before the given time. */
	purge(before: number, limit: number): Promise<number>;
}
