-- Reserves a place among a principal's live sessions, for a session about to be created. Repeated it finds the place reserved.
--
-- KEYS[1] principal   ZSET    ids of its sessions by the moment of reservation, ms
-- KEYS[2] rate        STRING  its bucket of creations: theoretical arrival time in us
-- ARGV[1] id, ARGV[2] instead: an id whose place this one takes over, '' for none
-- ARGV[3] cap                 places, 0: no cap
-- ARGV[4] interval us         between two creations at the full rate, 0: no limit
-- ARGV[5] burst
-- ARGV[6] lifetime ms         the backstop TTL of the places
-- ARGV[7] settled ms          how long after its reservation a place without a session is nobody's
-- ARGV[8] n                   how many of the oldest settled places to name
--
-- Returns OK; or RATE and the us until a retry may succeed; or FULL and up to n ids of settled places, the oldest first.
-- Cost: O(log n).
local principal, rate = KEYS[1], KEYS[2]
local id, instead, cap, interval, burst = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local lifetime, settled, n = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

--include gcra

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_new = not redis.call('ZSCORE', principal, instead) and not redis.call('ZSCORE', principal, id)
if is_new and cap > 0 and redis.call('ZCARD', principal) >= cap then
  return { 'FULL', unpack(redis.call('ZRANGEBYSCORE', principal, '-inf', now - settled, 'LIMIT', 0, n)) }
end
if is_new and interval > 0 then
  local wait = take(rate, interval, burst, time[1] * 1000000 + time[2])
  if wait > 0 then return { 'RATE', wait } end
end
redis.call('ZADD', principal, now, id)
redis.call('ZREM', principal, instead)
redis.call('PEXPIREAT', principal, now + lifetime)
return { 'OK' }
