-- Counts a partition's sessions. Touches nothing.
--
-- KEYS[1] counts      HASH
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- ARGV    none
--
-- Returns the number of live sessions past their end, then names and values of the counts. Cost: O(log n).
local counts, deadlines = KEYS[1], KEYS[2]

--include clock

local reply = redis.call('HGETALL', counts)
table.insert(reply, 1, redis.call('ZCOUNT', deadlines, '-inf', clock()))
return reply
