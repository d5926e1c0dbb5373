import { createHash } from "node:crypto";

/** One atomic step. */
export interface Script {
	readonly lua: string;
	readonly sha: string;
}

function script(lua: string): Script {
	return { lua, sha: createHash("sha1").update(lua).digest("hex") };
}

/**
 * Names the store, the first time.
 *
 * KEYS[1] the store's hash
 * ARGV[1] version of the keys, ARGV[2] a new storeId
 * returns { version, storeId } as they stand
 */
export const NAME_STORE = script(`
redis.call("HSETNX", KEYS[1], "id", ARGV[2])
redis.call("HSETNX", KEYS[1], "version", ARGV[1])
return redis.call("HMGET", KEYS[1], "version", "id")
`);

/**
 * Inserts an outcome if there is none. The token tells a call that the client sent again from
 * another one.
 *
 * KEYS[1] the outcome's hash, KEYS[2] ids of unconfirmed commits by time, KEYS[3] what may be purged
 * by time
 * ARGV[1] id, ARGV[2] token, ARGV[3] state, ARGV[4] node or "", ARGV[5] instance or "",
 * ARGV[6] coordinator, ARGV[7] at, ARGV[8] confirmed: 0 or 1
 * returns 1 when it is the one that stands, 0 when another one does
 */
export const INSERT_OUTCOME = script(`
if redis.call("EXISTS", KEYS[1]) == 1 then
	return redis.call("HGET", KEYS[1], "token") == ARGV[2] and 1 or 0
end
redis.call("HSET", KEYS[1], "token", ARGV[2], "state", ARGV[3], "node", ARGV[4],
	"instance", ARGV[5], "coordinator", ARGV[6], "at", ARGV[7], "confirmed", ARGV[8])
if ARGV[8] == "1" then
	redis.call("ZADD", KEYS[3], ARGV[7], "outcome:" .. ARGV[1])
elseif ARGV[3] == "committed" then
	redis.call("ZADD", KEYS[2], ARGV[7], ARGV[1])
end
return 1
`);

/**
 * Replaces "started" by an outcome.
 *
 * KEYS[1] the outcome's hash, KEYS[2] ids of unconfirmed commits by time
 * ARGV[1] id, ARGV[2] the outcome, ARGV[3] at
 * returns 1 when "started" stood, else 0
 */
export const END_OUTCOME = script(`
if redis.call("HGET", KEYS[1], "state") ~= "started" then return 0 end
redis.call("HSET", KEYS[1], "state", ARGV[2], "node", "", "instance", "", "at", ARGV[3])
if ARGV[2] == "committed" then redis.call("ZADD", KEYS[2], ARGV[3], ARGV[1]) end
return 1
`);

/**
 * Marks outcomes other than "started" as acknowledged: from now on they may be purged.
 *
 * KEYS[1] ids of unconfirmed commits by time, KEYS[2] what may be purged by time,
 * KEYS[3...] the outcomes' hashes
 * ARGV[...] their ids, in the same order
 * returns how many were marked
 */
export const CONFIRM = script(`
local marked = 0
for i, id in ipairs(ARGV) do
	local row = redis.call("HMGET", KEYS[i + 2], "state", "at", "confirmed")
	if row[1] and row[1] ~= "started" and row[3] == "0" then
		redis.call("HSET", KEYS[i + 2], "confirmed", "1")
		redis.call("ZREM", KEYS[1], id)
		redis.call("ZADD", KEYS[2], row[2], "outcome:" .. id)
		marked = marked + 1
	end
end
return marked
`);

/**
 * Reads rows.
 *
 * KEYS[...] their hashes
 * ARGV[...] names of the fields
 * returns for each the fields' values; false for a field that is not there
 */
export const READ = script(`
local rows = {}
for i, key in ipairs(KEYS) do rows[i] = redis.call("HMGET", key, unpack(ARGV)) end
return rows
`);

/**
 * Replaces an inbox row, or inserts it. The token tells a call that the client sent again from
 * another one.
 *
 * KEYS[1] the row's hash, KEYS[2] ids of unsettled messages by time, KEYS[3] what may be purged by
 * time
 * ARGV[1] id, ARGV[2] the row that must stand, "" for none, ARGV[3] its settled,
 * ARGV[4] the new row, ARGV[5] its settled, ARGV[6] its state, ARGV[7] its attempt, ARGV[8] its at,
 * ARGV[9] token
 * returns 1 when the new row is the one that stands, else 0
 */
export const SWAP_INBOX = script(`
local stands = redis.call("HMGET", KEYS[1], "row", "settled", "token")
if stands[3] == ARGV[9] then return 1 end
if (stands[1] or "") ~= ARGV[2] then return 0 end
if stands[1] and stands[2] ~= ARGV[3] then return 0 end
redis.call("HSET", KEYS[1], "row", ARGV[4], "settled", ARGV[5], "state", ARGV[6],
	"attempt", ARGV[7], "at", ARGV[8], "token", ARGV[9])
redis.call("ZREM", KEYS[2], ARGV[1])
redis.call("ZREM", KEYS[3], "inbox:" .. ARGV[1])
if ARGV[5] == "1" then
	redis.call("ZADD", KEYS[3], ARGV[8], "inbox:" .. ARGV[1])
elseif ARGV[6] == "consumed" then
	redis.call("ZADD", KEYS[2], ARGV[8], ARGV[1])
end
return 1
`);

/**
 * Marks consumed and failed rows of these attempts, or earlier ones, as acknowledged: from now on
 * they may be purged.
 *
 * KEYS[1] ids of unsettled messages by time, KEYS[2] what may be purged by time,
 * KEYS[3...] the rows' hashes
 * ARGV[...] id and attempt of each, in the same order
 * returns how many were marked
 */
export const SETTLE = script(`
local marked = 0
for i = 3, #KEYS do
	local id, attempt = ARGV[2 * i - 5], tonumber(ARGV[2 * i - 4])
	local row = redis.call("HMGET", KEYS[i], "state", "attempt", "at", "settled")
	local reported = row[1] == "consumed" or row[1] == "failed"
	if reported and row[4] == "0" and tonumber(row[2]) <= attempt then
		redis.call("HSET", KEYS[i], "settled", "1")
		redis.call("ZREM", KEYS[1], id)
		redis.call("ZADD", KEYS[2], row[3], "inbox:" .. id)
		marked = marked + 1
	end
end
return marked
`);

/**
 * Deletes rows that may be purged and are old enough.
 *
 * KEYS[1] what may be purged by time, KEYS[2...] the rows' hashes
 * ARGV[1] the time before which they came to stand, ARGV[2...] their names in KEYS[1], in the same
 * order
 * returns how many were deleted
 */
export const PURGE = script(`
local deleted = 0
for i = 2, #KEYS do
	local at = redis.call("ZSCORE", KEYS[1], ARGV[i])
	if at and tonumber(at) < tonumber(ARGV[1]) then
		redis.call("DEL", KEYS[i])
		redis.call("ZREM", KEYS[1], ARGV[i])
		deleted = deleted + 1
	end
end
return deleted
`);

/**
 * The clock of the server that has the rows: nodes of a cluster have one each.
 *
 * KEYS[1] any key of the store
 * returns { seconds since 1970, microseconds }
 */
export const TIME = script(`
return redis.call("TIME")
`);
