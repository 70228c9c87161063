-- Tells which sessions still serve requests. Touches nothing.
--
-- KEYS[1] deadlines   ZSET  live sessions by their end
-- then the session HASH of each
-- ARGV[1] leeway ms   see leeway.inc.lua
-- ARGV[2] max_age ms  0: never
-- then the id of each, in the same order
--
-- Returns for each 1 or 0. Cost: O(1) a session.
local deadlines, leeway, max_age = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

--include leeway

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {}
for i = 2, #KEYS do
  local ends = redis.call('ZSCORE', deadlines, ARGV[i + 1])
  local record = redis.call('HMGET', KEYS[i], 's', 'c')
  reply[i - 1] = record[1] == 'a' and not is_past(ends, leeway, record[2], max_age, now) and 1 or 0
end
return reply
