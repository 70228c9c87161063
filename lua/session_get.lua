-- Reads a session's record, live or ended. Touches nothing.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] more        HASH  its long strings
-- KEYS[3] pending     HASH  its requests in flight
-- KEYS[4] deadlines   ZSET  live sessions by their end
-- KEYS[5] ended       ZSET  ended sessions by purge time
-- ARGV[1] id
--
-- Returns the answer of record.inc.lua; error NOTFOUND. Cost: O(1).
local session, more, pending, deadlines, ended = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id = ARGV[1]

--include clock
--include record

local record = read(session)
if not record[1] then
  return redis.error_reply('NOTFOUND no such session')
end
local ends = redis.call('ZSCORE', deadlines, id) or redis.call('ZSCORE', ended, id)
return answer(record, more, clock(), ends, redis.call('HLEN', pending))
