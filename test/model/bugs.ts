/** Mistakes that a protocol of this kind can be built with: the model must find each. */
export const BUGS = {
	"send before store": "a coordinator sends copies before the commit is stored",
	"no fence": "a check-back that finds no outcome answers rolledBack without storing it",
	"no epoch": "the writes of a claim that was taken over count",
	"ack before inbox": "a consumer reports before its transaction has committed",
	"decide twice": "a decision does not look at what stands",
	"rollback after an unclear COMMIT": "a producer takes a COMMIT without an answer for failed",
	"check-back answered from another store": "an instance with another store is asked",
	"inbox row purged before the report": "age alone purges inbox rows",
} as const;

export type Bug = keyof typeof BUGS;
