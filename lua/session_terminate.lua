-- Ends a live session for a reason. One that has ended already keeps its first status.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] more        HASH  its long strings
-- KEYS[3] lru         ZSET  live sessions by last activity
-- KEYS[4] deadlines   ZSET  live sessions by their end
-- KEYS[5] ended       ZSET  ended sessions by purge time
-- KEYS[6] counts      HASH
-- ARGV[1..9]          see finish.inc.lua
-- ARGV[10] id, ARGV[11] status to end with
-- ARGV[12] leeway ms (see leeway.inc.lua), ARGV[13] max_age ms, 0: never
--
-- Returns 1 when this call ended it, 2 when it did so as expired, because the session was past its end, 0 when it had ended
-- before; then the answer of record.inc.lua, and what finish.inc.lua tells is gone beside it. Error NOTFOUND. Cost: O(log n).
local session, more, lru, deadlines, ended, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, status, leeway, max_age = ARGV[10], ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13])

--include clock
--include record
--include finish
--include purge
--include leeway

local now = clock()
local record = read(session)
if not record[1] then
  return redis.error_reply('NOTFOUND no such session')
end
local done = 0
if record[1] == 'i' or record[1] == 'a' then
  local ends = redis.call('ZSCORE', deadlines, id)
  if is_past(ends, leeway, record[11], max_age, now) then status, done = 'x', 2 else done = 1 end
  finish({ id }, status, now)
  tidy(1, now)
  return { done, now, now + retention, 0, unpack(gone, 3) }
end
local reply = answer(record, more, now, redis.call('ZSCORE', ended, id), 0)
redis.call('PEXPIREAT', session, now + retention + backstop) -- a write: WAIT waits for those of its own connection only
table.insert(reply, 1, done)
return reply
