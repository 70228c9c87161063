-- Activates a session, or changes an active one's upstream mapping, if its version is still the expected one. Repeated by
-- the same writer it answers with the record as that writer left it. What belongs to the mapping before goes: the claim to
-- recover it (y of more), and the upstream's id of the own stream's last event (j).
--
-- No version is given to two changes, also when a failover has lost the first: but the last three digits, in which versions count
-- on, that of a changed mapping is the time in us.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] more        HASH  its long strings
-- KEYS[3] lru         ZSET  live sessions by last activity
-- KEYS[4] deadlines   ZSET  live sessions by their end
-- KEYS[5] counts      HASH
-- KEYS[6] pending     HASH  its requests in flight
-- ARGV[1] id, ARGV[2] expected version, ARGV[3] writer
-- ARGV[4] idle ms             idle timeout and slack, 0: never
-- ARGV[5] max_age ms          0: never
-- ARGV[6] lifetime ms         the backstop TTL of a live session
-- ARGV[7] never               the score of a session without an end
-- ARGV[8] leeway ms          see leeway.inc.lua
-- ARGV[9] n, then n fields and values of the record, then fields and values of more
--
-- Returns the answer of record.inc.lua; error NOTFOUND, ILLEGAL (it has ended), CONFLICT (another version).
-- Cost: O(log n).
local session, more, lru, deadlines, counts, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, expected, writer = ARGV[1], ARGV[2], ARGV[3]
local idle, max_age, lifetime, never = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local leeway, n = tonumber(ARGV[8]), tonumber(ARGV[9])
local last_field = 9 + 2 * n

--include clock
--include leeway
--include record

local now = clock()
local record = read(session)
if not record[1] then
  return redis.error_reply('NOTFOUND no such session')
end
local ends, in_flight = tonumber(redis.call('ZSCORE', deadlines, id) or never), redis.call('HLEN', pending)
if (record[1] ~= 'i' and record[1] ~= 'a') or is_past(ends, leeway, record[11], max_age, now) then
  return redis.error_reply('ILLEGAL the session has ended')
end
if record[15] == writer then
  local reply = answer(record, more, now, ends, in_flight)
  redis.call('PEXPIREAT', session, now + lifetime) -- a write: WAIT waits for those of its own connection only
  return reply
end
if record[4] ~= expected then
  return redis.error_reply('CONFLICT the session has another version')
end

local version = tonumber(expected) + 1
if record[1] == 'a' then
  -- Up to 998: the end counts on, too, and must not begin anew.
  version = math.max(version, now * 1000 + math.min(expected % 1000 + 1, 998))
end
local activity = math.max(now, tonumber(record[12]))
ends = never
if idle > 0 then ends = activity + idle end
if max_age > 0 then ends = math.min(ends, tonumber(record[11]) + max_age) end
redis.call('PEXPIREAT', session, now + lifetime) -- first: a permitted write opens a full server for the others
redis.call('HSET', session, 's', 'a', 'a', activity, 'o', writer, 'v', string.format('%.0f', version), unpack(ARGV, 10, last_field))
redis.call('HDEL', more, 'y', 'j')
for i = 10, last_field, 2 do redis.call('HDEL', more, ARGV[i]) end -- it may have been long before
if #ARGV > last_field then
  redis.call('HSET', more, unpack(ARGV, last_field + 1))
  redis.call('PEXPIREAT', more, now + lifetime)
end
redis.call('ZADD', lru, activity, id)
redis.call('ZADD', deadlines, string.format('%.0f', ends), id)
if record[1] == 'i' then
  redis.call('HINCRBY', counts, 'i', -1)
  redis.call('HINCRBY', counts, 'a', 1)
end
return answer(read(session), more, now, string.format('%.0f', ends), in_flight)
