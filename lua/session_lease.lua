-- Lets a replica serve a session: verifies the caller, enforces the end, touches, counts the requests in hand and takes request
-- budget (GCRA, in whole microseconds).
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] more        HASH  its long strings
-- KEYS[3] lru         ZSET  live sessions by last activity
-- KEYS[4] deadlines   ZSET  live sessions by their end
-- KEYS[5] pending     HASH  its requests in flight
-- ARGV[1] id, ARGV[2] digest, ARGV[3] upstream, ARGV[4] principal ('' for none)
-- ARGV[5] idle ms             idle timeout and slack, 0: never
-- ARGV[6] max_age ms          0: never
-- ARGV[7] lifetime ms         the backstop TTL of a live session
-- ARGV[8] never               the score of a session without an end
-- ARGV[9] interval us         between two requests at the full rate, 0: no limit
-- ARGV[10] burst, ARGV[11] want, ARGV[12] need: requests; the ones in hand are needed, all or none
-- ARGV[13] max_pending (requests in flight, 0: no cap), ARGV[14] more_pending: how many of those in hand would be
-- ARGV[15] leeway ms          see leeway.inc.lua
-- ARGV[16] known              the version of the record that the caller has, 0: none
--
-- Returns granted, how many are left then, ms to the session's end (-1: never), this clock in us, then the number of requests in
-- flight where the record is the known one, else the answer of record.inc.lua; error NOTFOUND, LIMITED <ms until a retry may succeed>, PENDING. A refused call changes nothing. Cost: O(log n).
local session, more, lru, deadlines, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, digest, upstream, principal = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local idle, max_age, lifetime, never = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local interval, burst, want, need = tonumber(ARGV[9]), ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])
local max_pending, more_pending, leeway, known = ARGV[13], ARGV[14], ARGV[15], ARGV[16]

--include leeway
--include record

local record = redis.call('HMGET', session, 's', 'd', 'u', 'p', 'v', 'c', 'a', 't', 'q')
if record[1] ~= 'a' or record[2] ~= digest or (record[3] or '') ~= upstream or (record[4] or '') ~= principal then
  return redis.error_reply('NOTFOUND no such session for this caller')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if is_past(redis.call('ZSCORE', deadlines, id), leeway, record[6], max_age, now) then
  return redis.error_reply('NOTFOUND the session is past its end')
end
local in_flight = redis.call('HLEN', pending)
if max_pending ~= '0' and more_pending ~= '0' and in_flight + more_pending > tonumber(max_pending) then
  return redis.error_reply('PENDING too many requests in flight')
end
local told = record[5] ~= known and complete(read(session), more)

local granted, left, arrival = want, 0, record[8] or '0'
local now_us = time[1] * 1000000 + time[2]
if interval > 0 then
  -- Never further ahead than a spent bucket: else a clock that went back would lock the client out.
  local spent = now_us + burst * interval
  local from = math.min(math.max(tonumber(arrival), now_us), spent)
  local room = math.floor((spent - from) / interval)
  if room < need then
    return redis.error_reply('LIMITED ' .. math.ceil((from + need * interval - spent) / 1000))
  end
  -- Beyond the need at most a quarter of the rest: what one replica holds, another must do without.
  granted = need + math.min(want - need, math.floor((room - need) / 4))
  left = room - granted
  arrival = string.format('%.0f', from + granted * interval)
end

local activity, requests, ends = math.max(now, tonumber(record[7])), record[9] + need, never
if idle > 0 then ends = activity + idle end
if max_age > 0 then ends = math.min(ends, record[6] + max_age) end
redis.call('PEXPIREAT', session, now + lifetime) -- first: a permitted write opens a full server for the others
if max_age == 0 then redis.call('PEXPIREAT', more, now + lifetime) end
redis.call('HSET', session, 'a', activity, 't', arrival, 'q', requests)
redis.call('ZADD', lru, activity, id)
redis.call('ZADD', deadlines, ends, id)

local ends_in = ends == never and -1 or ends - now
if not told then return { granted, left, ends_in, now_us, in_flight } end
told[12], told[13], told[14] = activity, arrival, requests
return { granted, left, ends_in, now_us, now, ends, in_flight, unpack(told, 1, 17) } -- as answer does
