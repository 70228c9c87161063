-- Ends a live session for a reason. One that has ended already keeps its first status.
--
-- KEYS[1] session     HASH  the record
-- KEYS[2] more        HASH  its long strings
-- KEYS[3] lru         ZSET  live sessions by last activity
-- KEYS[4] deadlines   ZSET  live sessions by their end
-- KEYS[5] ended       ZSET  ended sessions by purge time
-- KEYS[6] counts      HASH
-- ARGV[1] session_prefix, ARGV[2] more_prefix, ARGV[3] pending_prefix: put before an id they give its keys
-- ARGV[4] id, ARGV[5] status to end with
-- ARGV[6] retention ms, ARGV[7] backstop ms (added to it), ARGV[8] ended_cap (0: none)
--
-- Returns 1 when this call ended it, else 0; then the answer of record.inc.lua. A session past its end becomes expired,
-- whatever was asked. Error NOTFOUND. Cost: O(log n).
local session, more, lru, deadlines, ended, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local session_prefix, more_prefix, pending_prefix = ARGV[1], ARGV[2], ARGV[3]
local id, status = ARGV[4], ARGV[5]
local retention, backstop, ended_cap = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

--include clock
--include record
--include finish

local now = clock()
local record = read(session)
if not record[1] then
  return redis.error_reply('NOTFOUND no such session')
end
local done = 0
if record[1] == 'i' or record[1] == 'a' then
  local ends = redis.call('ZSCORE', deadlines, id)
  if ends and tonumber(ends) <= now then status = 'x' else done = 1 end
  record[1], record[4], record[17] = status, tonumber(record[4]) + 1, now
  record = complete(record, more)
  record[16] = false
  finish(id, status, now)
end
local reply = answer(record, more, now, redis.call('ZSCORE', ended, id), 0)
table.insert(reply, 1, done)
return reply
