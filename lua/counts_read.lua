-- Counts a partition's sessions, and what waits to be cleaned up. Touches nothing.
--
-- KEYS[1] counts      HASH
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] ended       ZSET  ended sessions by purge time
-- ARGV    none
--
-- Returns the number of live sessions past their end, for how many ms the oldest session has been waiting to be ended or
-- purged, then names and values of the counts. Cost: O(log n).
local counts, deadlines, ended = KEYS[1], KEYS[2], KEYS[3]

--include clock

local now, lag = clock(), 0
for _, index in ipairs({ deadlines, ended }) do
  local oldest = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  if oldest[2] then lag = math.max(lag, now - oldest[2]) end
end
local reply = redis.call('HGETALL', counts)
table.insert(reply, 1, lag)
table.insert(reply, 1, redis.call('ZCOUNT', deadlines, '-inf', now))
return reply
