import { INBOX_COLUMNS } from "./dialect.ts";

/** Every statement that the databases share, so that a test can ask for their plans. */
export const SQL = {
	outcomes: (ids: number) => `SELECT * FROM lottor_outcome WHERE id IN (${marks(ids)})`,
	endOutcome: `UPDATE lottor_outcome SET state = ?, node = NULL, instance = NULL, at = ?
		WHERE id = ? AND state = 'started'`,
	confirm: (ids: number) => `UPDATE lottor_outcome SET confirmed = 1
		WHERE id IN (${marks(ids)}) AND confirmed = 0 AND state <> 'started'`,
	unconfirmed: `SELECT id, coordinator FROM lottor_outcome
		WHERE confirmed = 0 AND at < ? AND state = 'committed' ORDER BY confirmed, at LIMIT ?`,
	inbox: (ids: number) => `SELECT * FROM lottor_inbox WHERE id IN (${marks(ids)})`,
	lockInbox: "SELECT * FROM lottor_inbox WHERE id = ?",
	replaceInbox: `UPDATE lottor_inbox SET ${INBOX_COLUMNS.map((name) => `${name} = ?`).join(", ")}
		WHERE id = ?`,
	settle: (ids: number) => `UPDATE lottor_inbox SET settled = 1 WHERE id IN (${marks(ids)})
		AND settled = 0 AND attempt <= ? AND state IN ('consumed', 'failed')`,
	unsettled: `SELECT id, attempt, revision, receipt, coordinator FROM lottor_inbox
		WHERE settled = 0 AND at < ? AND state = 'consumed' ORDER BY settled, at LIMIT ?`,
} as const;

/** The table of the store's id, as servers have it. */
export const PARTICIPANT = {
	participant: "SELECT version, store FROM lottor_participant",
	newParticipant: "INSERT INTO lottor_participant (one, version, store) VALUES (1, ?, ?)",
} as const;

function marks(count: number): string {
	return Array.from({ length: count }, () => "?").join(", ");
}
