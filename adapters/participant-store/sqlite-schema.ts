/** Version of the tables below. A file with a higher one is refused. */
export const SCHEMA = 1;

/**
 * The partial indexes hold only what is still to be done, or may be purged: each periodic question
 * is a range scan of its own small index, whatever the number of rows.
 */
export const TABLES = [
	`CREATE TABLE lottor_participant (
		one INTEGER PRIMARY KEY CHECK (one = 1),
		schema INTEGER NOT NULL,
		store_id TEXT NOT NULL
	) STRICT`,
	`CREATE TABLE lottor_outcome (
		id TEXT PRIMARY KEY,
		state TEXT NOT NULL CHECK (state IN ('started', 'committed', 'rolledBack')),
		node TEXT,
		instance TEXT,
		coordinator TEXT NOT NULL,
		at INTEGER NOT NULL,
		confirmed INTEGER NOT NULL
	) STRICT, WITHOUT ROWID`,
	`CREATE INDEX lottor_outcome_open ON lottor_outcome (at)
		WHERE confirmed = 0 AND state = 'committed'`,
	`CREATE INDEX lottor_outcome_done ON lottor_outcome (at) WHERE confirmed = 1`,
	`CREATE TABLE lottor_inbox (
		id TEXT PRIMARY KEY,
		state TEXT NOT NULL CHECK (state IN ('consumed', 'failed', 'running', 'fenced')),
		attempt INTEGER NOT NULL,
		revision INTEGER NOT NULL,
		fence INTEGER NOT NULL,
		receipt TEXT NOT NULL,
		coordinator TEXT NOT NULL,
		error TEXT,
		node TEXT,
		instance TEXT,
		renewed INTEGER NOT NULL,
		at INTEGER NOT NULL,
		settled INTEGER NOT NULL
	) STRICT, WITHOUT ROWID`,
	`CREATE INDEX lottor_inbox_open ON lottor_inbox (at)
		WHERE settled = 0 AND state = 'consumed'`,
	`CREATE INDEX lottor_inbox_done ON lottor_inbox (at) WHERE settled = 1`,
];

/** Every statement on the tables, so that a test can ask for their plans. */
export const SQL = {
	outcome: "SELECT * FROM lottor_outcome WHERE id = ?",
	insertOutcome: `INSERT INTO lottor_outcome (id, state, node, instance, coordinator, at, confirmed)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
	endOutcome: `UPDATE lottor_outcome SET state = ?, node = NULL, instance = NULL, at = ?
		WHERE id = ? AND state = 'started'`,
	confirm: `UPDATE lottor_outcome SET confirmed = 1
		WHERE id = ? AND confirmed = 0 AND state <> 'started'`,
	unconfirmed: `SELECT id, coordinator FROM lottor_outcome INDEXED BY lottor_outcome_open
		WHERE confirmed = 0 AND state = 'committed' AND at < ? ORDER BY at LIMIT ?`,
	purgeOutcomes: `DELETE FROM lottor_outcome WHERE id IN
		(SELECT id FROM lottor_outcome INDEXED BY lottor_outcome_done
			WHERE confirmed = 1 AND at < ? ORDER BY at LIMIT ?)`,
	inbox: "SELECT * FROM lottor_inbox WHERE id = ?",
	insertInbox: `INSERT INTO lottor_inbox (id, state, attempt, revision, fence, receipt, coordinator,
		error, node, instance, renewed, at, settled)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
	replaceInbox: `INSERT OR REPLACE INTO lottor_inbox (id, state, attempt, revision, fence, receipt,
		coordinator, error, node, instance, renewed, at, settled)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
	settle: `UPDATE lottor_inbox SET settled = 1
		WHERE id = ? AND settled = 0 AND attempt <= ? AND state IN ('consumed', 'failed')`,
	unsettled: `SELECT id, attempt, revision, receipt, coordinator
		FROM lottor_inbox INDEXED BY lottor_inbox_open
		WHERE settled = 0 AND state = 'consumed' AND at < ? ORDER BY at LIMIT ?`,
	purgeInbox: `DELETE FROM lottor_inbox WHERE id IN
		(SELECT id FROM lottor_inbox INDEXED BY lottor_inbox_done
			WHERE settled = 1 AND at < ? ORDER BY at LIMIT ?)`,
} as const;
