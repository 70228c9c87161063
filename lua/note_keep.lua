-- Keeps a message of a live session's client, for the case that its upstream loses the session, or forgets one.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] deadlines   ZSET  live sessions by their end
-- KEYS[3] more        HASH  each under t: and its key, the notes; u their number
-- ARGV[1] id, ARGV[2] key, ARGV[3] message: '' to forget the one noted under the key
-- ARGV[4] most                how many notes a session may have
-- ARGV[5] lifetime ms         the backstop TTL of a live session
-- ARGV[6] leeway ms          see leeway.inc.lua
-- ARGV[7] max_age ms         0: never
--
-- Returns how many there are; error NOTFOUND, NOTESFULL. Cost: O(1).
local session, deadlines, more = KEYS[1], KEYS[2], KEYS[3]
local id, key, message, most, lifetime = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local leeway, max_age = tonumber(ARGV[6]), tonumber(ARGV[7])

--include clock
--include leeway
--include live

local now, field = clock(), 't:' .. key
if not lives(session, deadlines, id, leeway, max_age, now) then
  return redis.error_reply('NOTFOUND no such live session')
end
local known = redis.call('HMGET', more, field, 'u')
local notes = tonumber(known[2] or 0)
if message == '' then
  if not known[1] then return { notes } end
  redis.call('HDEL', more, field) -- first: a permitted write opens a full server for the others
  redis.call('HSET', more, 'u', notes - 1)
  return { notes - 1 }
end
if not known[1] then
  if notes >= most then
    return redis.error_reply('NOTESFULL as many are noted as may be')
  end
  notes = notes + 1
end
redis.call('HSET', more, field, message, 'u', notes) -- a full server refuses it
redis.call('PEXPIREAT', more, now + lifetime)
return { notes }
