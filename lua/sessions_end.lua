-- Ends those of some sessions that still live and meet the conditions.
--
-- KEYS[1] lru         ZSET    live sessions by last activity
-- KEYS[2] deadlines   ZSET    live sessions by their end
-- KEYS[3] ended       ZSET    ended sessions by purge time
-- KEYS[4] counts      HASH
-- KEYS[5] fence       STRING  the highest epoch that has cleaned up here
-- ARGV[1..9]          see finish.inc.lua
-- ARGV[10] epoch, ARGV[11] is_leader: 1 or 0
-- ARGV[12] status to end with; those past their end become expired
-- ARGV[13] was: the status they must have, '' for any
-- ARGV[14] min_idle ms, ARGV[15] min_age ms, ARGV[16] spare: 1 when those with requests in flight stay
-- then the ids, at most 100
--
-- Returns how many were ended, then what finish.inc.lua tells of them; error FENCED <epoch>. Cost: O(log n) a session.
local lru, deadlines, ended, counts, fence = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local epoch, is_leader, status, was = ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local min_idle, min_age, spare = tonumber(ARGV[14]), tonumber(ARGV[15]), ARGV[16]

--include clock
--include record
--include finish
--include fence

local refusal = fenced(epoch, is_leader)
if refusal then return refusal end
local now, count = clock(), 0
for i = 17, #ARGV do
  local keys = keys_of(ARGV[i])
  local record = redis.call('HMGET', keys[1], 's', 'c', 'a')
  local fits = (record[1] == 'i' or record[1] == 'a') and (was == '' or was == record[1])
  fits = fits and now - record[2] >= min_age and now - record[3] >= min_idle
  if fits and not (spare == '1' and redis.call('HLEN', keys[3]) > 0) then
    local ends = redis.call('ZSCORE', deadlines, ARGV[i])
    finish(ARGV[i], ends and tonumber(ends) <= now and 'x' or status, now)
    count = count + 1
  end
end
table.insert(gone, 1, count)
return gone
