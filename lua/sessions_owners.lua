-- Tells what state up to 100 sessions are in and whose they are, as far as the reconciler compares that with other keys. Touches
-- nothing.
--
-- KEYS[1] deadlines   ZSET  live sessions by their end
-- then the session HASH of each
-- ARGV    the id of each, in the same order
--
-- Returns for each its status ('' where there is no record, or something else in its place), 1 when it is past its end or has none
-- (else 0), its principal ('' for none) and when it was created. Cost: O(1) a session.
local deadlines = KEYS[1]

--include clock

local now, reply = clock(), {}
for i = 2, #KEYS do
  local ends = redis.call('ZSCORE', deadlines, ARGV[i - 1])
  local is_record = redis.call('TYPE', KEYS[i]).ok == 'hash'
  local record = is_record and redis.call('HMGET', KEYS[i], 's', 'p', 'c') or {}
  reply[#reply + 1], reply[#reply + 2] = record[1] or '', ends and tonumber(ends) > now and 0 or 1
  reply[#reply + 1], reply[#reply + 2] = record[2] or '', record[3] or '0'
end
return reply
