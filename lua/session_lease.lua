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
--
-- Returns granted, how many are left then, ms to the session's end (-1: never), this clock in us, then the answer of
-- record.inc.lua; error NOTFOUND, LIMITED <ms until a retry may succeed>, PENDING. A refused call changes nothing. Cost: O(log n).
local session, more, lru, deadlines, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, digest, upstream, principal = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local idle, max_age, lifetime, never = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local interval, burst = tonumber(ARGV[9]), tonumber(ARGV[10])
local want, need, leeway = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[15])

--include leeway
--include record

local record = complete(read(session), more)
if record[1] ~= 'a' or record[2] ~= digest or (record[5] or '') ~= upstream or (record[3] or '') ~= principal then
  return redis.error_reply('NOTFOUND no such session for this caller')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if is_past(redis.call('ZSCORE', deadlines, id), leeway, record[11], max_age, now) then
  return redis.error_reply('NOTFOUND the session is past its end')
end
local in_flight, max_pending, more_pending = redis.call('HLEN', pending), tonumber(ARGV[13]), tonumber(ARGV[14])
if max_pending > 0 and more_pending > 0 and in_flight + more_pending > max_pending then
  return redis.error_reply('PENDING too many requests in flight')
end

local granted, left, arrival = want, 0, record[13] or '0'
local now_us = time[1] * 1000000 + time[2]
if interval > 0 then
  -- Never further ahead than a spent bucket: else a clock that went back would lock the client out.
  local from = math.min(math.max(tonumber(arrival), now_us), now_us + burst * interval)
  local room = math.floor((now_us + burst * interval - from) / interval)
  if room < need then
    local wait = from + need * interval - burst * interval - now_us
    return redis.error_reply('LIMITED ' .. math.ceil(wait / 1000))
  end
  -- Beyond the need at most a quarter of the rest: what one replica holds, another must do without.
  granted = need + math.min(want - need, math.floor((room - need) / 4))
  left = room - granted
  arrival = string.format('%.0f', from + granted * interval)
end

local activity = math.max(now, tonumber(record[12]))
local ends = never
if idle > 0 then ends = activity + idle end
if max_age > 0 then ends = math.min(ends, tonumber(record[11]) + max_age) end
redis.call('PEXPIREAT', session, now + lifetime) -- first: a permitted write opens a full server for the others
if max_age == 0 then redis.call('PEXPIREAT', more, now + lifetime) end
record[12], record[13], record[14] = activity, arrival, tonumber(record[14]) + need
redis.call('HSET', session, 'a', activity, 't', arrival, 'q', record[14])
redis.call('ZADD', lru, activity, id)
local score = string.format('%.0f', ends)
redis.call('ZADD', deadlines, score, id)

local ends_in = ends == never and -1 or ends - now
return { granted, left, ends_in, string.format('%.0f', now_us), unpack(answer(record, more, now, score, in_flight), 1, 20) }
