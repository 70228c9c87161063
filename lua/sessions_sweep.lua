-- Cleans up a little of one partition: ends sessions that are past their end, and purges ended ones that are past their
-- retention, the oldest first.
--
-- KEYS[1] lru         ZSET  live sessions by last activity
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] ended       ZSET  ended sessions by purge time
-- KEYS[4] counts      HASH
-- KEYS[5] fence       STRING  the highest epoch that has cleaned up here
-- ARGV[1..9]          see finish.inc.lua
-- ARGV[10] epoch, ARGV[11] is_leader: 1 or 0
-- ARGV[12] limit      how many of each kind
-- ARGV[13] due_by     the moment, by this clock, by which sessions must have been past their end: one that the caller has been told
--                     just before. So a sweep that a server runs late, after it had hung, ends nobody who was not due before.
--
-- Returns the us it took (0 where a server's clock stands still meanwhile), whether there is more, and a list of what
-- finish.inc.lua tells is gone; error FENCED <epoch>. Cost: O(log n) a session.
local lru, deadlines, ended, counts, fence = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local epoch, is_leader, limit, due_by = ARGV[10], ARGV[11], tonumber(ARGV[12]), ARGV[13]

--include record
--include finish
--include purge
--include fence

local refusal = fenced(epoch, is_leader)
if refusal then return refusal end
local begun = redis.call('TIME')
local now = begun[1] * 1000 + math.floor(begun[2] / 1000)
local over = redis.call('ZRANGEBYSCORE', ended, '-inf', now, 'LIMIT', 0, limit)
local due = redis.call('ZRANGEBYSCORE', deadlines, '-inf', due_by, 'LIMIT', 0, limit)
purge(over)
finish(due, 'x', now)
tidy(#due, now)
local done = redis.call('TIME')
return { (done[1] - begun[1]) * 1000000 + done[2] - begun[2], (#due == limit or #over == limit) and 1 or 0, gone }
