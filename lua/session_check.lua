-- Tells which sessions still serve requests. Touches nothing.
--
-- KEYS[1] deadlines   ZSET  live sessions by their end
-- then the session HASH of each
-- ARGV    the id of each, in the same order
--
-- Returns for each 1 or 0. Cost: O(1) a session.
local deadlines = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {}
for i, id in ipairs(ARGV) do
  local ends = redis.call('ZSCORE', deadlines, id)
  local live = redis.call('HGET', KEYS[i + 1], 's') == 'a' and not (ends and tonumber(ends) <= now)
  reply[i] = live and 1 or 0
end
return reply
