/** Entries that a stream's groups are done with, and consumers that are gone. */

/**
 * Removes from a stream what every group has handled, and from its groups the consumers that hold
 * nothing and have been silent for long.
 *
 * KEYS[1] the stream. ARGV[1] milliseconds of silence. Returns how many entries it removed.
 */
export const TIDY = `
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function field(list, name)
	for i = 1, #list, 2 do if list[i] == name then return list[i + 1] end end
end
local function before(a, b)
	local ams, aseq = string.match(a, '(%d+)-(%d+)')
	local bms, bseq = string.match(b, '(%d+)-(%d+)')
	if #ams ~= #bms then return #ams < #bms end
	if ams ~= bms then return ams < bms end
	return tonumber(aseq) < tonumber(bseq)
end
local oldest = nil
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
	local name = field(group, 'name')
	local needed = field(group, 'last-delivered-id')
	local pending = redis.call('XPENDING', KEYS[1], name)
	if pending[1] > 0 then needed = pending[2] end
	if oldest == nil or before(needed, oldest) then oldest = needed end
	for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], name)) do
		if field(consumer, 'pending') == 0 and field(consumer, 'idle') > tonumber(ARGV[1]) then
			redis.call('XGROUP', 'DELCONSUMER', KEYS[1], name, field(consumer, 'name'))
		end
	end
end
if oldest == nil then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', oldest)
`;

/**
 * Renews a consumer's hold on what it handles; what another one has meanwhile stays with that one.
 *
 * KEYS[1] the stream. ARGV[1] the group, ARGV[2] the consumer, ARGV[3..] ids of entries.
 */
export const RENEW = `
for i = 3, #ARGV do
	local found = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
	if #found > 0 then redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID') end
end
return 0
`;

/**
 * Lets any consumer claim at once what this one holds, and removes it where it holds nothing.
 *
 * KEYS[1] the stream. ARGV[1] the group, ARGV[2] the consumer, ARGV[3] milliseconds to count as idle.
 */
export const LEAVE = `
local held = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])
for _, entry in ipairs(held) do
	redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1], 'IDLE', ARGV[3], 'JUSTID')
end
if #held == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end
return #held
`;

/**
 * Messages that a group still has before it: unread ones and unacknowledged ones.
 *
 * KEYS[1] the stream. ARGV[1] the group.
 */
export const BACKLOG = `
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function field(list, name)
	for i = 1, #list, 2 do if list[i] == name then return list[i + 1] end end
end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
	if field(group, 'name') == ARGV[1] then
		local count = redis.call('XPENDING', KEYS[1], ARGV[1])[1]
		local from = field(group, 'last-delivered-id')
		repeat
			local entries = redis.call('XRANGE', KEYS[1], '(' .. from, '+', 'COUNT', 1000)
			count = count + #entries
			if #entries > 0 then from = entries[#entries][1] end
		until #entries < 1000 or count > 100000
		return count
	end
end
return redis.call('XLEN', KEYS[1])
`;
