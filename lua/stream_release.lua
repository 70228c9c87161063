-- Gives up the claim to read a live session's own stream. Repeated it finds it given up.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] more        HASH  h the reader, k the number of its claim
-- ARGV[1] id, ARGV[2] claim
-- ARGV[3] leeway ms          see leeway.inc.lua
-- ARGV[4] max_age ms         0: never
--
-- Returns 1, or 0 when nobody had it any more; error NOTFOUND, STALE (another claim). Cost: O(1).
local session, deadlines, more = KEYS[1], KEYS[2], KEYS[3]
local id, claim, leeway, max_age = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

--include clock
--include leeway
--include live

if not lives(session, deadlines, id, leeway, max_age, clock()) then
  return redis.error_reply('NOTFOUND no such live session')
end
if redis.call('HGET', more, 'k') ~= claim then
  return redis.error_reply('STALE another has the claim')
end
return { redis.call('HDEL', more, 'h') }
