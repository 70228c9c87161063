-- Cleans up a little of one partition: ends sessions that are past their end, and purges ended ones that are past their
-- retention, the oldest first.
--
-- KEYS[1] lru         ZSET  live sessions by last activity
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] ended       ZSET  ended sessions by purge time
-- KEYS[4] counts      HASH
-- ARGV[1] session_prefix, ARGV[2] more_prefix, ARGV[3] pending_prefix: put before an id they give its keys
-- ARGV[4] retention ms, ARGV[5] backstop ms (added to it), ARGV[6] ended_cap (0: none)
-- ARGV[7] limit               how many of each kind
--
-- Returns the number of sessions expired and of records purged. Cost: O(log n) a session.
local lru, deadlines, ended, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local session_prefix, more_prefix, pending_prefix = ARGV[1], ARGV[2], ARGV[3]
local retention, backstop, ended_cap = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local limit = tonumber(ARGV[7])

--include clock
--include finish

local now = clock()
local over = redis.call('ZRANGEBYSCORE', ended, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(over) do purge(id) end
local due = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do finish(id, 'x', now) end
return { #due, #over }
