-- Cleans up a little of one partition: ends sessions that are past their end, and purges ended ones that are past their
-- retention, the oldest first.
--
-- KEYS[1] lru         ZSET  live sessions by last activity
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] ended       ZSET  ended sessions by purge time
-- KEYS[4] counts      HASH
-- ARGV[1..9]          see finish.inc.lua
-- ARGV[10] limit      how many of each kind
--
-- Returns the number of sessions expired, the number of records purged, then what finish.inc.lua has ended. Cost: O(log n) a session.
local lru, deadlines, ended, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit = tonumber(ARGV[10])

--include clock
--include record
--include finish

local now = clock()
local over = redis.call('ZRANGEBYSCORE', ended, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(over) do purge(id) end
local due = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do finish(id, 'x', now) end
table.insert(gone, 1, #over)
table.insert(gone, 1, #due)
return gone
